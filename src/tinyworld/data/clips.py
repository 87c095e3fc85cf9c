"""Cutting a training clip out of a video: which frames, which part of the picture, at which scale.

Frames. A window is n frames with step s, a step drawn from `frame_steps`, at a start drawn from those that fit. Where
the video is too short for the step drawn, the largest smaller step of `frame_steps` that fits is taken. Where it is too
short for all of them ("short_clips": "loop"), every s-th frame from the first is played forward and backward, s the
smallest step (but no longer than the video): 0 1 2 3 2 1 0 1 …, beginning at one of them that is drawn. There is no
hard cut. That needs two frames; the scan leaves out pictures, and with "drop" all videos that are too short.

Pictures. A region with the aspect of the crop is cut at a place drawn from those inside the picture, and resized to the
crop. Its size is the crop's size times a factor: "native" 1 (no resizing), "cover" the largest that the picture holds,
"random" drawn evenly between those two. In a video smaller than the crop all three take the largest region there is and
enlarge it (twice at most: the scan leaves out smaller ones). Half of the clips are mirrored left to right.

Everything random comes from the draw's seed alone.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyworld.core.errors import DataError, UserError
from tinyworld.core.rng import derive_seed
from tinyworld.data.frame_cache import FrameCache
from tinyworld.data.order import Draw
from tinyworld.data.scan import ClipRef, Need, check_budget, reason_of
from tinyworld.media.read import Region

Bucket = tuple[int, int, int]
CropScale = Literal["native", "cover", "random"]
MAX_REPLACEMENTS = 8
"""A draw whose video cannot be read is replaced by another; so many failures in a row are no accident."""


@dataclass(frozen=True)
class Sample:
    """One training clip.

    frames: uint8 T C H W, RGB in [0, 255]. id: of the video. start: first frame. step: between frames, in frames of the
    video. faults: (path, reason) of videos that could not be read and that this one stands in for.
    """

    frames: Tensor
    id: str
    start: int
    step: int
    faults: list[tuple[str, str]] = field(default_factory=list)


class ClipDataset(torch.utils.data.Dataset[Sample]):
    """Training clips of a list of videos, by `Draw`. Any worker gives the same sample for a draw.

    clips: as the scan found them. buckets: (height, width, n_frames) of the clips to cut. frame_steps, crop_scale,
    flip, short_clips: see the head of this file. cache_bytes: of decoded videos to keep in memory, in each process.

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
    ) -> None:
        self.clips = list(clips)
        self.buckets = list(buckets)
        self.frame_steps = tuple(sorted(frame_steps))
        self.crop_scale: CropScale = crop_scale
        self.flip = flip
        self._cache = FrameCache(cache_bytes)
        self._needs = [Need(h, w, n, short_clips, frame_steps=self.frame_steps) for h, w, n in self.buckets]
        self.bucket_of = [self._buckets_for(clip) for clip in self.clips]
        self._members = [[i for i, own in enumerate(self.bucket_of) if b in own] for b in range(len(self.buckets))]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def empty_buckets(self) -> list[Bucket]:
        """Buckets that no clip takes part in: they are never trained on."""
        return [bucket for bucket, members in zip(self.buckets, self._members, strict=True) if not members]

    def __getitem__(self, draw: Draw) -> Sample:
        """The clip of a draw. A video that cannot be read is replaced by others that follow from the draw's seed.

        Raises DataError when `MAX_REPLACEMENTS` replacements cannot be read either.
        """
        bucket, members = self.buckets[draw.bucket], self._members[draw.bucket]
        faults: list[tuple[str, str]] = []
        index, seed = draw.index, draw.seed
        for attempt in range(1 + MAX_REPLACEMENTS):
            clip = self.clips[index]
            try:
                return self._cut(clip, bucket, random.Random(seed), faults)
            except (UserError, OSError) as error:
                faults.append((str(clip.path), reason_of(error, clip.path)))
            seed = derive_seed("replacement", draw.seed, attempt)
            index = members[seed % len(members)]
        listed = "".join(f"\n  {path}: {reason}" for path, reason in dict(faults).items())
        raise DataError(f"{len(faults)} videos in a row could not be read while training:{listed}")

    def held_out_clip(self, clip: ClipRef, height: int, width: int, n_frames: int) -> Tensor:
        """The window that a clip is validated on, uint8 T C H W: nothing random in it.

        The middle of the video at the smallest step (from its first frame where it has to be looped), the centre of the
        picture, not mirrored; the scale is that of `crop_scale`, and the native one for "random". Raises DataError.
        """
        step = min(self.frame_steps)
        room = clip.frames - 1 - (n_frames - 1) * step
        start, step = (room // 2, step) if room >= 0 else (0, looping_step(clip.frames, self.frame_steps))
        most = largest_factor(clip, height, width)
        region = crop_region(clip, height, width, most if self.crop_scale == "cover" else min(1.0, most))
        return resize(self._cache.read(clip, window(clip.frames, n_frames, start, step), region), height, width)

    def check_faults(self, faults: Mapping[str, str], budget: float) -> None:
        """Raise DataError when more of the videos could not be read while training than `check_budget` allows."""
        check_budget(dict(faults), len(self.clips), budget)

    def _cut(self, clip: ClipRef, bucket: Bucket, rng: random.Random, faults: list[tuple[str, str]]) -> Sample:
        height, width, n_frames = bucket
        start, step = draw_window(clip.frames, n_frames, self.frame_steps, rng)
        most = largest_factor(clip, height, width)
        factor = {"native": min(1.0, most), "cover": most, "random": rng.uniform(min(1.0, most), most)}[self.crop_scale]
        region = crop_region(clip, height, width, factor, rng.random(), rng.random())
        mirror = rng.random() < 0.5
        picture = resize(self._cache.read(clip, window(clip.frames, n_frames, start, step), region), height, width)
        return Sample(picture.flip(-1) if self.flip and mirror else picture, clip.id, start, step, faults)

    def _buckets_for(self, clip: ClipRef) -> tuple[int, ...]:
        usable = [number for number, need in enumerate(self._needs) if need.refusal(clip) is None]
        fills = [
            number
            for number in usable
            if not self._needs[number].is_short(clip) and largest_factor(clip, *self.buckets[number][:2]) >= 1
        ]
        least = sorted(
            usable, key=lambda number: (self.buckets[number][2], self.buckets[number][0] * self.buckets[number][1])
        )
        return tuple(fills or least[:1])


def draw_window(frames: int, n_frames: int, steps: Sequence[int], rng: random.Random) -> tuple[int, int]:
    """(start, step) of a random window in a video of `frames` frames; see the head of this file."""
    step = rng.choice(steps)
    fitting = [s for s in steps if s <= step and (n_frames - 1) * s < frames]
    if not fitting:
        step = looping_step(frames, steps)
        return step * rng.randrange((frames - 1) // step + 1), step
    step = max(fitting)
    return rng.randrange(frames - (n_frames - 1) * step), step


def looping_step(frames: int, steps: Sequence[int]) -> int:
    """The step of a looped window: the smallest, but not past the other end of the video."""
    return max(1, min(*steps, frames - 1))


def window(frames: int, n_frames: int, start: int, step: int) -> list[int]:
    """The `n_frames` frame numbers from `start` with `step`, turning round at both ends of a video of `frames` frames."""
    first = start % step
    last = (frames - 1 - first) // step  # the turning point, in steps from `first`
    places = [(start // step + number) % max(2 * last, 1) for number in range(n_frames)]
    return [first + step * min(place, 2 * last - place) for place in places]


def largest_factor(clip: ClipRef, height: int, width: int) -> float:
    """How many times the crop, in its aspect, the largest region of the picture is. Below 1: it must be enlarged."""
    return min(clip.height / height, clip.width / width)


def crop_region(
    clip: ClipRef, height: int, width: int, factor: float, down: float = 0.5, across: float = 0.5
) -> Region:
    """(top, left, height, width) of a region `factor` times the crop. down, across: its place in what room there is."""
    tall, wide = (max(1, round(factor * side)) for side in (height, width))
    tall, wide = min(tall, clip.height), min(wide, clip.width)
    return round(down * (clip.height - tall)), round(across * (clip.width - wide)), tall, wide


def resize(frames: np.ndarray, height: int, width: int) -> Tensor:
    """uint8 T H W C to uint8 T C height width: bicubic with antialiasing (torch's interpolate), in float, rounded."""
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if pictures.shape[2:] != (height, width):
        exact = F.interpolate(pictures.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)
        pictures = exact.round().clamp(0, 255).to(torch.uint8)
    return pictures.contiguous()
