"""One cut out of a video: which frames, which part of the picture, at which scale, and how it is changed.

Frames. A window is n frames with step s, a step drawn from `frame_steps`, at a start drawn from those that fit. Where
the video is too short for the step drawn, the largest smaller step of `frame_steps` that fits is taken. Where it is too
short for all of them ("short_clips": "loop"), every s-th frame from the first is played forward and backward, s the
smallest step (but no longer than the video): 0 1 2 3 2 1 0 1 …, beginning at one of them that is drawn. There is no
hard cut. That needs two frames; the scan leaves out pictures, and with "drop" all videos that are too short.

Pictures. A region with the aspect of the crop is cut at a place drawn from those inside the picture, and resized to the
crop. Its size is the crop's size times a factor: "native" 1 (no resizing), "cover" the largest that the picture holds,
"random" drawn evenly between those two. In a video smaller than the crop all three take the largest region there is and
enlarge it (twice at most: the scan leaves out smaller ones). Half of the clips are mirrored left to right.

Changes. `colour_jitter` changes the colours of all frames alike (`data.augment`). With probability `clip_ends` the frames
after the last that is decoded repeat it: so an encoder meets the end of a video, where it is given nothing newer.

Everything random comes from one generator, the later features drawing after the earlier: switching one on or off leaves
the windows as they are.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyworld.data.augment import Colour, draw_colour, recolour
from tinyworld.data.frame_cache import FrameCache
from tinyworld.data.scan import ClipRef
from tinyworld.media.read import Region

Bucket = tuple[int, int, int]
"""(height, width, n_frames) of a training clip."""
CropScale = Literal["native", "cover", "random"]


@dataclass(frozen=True)
class CutRules:
    """How cuts are drawn, see the head of this file. colour_jitter, clip_ends: 0 is off."""

    frame_steps: tuple[int, ...] = (1,)
    crop_scale: CropScale = "native"
    flip: bool = True
    colour_jitter: float = 0.0
    clip_ends: float = 0.0


@dataclass(frozen=True)
class Cut:
    """All that the pixels of a clip depend on.

    numbers: of its frames in the video. region: (top, left, height, width) in the video, pixels. height, width: of the
    clip. start, step: of the window that was drawn (`numbers` may turn round in it, or repeat a frame at its end).
    """

    clip: ClipRef
    numbers: tuple[int, ...]
    region: Region
    height: int
    width: int
    mirror: bool
    colour: Colour | None
    start: int
    step: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, height, width)"""
        return len(self.numbers), self.height, self.width

    def first(self, frames: int) -> "Cut":
        """The same with that many frames: its first ones, or its last repeated."""
        numbers = self.numbers[:frames] + self.numbers[-1:] * max(0, frames - len(self.numbers))
        return replace(self, numbers=numbers)

    def read(self, videos: FrameCache) -> Tensor:
        """The pixels, uint8 T C H W. Raises DataError when the video cannot be read."""
        picture = resize(videos.read(self.clip, self.numbers, self.region), self.height, self.width)
        picture = picture.flip(-1) if self.mirror else picture
        return picture if self.colour is None else recolour(picture, self.colour)


def draw_cut(clip: ClipRef, bucket: Bucket, lookahead: int, rules: CutRules, rng: random.Random) -> Cut:
    """A cut of a clip, drawn by `rules`; reads nothing. lookahead: frames of the bucket after the last decoded one."""
    height, width, n_frames = bucket
    start, step = draw_window(clip.frames, n_frames, rules.frame_steps, rng)
    most = largest_factor(clip, height, width)
    drawn = {"native": min(1.0, most), "cover": most, "random": rng.uniform(min(1.0, most), most)}
    region = crop_region(clip, height, width, drawn[rules.crop_scale], rng.random(), rng.random())
    mirror = rng.random() < 0.5
    ends = rng.random() < rules.clip_ends
    colour = draw_colour(rules.colour_jitter, rng)
    numbers = tuple(window(clip.frames, n_frames, start, step))
    cut = Cut(clip, numbers, region, height, width, rules.flip and mirror, colour, start, step)
    return cut.first(n_frames - lookahead).first(n_frames) if ends else cut


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
