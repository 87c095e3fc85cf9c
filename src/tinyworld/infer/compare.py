"""Pictures that show a reconstruction beside its original."""

import numpy as np

DIFFERENCE_GAIN = 4
"""The difference is shown this much enlarged, around mid grey."""


def side_by_side(original: np.ndarray, made: np.ndarray) -> np.ndarray:
    """original | reconstruction | difference ×4 around grey; all uint8 H W 3, result H 3W 3."""
    difference = (made.astype(np.int16) - original.astype(np.int16)) * DIFFERENCE_GAIN + 128
    return np.concatenate([original, made, difference.clip(0, 255).astype(np.uint8)], axis=1)
