"""The training set of clips with geometry: from a draw to a sample. What is cut, and how, is decided in `cut`."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tinyworld.data.cut import Bucket, largest_factor, resize
from tinyworld.data.frame_cache import CHANNELS, FrameCache
from tinyworld.data.order import Draw
from tinyworld.data.replacing import choose_buckets, first_readable
from tinyworld.data.scan import MAX_ENLARGEMENT, check_budget
from tinyworld.data.worlds.array_cache import ArrayCache
from tinyworld.data.worlds.condition_cache import ConditionCache, Conditions
from tinyworld.data.worlds.cut import CutGeometry, WorldCut, centre_cut, draw_cut, read_geometry
from tinyworld.data.worlds.scan import WorldRef
from tinyworld.media.depth_files import read_depth, read_points

MAX_DEPTH = 80.0
"""Metres; labels beyond are mostly sky or noise (the usual limit for driving scenes, far beyond any room)."""
DEPTH_BYTES = 4


@dataclass(frozen=True)
class WorldSample:
    """One training clip. Lengths are in units of `scale`, one number per clip, in metres (in the unit of the labels).

    frames: uint8 T C H W, RGB in [0, 255]; 0 C H W of a training clip whose latents are cached.
    depth: float32 T H W along the optical axis, 0 where there is none. mask: bool
    T H W, where depth and points are valid. points: float32 T H W 3 in the first camera's coordinates, 0 outside the mask;
    their mean distance from the origin is 1. extrinsics: float32 T 3 4, world→camera, the world being the first camera.
    intrinsics: float32 T 4 (fx fy cx cy), pixels of this picture. scale: 1 where the mask is empty. usable: whether the
    first frame has more than 100 valid points; otherwise the scale, and with it the translations, mean nothing.

    id: of the sample. start: first frame. step: between frames, in frames of the video. noise_seed: of the draw. faults:
    (path of a video, reason) of samples that could not be read and that this one stands in for. conditions: None without a
    cache of them.
    """

    frames: Tensor
    depth: Tensor
    mask: Tensor
    points: Tensor
    extrinsics: Tensor
    intrinsics: Tensor
    scale: float
    usable: bool
    id: str
    start: int
    step: int
    caption: str
    noise_seed: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)
    conditions: Conditions | None = None


class WorldDataset(torch.utils.data.Dataset[WorldSample]):
    """Training clips with geometry, by `Draw`. Any worker gives the same sample for a draw.

    worlds: as the scan found them. buckets: (height, width, n_frames) of the clips to cut. frame_steps: steps that a window may
    have. max_depth: in metres (the unit of the labels); what is farther is masked. cache_bytes: of decoded videos and depth
    maps to keep in memory, in each process. cache: of what encoders make of the clips, which samples then bring along.

    bucket_of: for each sample the buckets it takes part in: all that it is long enough for and fills without being enlarged;
    where there is none, the one that asks least of it (fewest frames, then smallest area), enlarged at most twice.
    """

    def __init__(
        self,
        worlds: Sequence[WorldRef],
        buckets: Sequence[Bucket],
        frame_steps: Sequence[int] = (1,),
        max_depth: float = MAX_DEPTH,
        cache_bytes: int = 0,
        cache: ConditionCache | None = None,
    ) -> None:
        self.worlds = list(worlds)
        self.buckets = list(buckets)
        self.frame_steps = tuple(sorted(frame_steps))
        self.max_depth = max_depth
        self.cache = cache
        for_video = cache_bytes * CHANNELS // (CHANNELS + DEPTH_BYTES)
        self._videos = FrameCache(for_video)
        self._depths = ArrayCache(read_depth, cache_bytes - for_video)
        self._points = ArrayCache(read_points, 0)  # .npy is read as fast as it would be copied
        self.bucket_of = [self._buckets_for(world) for world in self.worlds]
        self._members = [[i for i, own in enumerate(self.bucket_of) if b in own] for b in range(len(self.buckets))]

    def __len__(self) -> int:
        return len(self.worlds)

    @property
    def empty_buckets(self) -> list[Bucket]:
        """Buckets that no sample takes part in: they are never trained on."""
        return [bucket for bucket, members in zip(self.buckets, self._members, strict=True) if not members]

    def plan(self, draw: Draw) -> tuple[WorldCut, int]:
        """What the clip of a draw shows, and its step. Reads nothing."""
        rng = random.Random(draw.seed)
        return draw_cut(self.worlds[draw.index], self.buckets[draw.bucket], self.frame_steps, rng)

    def __getitem__(self, draw: Draw) -> WorldSample:
        """The clip of a draw. A sample that cannot be read is replaced by others that follow from the draw's seed.

        Raises DataError when too many of those cannot be read either, IncompleteCacheError when the cache lacks what the
        encoders make of the clip.
        """
        members = self._members[draw.bucket]
        sample, faults = first_readable(
            draw,
            lambda this: self._read(*self.plan(this), pictures=self.cache is None),
            members,
            lambda index: self.worlds[index].clip,
            "samples",
        )
        return replace(sample, noise_seed=draw.noise_seed, faults=faults)

    def held_out_sample(self, world: WorldRef, height: int, width: int, n_frames: int) -> WorldSample:
        """The clip that a sample is validated on, nothing random in it: the middle of the video at the smallest step, the
        centre of the picture. Raises DataError when it cannot be read or is too short, IncompleteCacheError as above."""
        return self._read(*centre_cut(world, (height, width, n_frames), self.frame_steps), pictures=True)

    def held_out_geometry(self, world: WorldRef, height: int, width: int, n_frames: int) -> CutGeometry | None:
        """Depth and cameras of `held_out_sample`, without its pictures; None where their unit means nothing. Raises DataError."""
        cut, _ = centre_cut(world, (height, width, n_frames), self.frame_steps)
        known = read_geometry(cut, self._depths, self._points, self.max_depth)
        return known if known.usable else None

    def check_faults(self, faults: Mapping[str, str], budget: float) -> None:
        """Raise DataError when more of the samples could not be read while training than `check_budget` allows."""
        check_budget(dict(faults), len(self.worlds), budget)

    def pictures(self, cut: WorldCut) -> Tensor:
        """What a cut shows, uint8 T C H W. Raises DataError when the video cannot be read."""
        return resize(self._videos.read(cut.world.clip, cut.numbers, cut.region), cut.height, cut.width)

    def _read(self, cut: WorldCut, step: int, pictures: bool) -> WorldSample:
        none = torch.empty(0, CHANNELS, cut.height, cut.width, dtype=torch.uint8)
        frames = self.pictures(cut) if pictures else none
        known = read_geometry(cut, self._depths, self._points, self.max_depth)
        return WorldSample(
            frames,
            known.depth,
            known.mask,
            known.points,
            known.cameras.extrinsics,
            known.cameras.intrinsics,
            known.scale,
            known.usable,
            cut.world.id,
            cut.start,
            step,
            cut.world.entry.caption,
            conditions=None if self.cache is None else self.cache.get(cut.picture, cut.world.entry.caption),
        )

    def _buckets_for(self, world: WorldRef) -> tuple[int, ...]:
        factors = {
            number: largest_factor(world.clip, height, width)
            for number, (height, width, n_frames) in enumerate(self.buckets)
            if world.frames > (n_frames - 1) * self.frame_steps[0]
        }
        usable = [number for number, factor in factors.items() if factor >= 1 / MAX_ENLARGEMENT]
        fills = [number for number in usable if factors[number] >= 1]
        return choose_buckets(self.buckets, usable, fills)
