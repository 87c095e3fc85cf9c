"""Depth as a picture: near is warm and bright, far is dark, nothing is black."""

import numpy as np

ANCHORS = np.array(
    [
        [252, 255, 164],
        [251, 181, 26],
        [243, 120, 25],
        [207, 68, 70],
        [147, 38, 103],
        [85, 16, 109],
        [32, 12, 74],
        [10, 8, 40],
    ],
    np.float64,
)
"""Colours from near to far, evenly spread over the inverse of depth."""


def depth_range(depth: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The 2nd and 98th percentile of the valid depths: what a clip's pictures are coloured between. (1, 1) without any."""
    valid = depth[mask]
    if valid.size == 0:
        return 1.0, 1.0
    near, far = np.percentile(valid, [2, 98])
    return float(near), float(far)


def colour_depth(depth: np.ndarray, mask: np.ndarray, near: float, far: float) -> np.ndarray:
    """uint8 ... 3 of depths (...), any unit, coloured by 1 / depth between `near` and `far`; black where `mask` is false."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = (1 / near - 1 / depth) / max(1 / near - 1 / far, 1e-9)
    place = np.nan_to_num(np.clip(place, 0, 1)) * (len(ANCHORS) - 1)
    known = np.arange(len(ANCHORS))
    colour = np.stack([np.interp(place, known, ANCHORS[:, channel]) for channel in range(3)], axis=-1)
    return np.where(mask[..., None], colour, 0).round().astype(np.uint8)
