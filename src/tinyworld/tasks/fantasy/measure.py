"""Held-out clips of a video world: geometry beside trivial baselines, flow matching, and something to look at.

Geometry is measured at fixed noise levels, with noise that belongs to the clip. What counts is measured without giving the
model the cameras: a camera that was given is copied, not estimated. With them it is measured apart, as given_*.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras, decode_pose, world_points
from tinyworld.core.names import file_name
from tinyworld.core.rng import derive_seed
from tinyworld.data.worlds.batch import WorldBatch, stack_worlds
from tinyworld.data.worlds.dataset import WorldDataset, WorldSample
from tinyworld.data.worlds.scan import WorldRef
from tinyworld.engine.task import Evaluated
from tinyworld.infer.codec import Codec
from tinyworld.losses.flow import FlowSchedule, flow_loss
from tinyworld.media.colour import colour_depth, depth_range
from tinyworld.media.write import write_video
from tinyworld.metrics.geometry import consistency, depth_metrics, median_depth, point_metrics
from tinyworld.metrics.trajectory import camera_metrics, identity_cameras
from tinyworld.models.fantasy.prediction import Geometry
from tinyworld.report.scene_file import write_scene_file
from tinyworld.report.shown import ShownScene, ShownWorld
from tinyworld.tasks.fantasy.inputs import Encoded, Inputs, assembled, fixed
from tinyworld.tasks.fantasy.usual import Usual

PREVIEW_FPS = 8
GIVEN = ("abs_rel", "ate", "auc30")
"""What is also measured with the cameras given."""

Encode = Callable[[WorldBatch], Encoded]
Predict = Callable[[Inputs, bool, bool], tuple[Tensor | None, Geometry | None]]
"""Inputs, and whether velocity and geometry are wanted → what is wanted, of geometry what the model has."""


@dataclass(frozen=True)
class Window:
    """The fixed window of one held-out sample, read whenever it is measured: a clip of 81 frames is a third of a GB."""

    dataset: WorldDataset
    world: WorldRef
    height: int
    width: int
    n_frames: int

    @property
    def id(self) -> str:
        return self.world.id

    def sample(self) -> WorldSample:
        """Nothing random in it but its noise, which is that of its id. Raises DataError when it cannot be read."""
        sample = self.dataset.held_out_sample(self.world, self.height, self.width, self.n_frames)
        return replace(sample, noise_seed=derive_seed("held out", sample.id))


def batch_of(windows: Sequence[Window], device: torch.device) -> WorldBatch:
    """Held-out windows as a batch."""
    return stack_worlds([window.sample() for window in windows]).to(device)


def evaluate(
    windows: Sequence[Window],
    encode: Encode,
    predict: Predict,
    schedule: FlowSchedule,
    sigmas: Sequence[float],
    usual: Usual | None,
    device: torch.device,
) -> list[Evaluated]:
    """Metrics of each window beside its baselines. sigmas: the first one's names stand alone, the others end in @sigma.

    usual: what the training clips are in the mean, as baselines; None where no training clip has a scale.
    """
    batch = batch_of(windows, device)
    known = encode(batch)
    columns: dict[str, Tensor] = {}
    for number, sigma in enumerate(sigmas):
        end = "" if number == 0 else f"@{sigma:g}"
        inputs = _at(sigma, True, batch, known, schedule)
        velocity, made = predict(inputs, True, number == 0)
        assert velocity is not None
        columns[f"diffusion{end}"] = flow_loss(velocity, inputs.latents, inputs.noise, torch.ones_like(inputs.sigma))
        if made is not None:
            given = geometry_metrics(made, batch)
            columns |= {f"given_{name}": given[name] for name in GIVEN}
        _, blind = predict(_at(sigma, False, batch, known, schedule), False, True)
        if blind is None:
            continue
        columns |= {f"{name}{end}": value for name, value in geometry_metrics(blind, batch).items()}
    baselines = _flow_baselines(batch, known, schedule, sigmas)
    if "abs_rel" in columns:
        geometry = _geometry_baselines(batch, usual)
        ends = ["", *(f"@{sigma:g}" for sigma in sigmas[1:])]
        baselines |= {f"{name}{end}": value for end in ends for name, value in geometry.items()}
    return [Evaluated(window.id, _row(columns, place), _row(baselines, place)) for place, window in enumerate(windows)]


def _at(sigma: float, camera: bool, batch: WorldBatch, known: Encoded, schedule: FlowSchedule) -> Inputs:
    """What the model is given at a noise level, with or without the cameras."""
    count, device = len(batch.ids), known.latents.device
    index = torch.full((count,), schedule.nearest(sigma))
    return assembled(known, batch, fixed(count, device, camera), schedule, index, "")


def geometry_metrics(made: Geometry, batch: WorldBatch) -> dict[str, Tensor]:
    """Depth, points and cameras of N clips, (N,) each."""
    true = batch.cameras
    cameras = decode_pose(made.poses[-1], true.height, true.width).relative()
    return {
        **depth_metrics(made.depth, batch.depth, batch.mask),
        **point_metrics(made.points, batch.points, batch.mask),
        "consistency": consistency(made.depth, made.points, cameras, batch.mask),
        **_camera_metrics(cameras, batch),
    }


def _camera_metrics(cameras: Cameras, batch: WorldBatch) -> dict[str, Tensor]:
    """NaN for what depends on translations where a clip's unit means nothing."""
    found = camera_metrics(cameras, batch.cameras)
    usable = batch.usable.to(found["ate"].device)
    known = {name: torch.where(usable, found[name], torch.nan) for name in ("ate", "rpe_translation", "auc30")}
    return found | known


def _flow_baselines(
    batch: WorldBatch, known: Encoded, schedule: FlowSchedule, sigmas: Sequence[float]
) -> dict[str, Tensor]:
    """No velocity at all."""
    found: dict[str, Tensor] = {}
    for number, sigma in enumerate(sigmas):
        inputs, end = _at(sigma, True, batch, known, schedule), "" if number == 0 else f"@{sigma:g}"
        still = torch.zeros_like(inputs.latents)
        found[f"diffusion{end}"] = flow_loss(still, inputs.latents, inputs.noise, torch.ones_like(inputs.sigma))
    return found


def _geometry_baselines(batch: WorldBatch, usual: Usual | None) -> dict[str, Tensor]:
    """What is known without a model: each clip's median depth; cameras that stand still; points of that depth seen by those
    still cameras. As mean_map_* and mean_track_* what the training clips are in the mean, the same for every clip."""
    true, still = batch.cameras, identity_cameras(batch.cameras)
    flat = median_depth(batch.depth, batch.mask)
    found = {
        **depth_metrics(flat, batch.depth, batch.mask),
        **point_metrics(world_points(flat, still), batch.points, batch.mask),
        **_camera_metrics(still, batch),
    }
    if usual is None:
        return found
    depths = usual.depth.to(batch.depth).expand_as(batch.depth)
    mapped = depth_metrics(depths, batch.depth, batch.mask)
    found |= {f"mean_map_{name}": mapped[name] for name in ("abs_rel", "delta1")}
    track = decode_pose(usual.track.to(true.extrinsics).expand(len(batch.ids), -1, -1), true.height, true.width)
    return found | {f"mean_track_{name}": value for name, value in _camera_metrics(track.relative(), batch).items()}


def _row(columns: dict[str, Tensor], place: int) -> dict[str, float | None]:
    values = {name: float(column[place].detach()) for name, column in columns.items()}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def write_preview(
    window: Window,
    encode: Encode,
    predict: Predict,
    schedule: FlowSchedule,
    sigma: float,
    codec: Codec | None,
    device: torch.device,
    folder: Path,
) -> None:
    """original | denoised in one step | true depth | estimated depth, as a small mp4 named after the sample; and estimated and
    true geometry for the report's viewer.

    The second needs a codec, the last a model with geometry; the cameras are not given.
    """
    batch, sample = batch_of([window], device), window.world.entry
    inputs = _at(sigma, False, batch, encode(batch), schedule)
    velocity, made = predict(inputs, codec is not None, True)
    frames = batch.frames[0].permute(0, 2, 3, 1).cpu().numpy()
    panels = [frames]
    if codec is not None and velocity is not None:
        clean = inputs.noisy - inputs.sigma.reshape(-1, 1, 1, 1, 1) * velocity
        shown = codec.decode(clean, len(frames))[0].clamp(0, 1)
        panels.append(shown.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    if made is not None:
        mask = batch.mask[0].cpu().numpy()
        true, depth = batch.depth[0].cpu().numpy(), made.depth[0].float().cpu().numpy()
        near, far = depth_range(true, mask)
        panels += [colour_depth(true, mask, near, far), colour_depth(depth, np.ones_like(mask), near, far)]
        facts = {"sigma": sigma, "caption": sample.caption}
        scene = ShownScene(sample.id, frames, _shown_worlds(made, batch), PREVIEW_FPS, float(batch.scale[0]), facts)
        write_scene_file(folder / f"{file_name(sample.id)}.npz", scene)
    rows = [np.concatenate(row, axis=1) for row in zip(*panels, strict=True)]
    write_video(folder / f"{file_name(sample.id)}.mp4", rows, PREVIEW_FPS)


def _shown_worlds(made: Geometry, batch: WorldBatch) -> tuple[ShownWorld, ...]:
    true = batch.cameras
    found = decode_pose(made.poses[-1].float(), true.height, true.width).relative()
    estimated, given = (
        Cameras(cameras.extrinsics[0].cpu().double(), cameras.intrinsics[0].cpu().double(), true.height, true.width)
        for cameras in (found, true)
    )
    depth, surety, points, point_surety = (
        value[0].float().cpu().numpy()
        for value in (made.depth, made.depth_confidence, made.points, made.point_confidence)
    )
    known = np.where(batch.mask[0].cpu().numpy(), batch.depth[0].cpu().numpy(), 0)
    return (
        ShownWorld("estimated", depth, None, surety, estimated),
        ShownWorld("estimated point map", depth, points, point_surety, estimated),
        ShownWorld("true", known, None, None, given),
    )
