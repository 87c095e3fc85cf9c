"""What the networks made of a sample, as a scene."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyworld.core.errors import TrainingError
from tinyworld.core.geometry import Cameras, decode_pose
from tinyworld.infer.world.scene import Scene
from tinyworld.models.fantasy.prediction import Geometry


def scene_of(
    frames: np.ndarray, geometry: Geometry, place: int, fps: float, scale: float, facts: dict[str, Any]
) -> Scene:
    """Sample `place` of a batch's geometry beside its frames, uint8 T H W 3. The cameras are those that the model sees.

    Raises TrainingError for numbers that are not finite.
    """
    own = [geometry.depth[place], geometry.depth_confidence[place], geometry.points[place]]
    depth, confidence, points = (check_finite(values.float(), "geometry").cpu().numpy() for values in own)
    pose = check_finite(geometry.poses[-1][place].detach().double(), "cameras").cpu()
    cameras = decode_pose(pose, *frames.shape[1:3]).relative()
    point_confidence = geometry.point_confidence[place].float().cpu().numpy()
    return Scene(frames, depth, confidence, points, point_confidence, cameras, fps, scale, facts)


def check_finite(values: Tensor, what: str) -> Tensor:
    """The values. Raises TrainingError where one is no number."""
    if not bool(torch.isfinite(values).all()):
        raise TrainingError(
            f"The model's {what} hold numbers that are not finite. Overflow in float16 is the usual cause: use bfloat16 or "
            "float32 (--dtype). If that is what it has, its weights come from a run that went wrong: take an earlier file."
        )
    return values


def camera_facts(cameras: Cameras | None, words: str | None = None) -> dict[str, Any] | None:
    """Cameras that the model was given, in the scene's unit: plain numbers for its facts, T 3 4 and T 4."""
    if cameras is None:
        return None
    return {"asked": words, "extrinsics": cameras.extrinsics.tolist(), "intrinsics": cameras.intrinsics.tolist()}
