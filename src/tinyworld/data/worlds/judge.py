"""What the numbers of a sample mean: ok, warning or bad, with the reasons in words."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from tinyworld.core.geometry import Cameras
from tinyworld.data.worlds.conventions import FITS, MIXED_ERROR, Scales, Suggestion, fit_scales, scale_words, suggest
from tinyworld.data.worlds.gather import DepthFacts, Gathered, PointFacts
from tinyworld.data.worlds.reprojection import ClipErrors, measure

WRONG = 0.10
"""Median relative depth error from which depth and cameras are not of one scene."""
STILL_PATH, STILL_TURN = 0.005, 1.0
"""A camera stands still when its path is shorter than this part of the median depth and it turns by less degrees."""
PLAUSIBLE = (0.05, 500.0)
"""Metres, of the median depth."""
COARSE_LEVELS = 24
"""Fewer different depths in a picture, close to the camera, are whole numbers of a unit that is too large."""
FEW_MEASURED = 0.05
NOISE = 3.0
"""Median colour differences up to this are noise and compression."""
POINTS_AGREE, POINTS_WRONG = 0.02, 0.10
MANY_PAIRS = 1 / 3
RANKS = ("ok", "warning", "bad")
Word = Literal["ok", "warning", "bad"]


@dataclass
class Judgement:
    """verdict: the worst of what was found. reasons: of it, in words. remarks: what is worth knowing and no fault."""

    verdict: Word = "ok"
    reasons: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    errors: ClipErrors | None = None
    scales: Scales | None = None
    suggestion: Suggestion | None = None

    def add(self, verdict: Word, reason: str) -> None:
        self.verdict = max(self.verdict, verdict, key=RANKS.index)
        self.reasons.append(reason)


def path_length(cameras: Cameras) -> float:
    """Of the camera's way through the world, in the cameras' unit."""
    centres = cameras.centres()
    return float((centres[1:] - centres[:-1]).norm(dim=-1).sum())


def judge(found: Gathered) -> Judgement:
    """Everything that can be said about a sample that was gathered."""
    result = Judgement()
    for fault in found.faults:
        result.add("bad", fault)
    if found.faults:
        return result
    if found.depth is None:
        result.add("warning", "no depth: training needs a depth map for every frame (key depth_dir)")
        return result
    coarse = _judge_depth(found.depth, result)
    if found.points is not None:
        _judge_points(found.points, result)
    if found.evidence is None or found.cameras is None:
        result.add("warning", "no two frames with depth: nothing can be compared")
        return result
    result.errors = measure(found.evidence, found.cameras)
    if coarse:
        return result
    standing = _judge_motion(found.cameras, found.depth.median, result)
    result.scales = fit_scales(found.evidence, found.cameras)
    if not standing:
        result.suggestion = suggest(found.evidence, found.cameras, result.errors, result.scales, found.depth.median)
    _judge_errors(result, result.errors, result.scales)
    if result.suggestion is None and not PLAUSIBLE[0] <= found.depth.median <= PLAUSIBLE[1]:
        words = "whether depth is in metres (millimetres in PNG files)"
        result.add("warning", f"the median depth is {found.depth.median:.3g} m: check {words}")
    return result


def _judge_depth(depth: DepthFacts, result: Judgement) -> bool:
    """What depth says by itself; True when it is too coarse to go on."""
    if depth.empty:
        listed = ", ".join(map(str, depth.empty[:5])) + (", …" if len(depth.empty) > 5 else "")
        frames = f"frame{'s' if len(depth.empty) > 1 else ''} {listed}"
        result.remarks.append(f"no valid depth in {frames}: masked in training")
    if depth.measured < FEW_MEASURED:
        result.add("warning", f"only {depth.measured:.1%} of the pixels have a depth")
    if depth.levels < COARSE_LEVELS and depth.median < PLAUSIBLE[0]:
        result.add(
            "bad",
            f"implausible depth: {depth.low:.3f} to {depth.high:.3f} m in {depth.levels} steps. These are whole metres where "
            "millimetres are expected; what was rounded away is lost, write the depth again",
        )
        return True
    return False


def _judge_points(points: PointFacts, result: Judgement) -> None:
    said = f"median error {points.world:.3f} of depth"
    if points.world <= POINTS_AGREE:
        return
    if points.camera <= POINTS_AGREE:
        result.add("bad", f"points are in each camera's own coordinates, not in the cameras' world ({said})")
    elif points.first <= POINTS_AGREE:
        result.add("bad", f"points are in the first camera's coordinates, not in the cameras' world ({said})")
    elif points.world > POINTS_WRONG:
        result.add(
            "bad", f"points and unprojected depth disagree ({said}; points are {points.factor:.3g} times as far away)"
        )
    else:
        result.add("warning", f"points and unprojected depth differ ({said})")


def _judge_motion(cameras: Cameras, median_depth: float, result: Judgement) -> bool:
    """Whether the camera stands still."""
    trace = (cameras.extrinsics[0, :, :3] * cameras.extrinsics[:, :, :3]).sum((-1, -2))
    turn = float(torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos()).max())
    path = path_length(cameras)
    if path >= STILL_PATH * median_depth:
        return False
    if turn >= STILL_TURN:
        result.remarks.append("the camera only turns: its unit of length cannot be checked against depth")
        return False
    result.add(
        "warning",
        f"the camera stands still (path {path:.4f} m at a median depth of {median_depth:.2f} m, {turn:.2f} degrees): such a clip "
        "teaches depth, but nothing about cameras",
    )
    return True


def _judge_errors(result: Judgement, errors: ClipErrors, scales: Scales) -> None:
    both = f"relative depth error {errors.depth:.4f}, photometric {errors.photometric:.1f}"
    still = f"{errors.depth_still:.4f} and {errors.photometric_still:.1f}"
    if result.suggestion is not None:
        better = result.suggestion.errors
        gain = f"then {better.depth:.4f} and {better.photometric:.1f}"
        result.add("bad", f"{result.suggestion.words} ({both}; {gain})")
    elif scales.mixed and errors.depth > MIXED_ERROR * scales.at_own:
        low, high = min(scales.pairs), max(scales.pairs)
        result.add(
            "bad",
            f"depth and translations have no common scale: pairs of frames fit at factors from {low:.2g} to {high:.2g} ({both}). "
            "Make depth and poses of a clip with one tool",
        )
    elif not math.isfinite(errors.depth):
        result.add("bad", f"the cameras do not look at the same things: overlap {errors.overlap:.2f} {_hint(scales)}")
    elif errors.depth > WRONG:
        result.add("bad", f"depth and cameras do not belong together ({both}; without compensation {still})")
    elif _explains_nothing(errors):
        result.add("bad", f"the cameras do not describe the motion: {both}, and without compensation {still}")
    elif errors.depth > FITS:
        result.add("warning", f"depth and cameras agree only roughly ({both})")
    else:
        _judge_pairs(result, errors)
        if errors.photometric > max(6.0, 0.6 * errors.photometric_still):
            result.remarks.append(
                f"colours differ by {errors.photometric:.1f} although depth agrees: moving things, or changing light"
            )


def _explains_nothing(errors: ClipErrors) -> bool:
    """Whether pictures fit no better after compensation than before, and depth does not fit either."""
    changes = errors.photometric > max(0.9 * errors.photometric_still, NOISE)
    return changes and errors.depth > min(FITS, max(1.1 * errors.depth_still, 0.01))


def _hint(scales: Scales) -> str:
    return f"({scale_words(scales.clip, 1.0)})" if scales.clip is not None else ""


def _judge_pairs(result: Judgement, errors: ClipErrors) -> None:
    """Single pairs that do not fit where most do."""
    bound = max(WRONG, 5 * errors.depth)
    off = [pair for pair in errors.pairs if pair.depth > bound]
    if off:
        worst = max(off, key=lambda pair: pair.depth)
        verdict: Word = "bad" if len(off) > MANY_PAIRS * len(errors.pairs) else "warning"
        result.add(
            verdict,
            f"{len(off)} of {len(errors.pairs)} pairs of frames do not fit, worst frames {worst.first} and {worst.second} "
            f"(relative depth error {worst.depth:.3f})",
        )
