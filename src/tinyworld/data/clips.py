"""The training set: from a draw to a clip, its latents where they were computed before, and the noise's seed.

What is cut is decided in `data.cut`, from the draw's seed alone and without reading anything.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from tinyworld.data.cut import (
    Bucket,
    CropScale,
    Cut,
    CutRules,
    crop_region,
    draw_cut,
    largest_factor,
    looping_step,
    resize,
    window,
)
from tinyworld.data.frame_cache import FrameCache
from tinyworld.data.latent_cache import LatentCache, Latents
from tinyworld.data.order import Draw
from tinyworld.data.replacing import choose_buckets, first_readable
from tinyworld.data.scan import ClipRef, Need, check_budget


@dataclass(frozen=True)
class Sample:
    """One training clip.

    frames: uint8 T C H W, RGB in [0, 255]. id: of the video. start: first frame. step: between frames, in frames of the
    video. faults: (path, reason) of videos that could not be read and that this one stands in for. noise_seed: of the
    draw. posterior: (mean, log variance) of the reference VAE's latents, fp32 L c h w each; None without a cache.
    """

    frames: Tensor
    id: str
    start: int
    step: int
    faults: list[tuple[str, str]] = field(default_factory=list)
    noise_seed: int = 0
    posterior: Latents | None = None


class ClipDataset(torch.utils.data.Dataset[Sample]):
    """Training clips of a list of videos, by `Draw`. Any worker gives the same sample for a draw.

    clips: as the scan found them. buckets: (height, width, n_frames) of the clips to cut. frame_steps, crop_scale, flip,
    short_clips, colour_jitter, clip_ends: see `data.cut`. cache_bytes: of decoded videos to keep in memory, in each
    process. lookahead: for each bucket how many frames come after the last that has a decoded counterpart (default 0).
    teacher_frames: for each bucket how many frames the reference VAE is given, the clip's first ones or its last repeated
    (default: the clip). cache: of its latents.

    bucket_of: for each clip the buckets it takes part in: all that it fills without being enlarged or looped; where
    there is none, the one that asks least of it (fewest frames, then smallest area) and that it can be used for at all.
    """

    def __init__(
        self,
        clips: Sequence[ClipRef],
        buckets: Sequence[Bucket],
        frame_steps: Sequence[int] = (1,),
        crop_scale: CropScale = "native",
        flip: bool = True,
        short_clips: Literal["loop", "drop"] = "loop",
        cache_bytes: int = 0,
        colour_jitter: float = 0.0,
        clip_ends: float = 0.0,
        lookahead: Sequence[int] | None = None,
        teacher_frames: Sequence[int] | None = None,
        cache: LatentCache | None = None,
    ) -> None:
        self.clips = list(clips)
        self.buckets = list(buckets)
        self.rules = CutRules(tuple(sorted(frame_steps)), crop_scale, flip, colour_jitter, clip_ends)
        self.lookahead = list(lookahead or [0] * len(self.buckets))
        self.teacher_frames = list(teacher_frames or [n for _, _, n in self.buckets])
        self.cache = cache
        self._videos = FrameCache(cache_bytes)
        self._needs = [Need(h, w, n, short_clips, frame_steps=self.rules.frame_steps) for h, w, n in self.buckets]
        self.bucket_of = [self._buckets_for(clip) for clip in self.clips]
        self._members = [[i for i, own in enumerate(self.bucket_of) if b in own] for b in range(len(self.buckets))]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def empty_buckets(self) -> list[Bucket]:
        """Buckets that no clip takes part in: they are never trained on."""
        return [bucket for bucket, members in zip(self.buckets, self._members, strict=True) if not members]

    def plan(self, draw: Draw) -> Cut:
        """What the clip of a draw shows. Reads nothing."""
        rng, bucket = random.Random(draw.seed), draw.bucket
        return draw_cut(self.clips[draw.index], self.buckets[bucket], self.lookahead[bucket], self.rules, rng)

    def teacher_view(self, draw: Draw) -> Cut:
        """What the reference VAE is given of the clip of a draw. Reads nothing."""
        return self.plan(draw).first(self.teacher_frames[draw.bucket])

    def read(self, cut: Cut) -> Tensor:
        """The pixels of a cut, uint8 T C H W. Raises DataError when the video cannot be read."""
        return cut.read(self._videos)

    def __getitem__(self, draw: Draw) -> Sample:
        """The clip of a draw. A video that cannot be read is replaced by others that follow from the draw's seed.

        Raises DataError when too many of those cannot be read either, IncompleteCacheError when the cache lacks the
        latents.
        """
        members = self._members[draw.bucket]
        sample, faults = first_readable(draw, self._sample, members, lambda index: self.clips[index], "videos")
        return replace(sample, noise_seed=draw.noise_seed, faults=faults)

    def held_out_clip(self, clip: ClipRef, height: int, width: int, n_frames: int) -> Tensor:
        """The window that a clip is validated on, uint8 T C H W: nothing random in it.

        The middle of the video at the smallest step (from its first frame where it has to be looped), the centre of the
        picture, neither mirrored nor recoloured; the scale is that of `crop_scale`, and the native one for "random".
        Raises DataError.
        """
        steps = self.rules.frame_steps
        step = min(steps)
        room = clip.frames - 1 - (n_frames - 1) * step
        start, step = (room // 2, step) if room >= 0 else (0, looping_step(clip.frames, steps))
        most = largest_factor(clip, height, width)
        region = crop_region(clip, height, width, most if self.rules.crop_scale == "cover" else min(1.0, most))
        return resize(self._videos.read(clip, window(clip.frames, n_frames, start, step), region), height, width)

    def check_faults(self, faults: Mapping[str, str], budget: float) -> None:
        """Raise DataError when more of the videos could not be read while training than `check_budget` allows."""
        check_budget(dict(faults), len(self.clips), budget)

    def _sample(self, draw: Draw) -> Sample:
        cut = self.plan(draw)
        frames = self.read(cut)
        posterior = None if self.cache is None else self.cache.get(self.teacher_view(draw))
        return Sample(frames, cut.clip.id, cut.start, cut.step, posterior=posterior)

    def _buckets_for(self, clip: ClipRef) -> tuple[int, ...]:
        usable = [number for number, need in enumerate(self._needs) if need.refusal(clip) is None]
        fills = [
            number
            for number in usable
            if not self._needs[number].is_short(clip) and largest_factor(clip, *self.buckets[number][:2]) >= 1
        ]
        return choose_buckets(self.buckets, usable, fills)
