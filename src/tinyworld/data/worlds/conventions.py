"""What may have been meant: other readings of a clip's cameras and depth, and which of them fits clearly better."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras, inverse
from tinyworld.data.worlds.reprojection import ClipErrors, Evidence, measure, scale_curves

PIXELS = 6000
"""Per pair, for comparing readings: medians of this many are exact to about one part in fifty."""
FITS = 0.03
"""A reading fits when its median relative depth error is below this …"""
BETTER_DEPTH, BETTER_COLOUR = 0.6, 0.9
"""… and clearly better when its errors are below these parts of those of the clip as it is."""
ROUGH = 0.10
"""The same where depth is no better than this (predicted from pictures, say) and colours decide: they are halved."""
SAME_SCALE = 1.1
"""Factors between 1/1.1 and 1.1 are measurement, not another unit."""
COARSE = tuple(10 ** (k / 24) for k in range(-96, 97))
FINE = tuple(1.005**k for k in range(-20, 21))
SCALE_PIXELS = 2000
SHARP = 1.25
"""A scale is seen when errors at half and double of it are at least this much larger."""
MIXED, MIXED_ERROR = 1.4, 1.6
"""There is not one scale where the pairs' factors spread by more than this, and one factor for all has at least this many
times the error that each pair has with its own."""


@dataclass(frozen=True)
class Reading:
    """One way to take the numbers of a clip. words: what the file then holds."""

    words: str
    cameras: Cameras
    depth_factor: float = 1.0


@dataclass(frozen=True)
class Scales:
    """By what translations must be multiplied to agree with depth. clip: one factor, None where the clip does not show it
    (the camera hardly moves). pairs: the factors of the pairs that show one. at_one, at_own: median error with one factor
    for all, and with each pair at its own.
    """

    clip: float | None
    pairs: tuple[float, ...]
    at_one: float
    at_own: float

    @property
    def spread(self) -> float:
        """How many times the larger factors exceed the smaller ones (the sixths at both ends left out)."""
        if len(self.pairs) < 3:
            return 1.0
        ordered = sorted(self.pairs)
        end = len(ordered) // 6
        return ordered[-1 - end] / ordered[end]

    @property
    def mixed(self) -> bool:
        """Each pair fits at its own factor, but no factor fits them all."""
        return self.spread > MIXED and self.at_own < FITS and self.at_one > MIXED_ERROR * self.at_own


@dataclass(frozen=True)
class Suggestion:
    """A reading that fits clearly better than the numbers as they are."""

    words: str
    errors: ClipErrors


def flipped(cameras: Cameras) -> Cameras:
    """Axes of OpenGL (y up, z backward) into OpenCV's, or back."""
    signs = torch.tensor([1.0, -1.0, -1.0], dtype=cameras.extrinsics.dtype)[:, None]
    return replace(cameras, extrinsics=signs * cameras.extrinsics)


def inverted(cameras: Cameras) -> Cameras:
    return replace(cameras, extrinsics=inverse(cameras.extrinsics))


def _with_intrinsics(cameras: Cameras, change: Tensor | float = 0.0, factor: Tensor | float = 1.0) -> Cameras:
    return replace(cameras, intrinsics=cameras.intrinsics * factor + change)


def pose_readings(cameras: Cameras) -> Iterator[Reading]:
    """Other conventions of the poses."""
    yield Reading("poses are camera-to-world, not world-to-camera (--camera_convention c2w)", inverted(cameras))
    yield Reading("camera axes are OpenGL's (y up, z backward), not OpenCV's: negate rows 2 and 3", flipped(cameras))
    both = flipped(inverted(cameras))
    yield Reading("poses are camera-to-world with OpenGL's axes (y up, z backward)", both)
    order = list(range(cameras.extrinsics.shape[-3] - 1, -1, -1))
    yield Reading("cameras are in reversed order: the last line belongs to the first frame", cameras.select(order))


def intrinsics_readings(cameras: Cameras) -> Iterator[Reading]:
    """Other conventions of fx fy cx cy."""
    fx, fy, cx, cy = (float(value) for value in cameras.intrinsics.median(0).values)
    half = torch.tensor([0.0, 0.0, 0.5, 0.5], dtype=cameras.intrinsics.dtype)
    words = "the principal point counts pixel corners, not centres: subtract half a pixel"
    yield Reading(words, _with_intrinsics(cameras, -half))
    if abs(fx / fy - 1) > 0.01:
        swapped = cameras.intrinsics[..., [1, 0, 2, 3]]
        yield Reading("fx and fy are swapped", replace(cameras, intrinsics=swapped))
    if cx + 0.5 <= 0 or cy + 0.5 <= 0:
        return
    across, down = cameras.width / 2 / (cx + 0.5), cameras.height / 2 / (cy + 0.5)
    if max(across, down, 1 / across, 1 / down) > 1.2:
        width, height = round(cameras.width / across), round(cameras.height / down)
        words = (
            f"intrinsics belong to pictures of about {width}x{height}, the video has {cameras.width}x{cameras.height}"
        )
        yield Reading(words, Cameras(cameras.extrinsics, cameras.intrinsics, height, width).resized(
            cameras.height, cameras.width
        ))  # fmt: skip


def fit_scales(evidence: Evidence, cameras: Cameras) -> Scales:
    """The factor between the units of translations and depth, of the clip and of each pair.

    Depth decides; colours do where depth is too rough to show it.
    """
    curves = scale_curves(evidence, cameras, COARSE, SCALE_PIXELS, "depth")
    pairs = tuple(factor for curve in curves if (factor := _sharp_minimum(curve)) is not None)
    middle = _middle(curves)
    at_one, at_own = float(middle.min()), float(curves.min(1).values.median())
    coarse = _sharp_minimum(middle)
    by: Literal["depth", "colour"] = "depth"
    if coarse is None:
        coarse, by = _sharp_minimum(_middle(scale_curves(evidence, cameras, COARSE, SCALE_PIXELS, "colour"))), "colour"
    if coarse is None:
        return Scales(None, pairs, at_one, at_own)
    factors = [coarse * fine for fine in FINE]
    finer = _middle(scale_curves(evidence, cameras, factors, SCALE_PIXELS, by))
    return Scales(factors[int(finer.argmin())], pairs, float(finer.min()) if by == "depth" else at_one, at_own)


def _middle(curves: Tensor) -> Tensor:
    """Median over the pairs, one number per factor."""
    return curves.median(0).values


def _sharp_minimum(curve: Tensor) -> float | None:
    """The factor of COARSE where the error is least; None where half or double of it would do as well."""
    best = int(curve.argmin())
    octave = 7
    if not math.isfinite(float(curve[best])) or best < octave or best >= len(curve) - octave:
        return None
    beside = min(float(curve[best - octave]), float(curve[best + octave]))
    return COARSE[best] if beside > SHARP * float(curve[best]) else None


def scale_words(factor: float, median_depth: float) -> str:
    """What a factor between translations and depth means. Where depth is in no unit of rooms and streets, a power of ten near
    the measured factor is what was meant."""
    small, large = median_depth < 0.05 and factor < 1, median_depth > 200 and factor > 1
    power = 10.0 ** round(math.log10(factor))
    near = abs(math.log(factor / power)) < math.log(1.5 if small or large else SAME_SCALE)
    shown = power if near else factor
    if small:
        return f"depth is too small by a factor of {1 / shown:.4g}: in metres where millimetres are expected?"
    if large:
        return f"depth is too large by a factor of {shown:.4g}: in millimetres where metres are expected?"
    return f"translations and depth have different units: multiply the translations by {shown:.3g}"


def errors_of(evidence: Evidence, reading: Reading) -> ClipErrors:
    return measure(evidence, reading.cameras, reading.depth_factor, PIXELS)


def suggest(
    evidence: Evidence, cameras: Cameras, given: ClipErrors, scales: Scales, median_depth: float
) -> Suggestion | None:
    """The reading that fits clearly better than the clip as it is, the simplest of those that fit equally; or None.

    One change is tried first. Another pose convention is then tried together with another scale: the one that fits, to see
    whether it fits better so; all of them where none fits and the clip as it is explains little.
    """
    poses, others = list(pose_readings(cameras)), list(intrinsics_readings(cameras))
    if scales.clip is not None and not 1 / SAME_SCALE < scales.clip < SAME_SCALE and not scales.mixed:
        others.insert(0, Reading(scale_words(scales.clip, median_depth), cameras.scaled(1 / scales.clip)))
    single = _best(evidence, [*others, *poses], given)
    if single is None:
        tried = poses if explains_little(given) else []
        return _best(evidence, [both for pose in tried if (both := _rescaled(evidence, pose, median_depth))], given)
    pose = next((pose for pose in poses if pose.words == single.words), None)
    both = _rescaled(evidence, pose, median_depth) if pose is not None else None
    return (_best(evidence, [both], single.errors) if both else None) or single


def explains_little(errors: ClipErrors) -> bool:
    """Whether depth and cameras leave more than half of what changes between the frames of a pair."""
    return errors.depth > 0.5 * errors.depth_still or errors.photometric > 0.5 * errors.photometric_still


def _rescaled(evidence: Evidence, reading: Reading, median_depth: float) -> Reading | None:
    """The reading with the scale that fits it; None where it needs none."""
    factor = fit_scales(evidence, reading.cameras).clip
    if factor is None or 1 / SAME_SCALE < factor < SAME_SCALE:
        return None
    return Reading(f"{reading.words}; {scale_words(factor, median_depth)}", reading.cameras.scaled(1 / factor))


def _best(evidence: Evidence, readings: list[Reading], given: ClipErrors) -> Suggestion | None:
    tried = [Suggestion(reading.words, errors_of(evidence, reading)) for reading in readings]
    fitting = [suggestion for suggestion in tried if _clearly_better(suggestion.errors, given)]
    least = min((_score(suggestion.errors) for suggestion in fitting), default=0.0)
    return next((suggestion for suggestion in fitting if _score(suggestion.errors) <= 1.2 * least), None)


def _score(errors: ClipErrors) -> float:
    return errors.depth * max(1.0, errors.photometric)


def _clearly_better(errors: ClipErrors, given: ClipErrors) -> bool:
    """By depth, where colours do not speak against it; or, where depth is rough, by colours with depth in favour."""
    colour = errors.photometric <= max(1.0, BETTER_COLOUR * min(given.photometric, 2 * given.photometric_still))
    if errors.depth <= min(FITS, BETTER_DEPTH * given.depth) and colour:
        return True
    halved = errors.photometric <= 0.5 * min(given.photometric, given.photometric_still)
    return halved and errors.depth <= min(ROUGH, 0.9 * given.depth)
