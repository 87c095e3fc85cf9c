"""Metrics of depth maps and point maps against labels, and the constant depth that they are read beside.

Every function takes clips B T H W (points B T H W 3) with a bool mask B T H W of the pixels to look at, computes in float64
and returns one value per clip, (B,); averaging over clips is the caller's choice. A clip without a valid pixel gives NaN, and
so does a prediction that holds NaN: an evaluation must not end a training run. Targets that are not finite, or depths that
are not above 0, inside the mask raise ValueError: they give plausible numbers.

Each error comes twice: as predicted, and after one scale for the whole clip (median of the target over median of the
prediction), which tells a wrong shape from a wrong size.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras, to_world, unproject

DELTA = 1.25
"""A depth is right for δ1 when it is within this factor of the target."""
NEAREST = 0.01
"""Points nearer to the origin than this share of the clip's median distance are taken to be there when an error is divided by
the distance: a camera may drive past the place it started from."""


def depth_metrics(depth: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """abs_rel: mean of |d − g| / g, 0 is best. delta1: share with max(d/g, g/d) < 1.25, 1 is best. And both with one scale.

    depth and target B T H W in one unit. Returns abs_rel, delta1, abs_rel_scaled, delta1_scaled, each (B,). A depth of 0 or
    less is wrong for delta1. Source: Eigen et al. 2014; scaling by medians: Zhou et al. 2017 (per clip here, not per frame).
    """
    _check(depth, target, mask, 4)

    def clip(predicted: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        if not bool((wanted > 0).all()):
            raise ValueError("the target holds depths of 0 or less inside the mask")
        scaled = predicted * (wanted.median() / predicted.median())
        return {
            "abs_rel": _relative(predicted, wanted),
            "delta1": _within(predicted, wanted),
            "abs_rel_scaled": _relative(scaled, wanted),
            "delta1_scaled": _within(scaled, wanted),
        }

    return _each_clip(clip, ("abs_rel", "delta1", "abs_rel_scaled", "delta1_scaled"), depth, target, mask)


def point_metrics(points: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """point_error: mean of ‖p − g‖ / ‖g‖, and point_error_scaled: the same with one scale, each (B,); 0 is best.

    points and target B T H W 3 in the world of the clip's first camera: distance and scale are about its centre. Points that
    are all at the origin have a point_error of 1 and no point_error_scaled (NaN). ‖g‖ is at least NEAREST of its median.
    """
    _check(points, target, mask, 5)

    def clip(predicted: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        distance = torch.linalg.vector_norm(wanted, dim=-1)
        middle = distance.median()
        scale = middle / torch.linalg.vector_norm(predicted, dim=-1).median()
        divisor = distance.clamp_min(NEAREST * float(middle))
        plain = torch.linalg.vector_norm(predicted - wanted, dim=-1) / divisor
        scaled = torch.linalg.vector_norm(scale * predicted - wanted, dim=-1) / divisor
        return {"point_error": plain.mean(), "point_error_scaled": scaled.mean()}

    return _each_clip(clip, ("point_error", "point_error_scaled"), points, target, mask)


def consistency(depth: Tensor, points: Tensor, cameras: Cameras, mask: Tensor) -> Tensor:
    """How far two ways to one scene are apart, (B,): 0 is best. It needs no label but the mask, and is no accuracy.

    Median over the valid pixels of ‖p − x‖ / distance, with x the unprojected depth (B T H W) in the world of `cameras` (B T),
    p the points (B T H W 3) and the distance that of x from the camera which sees it.
    """
    if points.shape != (*depth.shape, 3) or cameras.extrinsics.shape != (*depth.shape[:2], 3, 4):
        raise ValueError(
            f"depth B T H W, points B T H W 3 and cameras B T 3 4 do not agree: {tuple(depth.shape)}, "
            f"{tuple(points.shape)}, {tuple(cameras.extrinsics.shape)}"
        )
    _check(depth, depth, mask, 4)
    apart = []
    for i in range(len(depth)):  # clip by clip: float64 points of a batch are large
        local = unproject(depth[i].double(), cameras.intrinsics[i].double())
        seen = to_world(local, cameras.extrinsics[i].double())[mask[i]]
        distance = torch.linalg.vector_norm(local[mask[i]], dim=-1)
        difference = torch.linalg.vector_norm(points[i][mask[i]].double() - seen, dim=-1)
        apart.append((difference / distance).median() if len(distance) else _nan(depth))
    return torch.stack(apart)


def median_depth(target: Tensor, mask: Tensor) -> Tensor:
    """The baseline of depth: each clip's median valid depth in place of every pixel. B T H W to the same shape and dtype.

    A view that must not be written to. It is what a model can do that knows the clip's size and nothing of its shape: a
    prediction that is not well below its abs_rel has learnt nothing. NaN for a clip without a valid pixel.
    """
    _check(target, target, mask, 4)
    medians = [wanted[valid].median() if bool(valid.any()) else _nan(target) for wanted, valid in _clips(target, mask)]
    return torch.stack(medians).to(target.dtype)[:, None, None, None].expand_as(target)


def mean_depth_map(maps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of depth maps, each with its bool mask of valid pixels, H W both: H W, float64.

    A pixel is the mean of the maps that are valid there; where none is, the mean of all valid values. As a baseline it is
    what a model can do that has learned how its training clips are laid out and looks at no picture. Raises ValueError for
    no map, maps of different sizes, or none with a valid pixel.
    """
    sizes = [(tuple(depth.shape), tuple(mask.shape)) for depth, mask in maps]
    if not sizes or len(sizes[0][0]) != 2 or set(sizes) != {(sizes[0][0], sizes[0][0])}:
        raise ValueError(f"mean_depth_map takes depth maps and masks H W of one size, got {sizes}")
    total = torch.zeros_like(maps[0][0], dtype=torch.float64)
    count = torch.zeros_like(total)
    for depth, mask in maps:
        total += torch.where(mask, depth.double(), 0.0)
        count += mask
    if not bool(count.any()):
        raise ValueError("mean_depth_map: no pixel of any map is valid")
    return torch.where(count > 0, total / count.clamp_min(1), total.sum() / count.sum())


def _relative(predicted: Tensor, target: Tensor) -> Tensor:
    return ((predicted - target).abs() / target).mean()


def _within(predicted: Tensor, target: Tensor) -> Tensor:
    if not bool(predicted.isfinite().all()):
        return _nan(target)
    ratio = predicted / target
    return ((ratio < DELTA) & (ratio > 1 / DELTA)).double().mean()


def _each_clip(
    measure: Callable[[Tensor, Tensor], dict[str, Tensor]],
    names: tuple[str, ...],
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
) -> dict[str, Tensor]:
    """`measure` of the valid float64 values of each clip, its results side by side; NaN for clips that have none."""
    results: list[dict[str, Tensor]] = []
    for made, (wanted, valid) in zip(predicted, _clips(target, mask), strict=True):
        values = wanted[valid].double()
        if not bool(values.isfinite().all()):
            raise ValueError("the target holds values that are not finite inside the mask")
        results.append(measure(made[valid].double(), values) if len(values) else dict.fromkeys(names, _nan(target)))
    return {name: torch.stack([result[name] for result in results]) for name in names}


def _clips(target: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(target, mask, strict=True))


def _nan(like: Tensor) -> Tensor:
    return torch.tensor(math.nan, dtype=torch.float64, device=like.device)


def _check(predicted: Tensor, target: Tensor, mask: Tensor, dims: int) -> None:
    right = predicted.dim() == dims and predicted.shape == target.shape and (dims == 4 or target.shape[-1] == 3)
    if not right or mask.shape != target.shape[:4] or mask.dtype != torch.bool or len(target) == 0:
        shape = "B T H W" if dims == 4 else "B T H W 3"
        raise ValueError(
            f"prediction and target must be {shape} with a bool mask B T H W, got {tuple(predicted.shape)}, "
            f"{tuple(target.shape)} and {tuple(mask.shape)} {mask.dtype}"
        )
