"""How well a generated video follows the cameras that were asked for, judged from the video alone."""

import torch

from tinyworld.core.geometry import Cameras
from tinyworld.infer.world.pipeline import FantasyWorldPipeline
from tinyworld.infer.world.scene import Scene
from tinyworld.metrics.trajectory import camera_metrics


def following(pipeline: FantasyWorldPipeline, scene: Scene, asked: Cameras, sigma: float = 0.1) -> dict[str, float]:
    """ate, rpe_translation, rpe_rotation (degrees) and auc30 of the cameras that the model sees in the scene's frames when it is
    told nothing, against those asked for (T, the scene's unit): what the scene's own cameras cannot say, as their model knew
    the answer. NaN for one frame. Raises as `FantasyWorldPipeline.lift`.
    """
    seen = pipeline.lift(scene.frames, sigma, generator=0).cameras
    pair = (Cameras(c.extrinsics[None], c.intrinsics[None], c.height, c.width) for c in (seen, asked))
    return {name: float(value[0]) for name, value in camera_metrics(*pair).items()}


def asked_cameras(scene: Scene) -> Cameras | None:
    """The cameras that a generated scene was asked for, in its unit; None where it was asked for none."""
    told = scene.facts.get("camera")
    if told is None:
        return None
    extrinsics, intrinsics = (torch.tensor(told[key], dtype=torch.float64) for key in ("extrinsics", "intrinsics"))
    return Cameras(extrinsics, intrinsics, scene.height, scene.width)
