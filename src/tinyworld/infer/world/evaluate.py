"""A trained world beside labels, and beside itself without cameras."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras, world_points
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.infer.world.following import following
from tinyworld.infer.world.pipeline import FantasyWorldPipeline
from tinyworld.infer.world.scene import Scene
from tinyworld.infer.world.tally import Outcome
from tinyworld.infer.world.without_truth import STILL, against, as_asked
from tinyworld.metrics.geometry import consistency, depth_metrics, median_depth, point_metrics
from tinyworld.metrics.trajectory import NAMES as FOLLOWING
from tinyworld.metrics.trajectory import camera_metrics, identity_cameras

MEDIAN, MEAN_MAP = "median depth", "mean training depth map"
FORWARD, WITHOUT = "even forward motion", "no camera given"
NAMES = (
    *("abs_rel", "delta1", "abs_rel_scaled", "delta1_scaled", "point_error", "point_error_scaled"),
    *("consistency", *FOLLOWING),
)
SCALED = ("ate", "rpe_translation", "auc30")
"""What says nothing of a clip whose scale is unknown."""
PATHS = ("orbit", "dolly", "truck", "pan")
"""Camera paths that are followed where none is asked for: each a motion that the others are not made of."""


@dataclass(frozen=True)
class Labelled:
    """A window of a labelled clip, in units of its own scale; world = its first camera.

    id: of the clip. start: first frame of the window. seed: of the noise. frames: uint8 T H W 3. depth: float T H W. mask:
    bool T H W, where depth and points are valid. points: float T H W 3. cameras: T. usable: whether the scale means something.
    usual_depth: H W, the mean depth map of the clips that the model was trained on, in units of a clip's scale; None where
    they are not known.
    """

    id: str
    start: int
    seed: int
    frames: np.ndarray
    depth: Tensor
    mask: Tensor
    points: Tensor
    cameras: Cameras
    usable: bool = True
    usual_depth: Tensor | None = None


def judged(pipeline: FantasyWorldPipeline, truth: Labelled, sigma: float) -> Outcome:
    """The window lifted without its cameras, at noise sigma, against its labels: NAMES, beside the clip's median depth, the
    mean depth map of training clips where it is known, a camera that stands still, and one that goes straight on (which, after
    a similarity, meets any even straight track). NaN where there is no label. Raises as `FantasyWorldPipeline.lift`."""
    return compared(pipeline.lift(truth.frames, sigma, generator=truth.seed), truth)


def compared(scene: Scene, truth: Labelled) -> Outcome:
    """A scene against the labels of its frames. A scene without points has none of their errors."""
    depth, target, mask = torch.from_numpy(scene.depth)[None], truth.depth[None], truth.mask[None]
    own, true = _one(scene.cameras), _one(truth.cameras.to(torch.float64))
    values = depth_metrics(depth, target, mask) | camera_metrics(own, true)
    if scene.points is not None:
        points = torch.from_numpy(scene.points)[None]
        values |= point_metrics(points, truth.points[None], mask)
        values["consistency"] = consistency(depth, points, own, mask)
    flat, still = median_depth(target, mask), identity_cameras(true)
    constant = depth_metrics(flat, target, mask)
    standing = point_metrics(world_points(flat.double(), still), truth.points[None].double(), mask)
    moving = {name: camera_metrics(cameras, true) for name, cameras in ((STILL, still), (FORWARD, _forward(true)))}
    baselines = {MEDIAN: constant | standing, **moving}
    if truth.usual_depth is not None:
        baselines[MEAN_MAP] = depth_metrics(truth.usual_depth.to(target).expand_as(target), target, mask)
    return Outcome(
        truth.id,
        truth.start,
        _numbers(values, truth.usable),
        {name: _numbers(found, truth.usable) for name, found in baselines.items()},
    )


def followed(
    pipeline: FantasyWorldPipeline, path: str | Cameras, name: str, seed: int, request: dict[str, Any]
) -> Outcome:
    """Two worlds of one seed, made with and without being given a camera path: how well the cameras that the model sees in
    each video, told nothing, follow it, and how well its frames move with it: `without_truth.FOLLOWED`. Also beside a camera
    that stands still.

    path: words of `camera_paths`, or cameras of the clip in the scene's unit. name: the outcome's id. request: what else the
    pipeline is called with. Raises as the pipeline does.
    """
    clip = pipeline.clip_of(request.get("height"), request.get("width"), request.get("num_frames"))
    asked = cameras_for(path, clip.frames, clip.height, clip.width) if isinstance(path, str) else path
    asked = asked.to(torch.float64).relative()
    made = [pipeline(camera=camera, generator=seed, **request) for camera in (asked, None)]
    own, without = ({**following(pipeline, scene, asked), "colour_as_asked": as_asked(scene, asked)} for scene in made)
    still = {**against(identity_cameras(asked), asked), "colour_as_asked": 1.0}
    return Outcome(name, seed, own, {WITHOUT: without, STILL: still})


def starts(frames: int, clip: int, step: int, windows: int) -> list[int]:
    """First frames of `windows` windows, evenly spread over a video; one is its middle. Fewer where they would be the same.

    frames: of the video. clip, step: frames of a window and between them. Raises ValueError for a video that is too short.
    """
    room = frames - 1 - (clip - 1) * step
    if room < 0 or windows < 1:
        raise ValueError(f"{windows} windows of {clip} frames with step {step} do not fit {frames} frames")
    return list(dict.fromkeys(room * (2 * k + 1) // (2 * windows) for k in range(windows)))


def _forward(true: Cameras) -> Cameras:
    """Cameras B T that go straight on, one unit a frame, and never turn."""
    extrinsics = identity_cameras(true).extrinsics.clone()
    extrinsics[..., 2, 3] = -torch.arange(extrinsics.shape[1]).to(extrinsics)
    return Cameras(extrinsics, true.intrinsics, true.height, true.width)


def _one(cameras: Cameras) -> Cameras:
    return Cameras(cameras.extrinsics[None], cameras.intrinsics[None], cameras.height, cameras.width)


def _numbers(values: dict[str, Tensor], usable: bool) -> dict[str, float]:
    return {name: float(value[0]) if usable or name not in SCALED else math.nan for name, value in values.items()}
