"""Pixels as numbers: 8 bits where frames are kept, [0, 1] where a network sees them."""

from torch import Tensor


def to_unit_range(frames: Tensor) -> Tensor:
    """uint8 of any shape to float32 in [0, 1]: the one place that casts what a task trains on or is measured by."""
    return frames.float().div_(255)
