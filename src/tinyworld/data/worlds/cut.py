"""One cut out of a sample: the same frames and the same part of the picture from video, depth, points and cameras.

Frames. A window of n frames with step s as in `data.cut`; nothing is looped, mirrored or recoloured: a mirrored world would
turn rotations into reflections, and a window played backward would end where the labels of moving things do not.

Pictures. The largest region with the aspect of the clip, at a place drawn from those inside the picture, resized: pictures
bicubic with antialiasing, depth, points and mask by the nearest pixel (anything between two surfaces would be invented).
Intrinsics follow.

Geometry. World coordinates become those of the clip's first camera; then depth, points and translations are divided by one
number, the mean distance of the valid points from that camera (VGGT and FantasyWorld).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.core.geometry import Cameras, point_scale, resize_nearest, to_camera, world_points
from tinyworld.data.cut import Bucket, Cut, crop_region, draw_window, largest_factor, window
from tinyworld.data.worlds.array_cache import ArrayCache
from tinyworld.data.worlds.scan import WorldRef
from tinyworld.media.read import Region

MIN_VALID_POINTS = 100
"""With fewer valid points in its first frame a clip's scale says nothing, nor does a loss on its translations (VGGT)."""


@dataclass(frozen=True, eq=False)
class WorldCut:
    """What a clip shows. numbers: of its frames in the video, step apart. region: (top, left, height, width) in the video."""

    world: WorldRef
    numbers: tuple[int, ...]
    region: Region
    height: int
    width: int

    @property
    def start(self) -> int:
        return self.numbers[0]

    @property
    def picture(self) -> Cut:
        """What is seen of it, without the geometry: all that its latents depend on."""
        step = self.numbers[1] - self.start if len(self.numbers) > 1 else 1
        return Cut(self.world.clip, self.numbers, self.region, self.height, self.width, False, None, self.start, step)


@dataclass(frozen=True)
class CutGeometry:
    """float32, in units of `scale` metres; see `dataset.WorldSample`."""

    depth: Tensor
    mask: Tensor
    points: Tensor
    cameras: Cameras
    scale: float

    @property
    def usable(self) -> bool:
        return int(self.mask[0].sum()) > MIN_VALID_POINTS


def draw_cut(world: WorldRef, bucket: Bucket, frame_steps: Sequence[int], rng: random.Random) -> tuple[WorldCut, int]:
    """A random cut and its step; reads nothing."""
    start, step = draw_window(world.frames, bucket[2], frame_steps, rng)
    return _cut(world, bucket, start, step, rng.random(), rng.random()), step


def centre_cut(world: WorldRef, bucket: Bucket, frame_steps: Sequence[int]) -> tuple[WorldCut, int]:
    """The middle of the video at the smallest step, the centre of the picture. Raises DataError when it is too short."""
    n_frames, step = bucket[2], min(frame_steps)
    room = world.frames - 1 - (n_frames - 1) * step
    if room < 0:
        raise DataError(f"{world.id}: {world.frames} frames, a clip of {n_frames} with step {step} spans more")
    return _cut(world, bucket, room // 2, step, 0.5, 0.5), step


def _cut(world: WorldRef, bucket: Bucket, start: int, step: int, down: float, across: float) -> WorldCut:
    height, width, n_frames = bucket
    region = crop_region(world.clip, height, width, largest_factor(world.clip, height, width), down, across)
    return WorldCut(world, tuple(window(world.frames, n_frames, start, step)), region, height, width)


def read_geometry(cut: WorldCut, depths: ArrayCache, points: ArrayCache, max_depth: float) -> CutGeometry:
    """Depth, points and cameras of a cut. Raises DataError when a file cannot be read.

    Valid is what has a finite depth above 0 and up to `max_depth` metres, and finite points; the rest is 0.
    """
    world = cut.world
    in_file = world.cameras.select(cut.numbers).cropped(*cut.region).resized(cut.height, cut.width)
    cameras, first = in_file.relative(), in_file.extrinsics[0]
    shape = (len(cut.numbers), cut.height, cut.width)
    depth, mask, cloud = torch.empty(shape), torch.empty(shape, dtype=torch.bool), torch.empty(*shape, 3)
    for place, number in enumerate(cut.numbers):  # frame by frame: what is worked on stays in the processor's cache
        flat = _read(cut, depths, world.depth_files[number], -2)
        known = torch.isfinite(flat) & (flat > 0) & (flat <= max_depth)
        if world.point_files:
            frame = to_camera(_read(cut, points, world.point_files[number], -3).double(), first).float()
            known &= torch.isfinite(frame).all(-1)
        else:
            frame = world_points(flat, cameras.select([place]).to(torch.float32))[0]
        mask[place], depth[place] = known, torch.where(known, flat, 0.0)
        cloud[place] = torch.where(known[..., None], frame, 0.0)
    scale = float(point_scale(cloud, mask))
    return CutGeometry(depth.div_(scale), mask, cloud.div_(scale), cameras.scaled(scale).to(torch.float32), scale)


def _read(cut: WorldCut, cache: ArrayCache, file: Path, dim: int) -> Tensor:
    values = cache.read(file)
    if values.shape[:2] != (cut.world.height, cut.world.width):
        raise DataError(
            f"{file}: its size has changed to {values.shape[0]}x{values.shape[1]} (h x w) since it was scanned"
        )
    top, left, height, width = cut.region
    part = np.ascontiguousarray(values[top : top + height, left : left + width])
    return resize_nearest(torch.from_numpy(part), cut.height, cut.width, dim)
