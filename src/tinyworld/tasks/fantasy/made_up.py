"""A batch of clips that nobody filmed: to measure with, where content does not matter and sizes do."""

import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras, world_points
from tinyworld.core.world_sizes import SPACE_STEP, TIME_STEP, BackboneSpec
from tinyworld.data.worlds.batch import WorldBatch
from tinyworld.data.worlds.condition_cache import Conditions


def made_up_batch(count: int, height: int, width: int, num_frames: int) -> WorldBatch:
    """`count` clips of grey noise before a slanted plane, seen by a camera that moves aside; every pixel counts, which is
    what needs the most memory. Equal arguments give equal batches."""
    generator = torch.Generator().manual_seed(0)
    sizes = (count, num_frames, height, width)
    frames = torch.randint(0, 256, (count, num_frames, 1, height, width), dtype=torch.uint8, generator=generator)
    depth = torch.linspace(0.5, 1.5, width).expand(sizes).contiguous()
    cameras = _moving(num_frames, height, width)
    points = world_points(depth, Cameras(cameras.extrinsics[None], cameras.intrinsics[None], height, width))
    return WorldBatch(
        frames.expand(-1, -1, 3, -1, -1).contiguous(),
        depth,
        torch.ones(sizes, dtype=torch.bool),
        points,
        cameras.extrinsics.repeat(count, 1, 1, 1),
        cameras.intrinsics.repeat(count, 1, 1),
        torch.ones(count),
        torch.ones(count, dtype=torch.bool),
        ["made up"] * count,
        [0] * count,
        [1] * count,
        [""] * count,
        list(range(count)),
    )


def made_up_conditions(batch: WorldBatch, spec: BackboneSpec) -> Conditions:
    """What a cache of conditions could hold of the batch: zeros."""
    count, frames, _, height, width = batch.frames.shape

    def zeros(*size: int) -> Tensor:
        return torch.zeros(count, *size, dtype=torch.bfloat16)

    plane = (height // SPACE_STEP, width // SPACE_STEP)
    return Conditions(
        zeros(spec.latent_channels, (frames - 1) // TIME_STEP + 1, *plane),
        zeros(spec.latent_channels, 1, *plane),
        None if spec.image_dim is None else zeros(spec.text_tokens, spec.text_dim),
        None if spec.image_dim is None else zeros(spec.image_tokens, spec.image_dim),
    )


def _moving(num_frames: int, height: int, width: int) -> Cameras:
    extrinsics: Tensor = torch.eye(3, 4).repeat(num_frames, 1, 1)
    extrinsics[:, 0, 3] = torch.linspace(0, 0.5, num_frames)
    centre = torch.tensor([width, width, (width - 1) / 2, (height - 1) / 2])
    return Cameras(extrinsics, centre.float().repeat(num_frames, 1), height, width)
