"""How well depth and cameras explain a clip: pixels of one frame carried into another and compared there.

A pixel of frame i with depth goes through camera i into the world and through camera j into frame j. There its depth is
compared with the nearest pixel's (relative to that), its colour with the bilinear one (absolute difference, 0 to 255).
Medians are taken, so that what is hidden in frame j, or moves by itself, does not count as long as it is the smaller part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor

from tinyworld.core.geometry import (
    Cameras,
    compose,
    inverse,
    project,
    rotation_angle,
    sample_pixels,
    to_camera,
    unproject,
)

MIN_OVERLAP = 0.15
"""Where less of frame i lands in frame j there is nothing to measure."""
FINEST = 1e-6
"""Metres: what a depth is at least divided by."""


@dataclass(frozen=True)
class Evidence:
    """The frames of the pairs, by their numbers. frames: C H W, uint8 or floats in [0, 255]. depth: H W float32, 0 = none."""

    frames: dict[int, Tensor]
    depth: dict[int, Tensor]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PairErrors:
    """What one pair of frames says.

    depth: median relative error. photometric: median difference of colours (mean of R, G and B), 0 to 255.
    `_still`: the same with the pixels left where they are. overlap: the part of frame i's measured pixels that lands in
    frame j. An error is infinite where too little overlaps.
    """

    first: int
    second: int
    photometric: float
    photometric_still: float
    depth: float
    depth_still: float
    overlap: float
    rotation_deg: float


@dataclass(frozen=True)
class ClipErrors:
    """Medians over the pairs of a clip."""

    photometric: float
    photometric_still: float
    depth: float
    depth_still: float
    overlap: float
    rotation_deg: float
    pairs: tuple[PairErrors, ...]


def measure(evidence: Evidence, cameras: Cameras, depth_factor: float = 1.0, pixels: int | None = None) -> ClipErrors:
    """The errors of a clip under these cameras and with all depths times `depth_factor`.

    pixels: look at about this many of each frame only. Raises ValueError when there is no pair.
    """
    pairs = tuple(_measure_pair(evidence, cameras, i, j, depth_factor, pixels) for i, j in evidence.pairs)
    if not pairs:
        raise ValueError("there is no pair of frames to measure")
    names = ("photometric", "photometric_still", "depth", "depth_still", "overlap", "rotation_deg")
    return ClipErrors(**{name: median(getattr(pair, name) for pair in pairs) for name in names}, pairs=pairs)


def _measure_pair(
    evidence: Evidence, cameras: Cameras, i: int, j: int, depth_factor: float, pixels: int | None
) -> PairErrors:
    chosen = _measured_pixels(evidence.depth[i], pixels)
    frame, other = evidence.frames[i], evidence.frames[j]
    depth_other = evidence.depth[j] * depth_factor
    colours = frame.flatten(1)[:, chosen].float()
    every = 1 if pixels is None else max(1, frame[0].numel() // pixels)
    unmoved = frame.flatten(1)[:, ::every].float() - other.flatten(1)[:, ::every].float()
    seen = project(_moved(evidence, cameras, i, j, depth_factor, chosen), cameras.intrinsics[j].float())
    landed = _in_picture(seen, *depth_other.shape)
    inside, there = _depth_there(seen, landed, depth_other)
    z, d = seen[inside, 2], there[inside]
    enough = len(z) > MIN_OVERLAP * len(chosen)
    warped = sample_pixels(other.float(), seen[inside])
    still = depth_other.flatten()[chosen]
    same = still > 0
    before = evidence.depth[i].flatten()[chosen] * depth_factor
    return PairErrors(
        first=i,
        second=j,
        photometric=_median((colours[:, inside] - warped).abs().mean(0)) if enough else float("inf"),
        photometric_still=_median(unmoved.abs().mean(0)),
        depth=_median((z - d).abs() / d.clamp_min(FINEST)) if enough else float("inf"),
        depth_still=_median((before - still).abs()[same] / still[same].clamp_min(FINEST)),
        overlap=float(landed.sum()) / max(1, len(chosen)),
        rotation_deg=rotation_between(cameras, i, j),
    )


def rotation_between(cameras: Cameras, i: int, j: int) -> float:
    """Degrees."""
    turn = rotation_angle(cameras.extrinsics[i, :, :3].double(), cameras.extrinsics[j, :, :3].double())
    return float(torch.rad2deg(turn))


def relative_pose(cameras: Cameras, i: int, j: int) -> Tensor:
    """3 4 float32: coordinates of camera i into those of camera j (worked out in float64: worlds may lie far away)."""
    extrinsics = cameras.extrinsics.double()
    return compose(extrinsics[j], inverse(extrinsics[i])).float()


def _measured_pixels(depth: Tensor, pixels: int | None) -> Tensor:
    """Flat indices of pixels with a depth, thinned evenly to about `pixels`."""
    chosen = (depth.flatten() > 0).nonzero().squeeze(1)
    return chosen if pixels is None else chosen[:: max(1, len(chosen) // pixels)]


def _moved(evidence: Evidence, cameras: Cameras, i: int, j: int, depth_factor: float, chosen: Tensor) -> Tensor:
    """The chosen pixels of frame i as points n 3 in the coordinates of camera j."""
    points = unproject(evidence.depth[i] * depth_factor, cameras.intrinsics[i].float()).flatten(0, 1)[chosen]
    return to_camera(points, relative_pose(cameras, i, j))


def _in_picture(seen: Tensor, height: int, width: int) -> Tensor:
    """Which of the projected points ... n 3 lie in a picture of this size, before the camera."""
    u, v, z = seen.unbind(-1)
    return (z > 0) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)


def _depth_there(seen: Tensor, landed: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Of points n 3 that landed in the picture: where it has a depth, and that depth by the nearest pixel (0 elsewhere)."""
    zero = torch.zeros_like(seen[:, 0])
    column, row = (torch.where(landed, seen[:, axis], zero).round().long() for axis in (0, 1))
    there = torch.where(landed, depth[row, column], zero)
    return landed & (there > 0), there


def _median(values: Tensor) -> float:
    return float(values.median()) if values.numel() else float("inf")


def scale_curves(
    evidence: Evidence, cameras: Cameras, factors: Sequence[float], pixels: int, by: Literal["depth", "colour"]
) -> Tensor:
    """Median error of depth or colour, pairs × factors, when the translations are multiplied by each factor; infinite where
    too little overlaps."""
    rows = []
    scales = torch.tensor(factors, dtype=torch.float32)[:, None, None]
    for i, j in evidence.pairs:
        chosen = _measured_pixels(evidence.depth[i], pixels)
        points = unproject(evidence.depth[i], cameras.intrinsics[i].float()).flatten(0, 1)[chosen]
        pose = relative_pose(cameras, i, j)
        turned = to_camera(points, torch.cat([pose[:, :3], torch.zeros(3, 1)], 1))
        seen = project((turned + scales * pose[:, 3]).flatten(0, 1), cameras.intrinsics[j].float())
        landed = _in_picture(seen, *evidence.depth[j].shape)
        inside, there = _depth_there(seen, landed, evidence.depth[j])
        if by == "depth":
            error = (seen[:, 2] - there).abs() / there.clamp_min(FINEST)
        else:
            colours = evidence.frames[i].flatten(1)[:, chosen].float().repeat(1, len(factors))
            error = (sample_pixels(evidence.frames[j].float(), seen.nan_to_num()) - colours).abs().mean(0)
        shape = (len(factors), len(chosen))
        curve = error.masked_fill(~inside, float("nan")).reshape(shape).nanmedian(1).values
        overlap = inside.reshape(shape).float().mean(1)
        rows.append(curve.nan_to_num(float("inf")).masked_fill(~(overlap > MIN_OVERLAP), float("inf")))
    return torch.stack(rows)


def warp(evidence: Evidence, cameras: Cameras, i: int, j: int) -> tuple[Tensor, Tensor]:
    """Frame j as seen from frame i, C H W, black where nothing is known; and where it is known, H W bool."""
    depth = evidence.depth[i]
    chosen = _measured_pixels(depth, None)
    seen = project(_moved(evidence, cameras, i, j, 1.0, chosen), cameras.intrinsics[j].float())
    height, width = depth.shape
    inside = _in_picture(seen, height, width)
    picture = torch.zeros(len(evidence.frames[j]), height * width)
    known = torch.zeros(height * width, dtype=torch.bool)
    known[chosen[inside]] = True
    picture[:, chosen[inside]] = sample_pixels(evidence.frames[j].float(), seen[inside])
    return picture.reshape(-1, height, width), known.reshape(height, width)
