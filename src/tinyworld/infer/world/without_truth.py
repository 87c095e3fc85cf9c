"""What can be said of a scene without labels: whether its depth, cameras, points and pictures agree, and how steady they are."""

import numpy as np
import torch

from tinyworld.core.geometry import Cameras
from tinyworld.infer.world.following import asked_cameras, following
from tinyworld.infer.world.pictures import to_unit
from tinyworld.infer.world.pipeline import FantasyWorldPipeline
from tinyworld.infer.world.scene import Scene
from tinyworld.infer.world.tally import Outcome
from tinyworld.metrics.agreement import agreement, colour_flicker, depth_flicker, unsteadiness
from tinyworld.metrics.geometry import consistency
from tinyworld.metrics.trajectory import NAMES as FOLLOWING
from tinyworld.metrics.trajectory import camera_metrics, identity_cameras

STILL, FLAT = "still camera", "constant depth"
FOLLOWED = (*FOLLOWING, "colour_as_asked")
"""How well cameras are followed: as the model sees them in the video, and by `as_asked`, for which none are estimated."""
NAMES = (
    "depth_agreement",
    "colour_agreement",
    "overlap",
    "consistency",
    "colour_flicker",
    "depth_flicker",
    "unsteadiness",
    *FOLLOWED,
)
"""`agreement`'s depth, colour and overlap; depth against the scene's own points; then how steady colours, depth and camera are;
then, for cameras that were asked for, how well they are followed."""


def judged_alone(scene: Scene, name: str, part: int | str = 0, pipeline: FantasyWorldPipeline | None = None) -> Outcome:
    """NAMES of a scene beside a camera that stands still and a constant depth. NaN where nothing can be measured.

    pipeline: with it, where the scene was asked for with cameras, also how well its video follows them; without it what the
    scene's facts say of that. Raises as `FantasyWorldPipeline.lift`.
    """
    frames, depth = to_unit(scene.frames), torch.from_numpy(scene.depth)
    found = agreement(frames, depth, scene.cameras)
    values = {
        "depth_agreement": found.depth,
        "colour_agreement": found.colour,
        "overlap": found.overlap,
        "consistency": _consistency(scene),
        "colour_flicker": colour_flicker(frames),
        "depth_flicker": depth_flicker(depth),
        "unsteadiness": unsteadiness(scene.cameras),
    }
    still = {"depth_agreement": found.depth_still, "colour_agreement": found.colour_still}
    asked = asked_cameras(scene)
    if asked is not None and len(scene.frames) > 1:
        values["colour_as_asked"], still["colour_as_asked"] = as_asked(scene, asked), 1.0
        told = scene.facts.get("follows") if pipeline is None else following(pipeline, scene, asked)
        if told is not None:
            values |= {key: float(told[key]) for key in FOLLOWING}
            still |= against(identity_cameras(asked), asked)
    return Outcome(name, part, values, {STILL: still, FLAT: {"colour_agreement": found.colour_flat}})


def as_asked(scene: Scene, asked: Cameras) -> float:
    """How well the frames move as the asked cameras (T) would have them: the difference of colours that is left when pixels
    are carried by these cameras at the scene's own depths, over that when they stay where they are. Below 1 the cameras
    explain something; a video that does not move has a value far above. NaN where nothing overlaps or changes.
    """
    found = agreement(to_unit(scene.frames), torch.from_numpy(scene.depth), asked)
    return found.colour / found.colour_still if found.colour_still > 0 else float("nan")


def against(cameras: Cameras, asked: Cameras) -> dict[str, float]:
    """`camera_metrics` of one clip: cameras T and T."""
    pair = (Cameras(c.extrinsics[None], c.intrinsics[None], c.height, c.width) for c in (cameras, asked))
    return {name: float(value[0]) for name, value in camera_metrics(*pair).items()}


def _consistency(scene: Scene) -> float:
    if scene.points is None:
        return float("nan")
    known = np.isfinite(scene.depth) & (scene.depth > 0) & np.isfinite(scene.points).all(-1)
    depth, points, mask = (torch.from_numpy(values)[None] for values in (scene.depth, scene.points, known))
    cameras = scene.cameras
    batch = Cameras(cameras.extrinsics[None], cameras.intrinsics[None], cameras.height, cameras.width)
    return float(consistency(depth, points, batch, mask)[0])
