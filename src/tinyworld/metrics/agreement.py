"""How well depth, cameras and pictures of a clip agree with each other: no label is needed, and none of it is accuracy.

A pixel of frame i with a depth goes through camera i into the world and through camera j into frame j. There its depth is
compared with that of frame j and its colour with that of frame j.

A clip can agree with itself and be wrong: a constant depth seen by a camera that stands still has a depth error of 0. Read
depths beside colours: these are only met where things are carried to where they are really seen.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyworld.core.geometry import (
    Cameras,
    choose_pairs,
    compose,
    inverse,
    project,
    sample_pixels,
    to_camera,
    unproject,
)
from tinyworld.metrics.trajectory import STILL

MOST_PAIRS = 16
"""Of a clip; they are spread evenly over it."""
MIN_OVERLAP = 0.15
"""Where a smaller share of frame i lands in frame j there is nothing to measure."""
SLACK = 1e-6
"""Pixels that rounding may carry one from the border out of the picture."""


@dataclass(frozen=True)
class Agreement:
    """Means over the pairs of a clip in which enough overlaps; NaN where there is no such pair.

    depth: median over the pixels of |z − d| / d, z being the depth that a pixel arrives with and d the depth that is there.
    depth_still: the same of the same pixels, left where they are. colour: mean absolute difference of R, G and B in [0, 1].
    colour_still: with the pixels left where they are. colour_flat: carried by the same cameras at the frame's median depth.
    All colours are of the same pixels. overlap: mean share of the pixels with a depth that lands on one, over all pairs.
    """

    depth: float
    depth_still: float
    colour: float
    colour_still: float
    colour_flat: float
    overlap: float


def agreement(frames: Tensor, depth: Tensor, cameras: Cameras) -> Agreement:
    """Of one clip: frames T 3 H W in [0, 1], depth T H W in the unit of the cameras' translations (0, less or not finite =
    none), cameras T. Depths between pixels are interpolated in 1/z, which is exact for planes; colours bilinearly.

    Raises ValueError for shapes that do not agree.
    """
    size = tuple(depth.shape)
    if depth.dim() != 3 or frames.shape != (size[0], 3, *size[1:]) or cameras.extrinsics.shape != (size[0], 3, 4):
        raise ValueError(
            f"frames T 3 H W, depth T H W and cameras T 3 4 do not agree: {tuple(frames.shape)}, {size}, "
            f"{tuple(cameras.extrinsics.shape)}"
        )
    found = [_pair(frames, depth, cameras, i, j) for i, j in choose_pairs(len(depth), MOST_PAIRS)]
    columns = torch.tensor(found, dtype=torch.float64).reshape(-1, 6)
    return Agreement(*(float(column.nanmean()) for column in columns.unbind(1)))


def colour_flicker(frames: Tensor) -> float:
    """Mean of |x[t] − (x[t−1] + x[t+1]) / 2| of frames T 3 H W in [0, 1]: what a frame has and its neighbours in time have
    not. Even motion nearly cancels, what comes and goes does not. NaN for fewer than three frames."""
    if len(frames) < 3:
        return math.nan
    return float((frames[1:-1] - (frames[:-2] + frames[2:]) / 2).abs().mean(dtype=torch.float64))


def depth_flicker(depth: Tensor) -> float:
    """The same of the logarithm of depth T H W, where it is known in all three frames: 0.01 is one percent."""
    known = torch.isfinite(depth) & (depth > 0)
    three = known[:-2] & known[1:-1] & known[2:]
    if not bool(three.any()):
        return math.nan
    log = torch.where(known, depth, 1.0).double().log()
    return float((log[1:-1] - (log[:-2] + log[2:]) / 2).abs()[three].mean())


def unsteadiness(cameras: Cameras) -> float:
    """How unevenly a camera (T) moves: root mean square change of its step over its root mean square step. Near 0 for even
    motion, above 1 for a shaking one (√3 where every position is drawn anew). NaN for fewer than three frames and where
    no step is longer than `trajectory.STILL`."""
    steps = cameras.centres().double().diff(dim=0)
    lengths = steps.square().sum(-1)
    if len(steps) < 2 or not float(lengths.max()) > STILL**2:
        return math.nan
    return float((steps.diff(dim=0).square().sum(-1).mean() / lengths.mean()).sqrt())


def _pair(frames: Tensor, depth: Tensor, cameras: Cameras, i: int, j: int) -> tuple[float, ...]:
    """The fields of `Agreement` for one pair."""
    near, far = depth[i].double(), depth[j].double()
    known = torch.isfinite(near) & (near > 0)
    if not bool(known.any()):
        return (math.nan,) * 6
    motion = compose(cameras.extrinsics[j].double(), inverse(cameras.extrinsics[i].double()))
    lenses = cameras.intrinsics[i].double(), cameras.intrinsics[j].double()
    seen = _carried(torch.where(known, near, 1.0), motion, *lenses)[known]
    there = _depth_at(far, seen)
    landed = there > 0
    overlap = float(landed.double().mean())
    flat = _carried(near[known].median().expand_as(near), motion, *lenses)[known]
    both = landed & _inside(flat, *far.shape)
    if not float(both.double().mean()) > MIN_OVERLAP:
        return (*(math.nan,) * 5, overlap)
    z, d, before, unmoved = seen[landed, 2], there[landed], near[known][landed], far[known][landed]
    same = torch.isfinite(unmoved) & (unmoved > 0)
    colours, other = frames[i][:, known][:, both], frames[j]
    differences = (
        sample_pixels(other, seen[both]) - colours,
        other[:, known][:, both] - colours,
        sample_pixels(other, flat[both]) - colours,
    )
    return (
        float(((z - d).abs() / d).median()),
        float(((before - unmoved).abs()[same] / unmoved[same]).median()) if bool(same.any()) else math.nan,
        *(float(difference.abs().mean(dtype=torch.float64)) for difference in differences),
        overlap,
    )


def _carried(depth: Tensor, motion: Tensor, lens: Tensor, other_lens: Tensor) -> Tensor:
    """Pixels H W at a depth, as (u, v, z) of the other camera: H W 3."""
    return project(to_camera(unproject(depth, lens), motion), other_lens)


def _inside(seen: Tensor, height: int, width: int) -> Tensor:
    u, v, z = seen.unbind(-1)
    across, down = ((at >= -SLACK) & (at <= size - 1 + SLACK) for at, size in ((u, width), (v, height)))
    return (z > 0) & across & down


def _depth_at(depth: Tensor, seen: Tensor) -> Tensor:
    """Depth H W at n places (u, v, z); 0 outside the picture and where one of the pixels around has none."""
    known = torch.isfinite(depth) & (depth > 0)
    layers = torch.stack([torch.where(known, 1 / torch.where(known, depth, 1.0), 0.0), known.double()])
    inside = _inside(seen, *depth.shape)
    closeness, share = sample_pixels(layers, torch.where(inside[:, None], seen, 0.0))
    whole = inside & (share > 1 - 1e-6)
    return torch.where(whole, 1 / torch.where(whole, closeness, 1.0), 0.0)
