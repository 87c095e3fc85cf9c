"""How sure a mean over clips is: percentile bootstrap intervals (Efron 1979)."""

import math
from collections.abc import Sequence

import numpy as np


def interval(
    values: Sequence[float | None], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean over clips, in the unit of `values` (one number a clip): (low, high).

    The clips are drawn anew `draws` times with replacement; the interval holds the middle share `level` of the means. It
    answers how much the mean depends on which clips were held out, not on the seed of a training run. With few clips it
    is too narrow: at 0.95 it holds the true mean of normal values in 86 % of the cases for 6 clips, in 92 % for 20.

    None and NaN, clips without a value, are left out. One value x gives (x, x), none gives (NaN, NaN). The same
    arguments give the same interval. Raises ValueError for a level outside (0, 1) or draws below 1.
    """
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level must lie between 0 and 1 and draws be at least 1, got level={level}, draws={draws}")
    known = np.array([value for value in values if value is not None and not math.isnan(value)], dtype=np.float64)
    if len(known) < 2:
        value = float(known[0]) if len(known) else math.nan
        return value, value
    generator = np.random.default_rng(seed)
    # One draw at a time: all at once would take draws x clips of memory.
    means = [known[generator.integers(len(known), size=len(known))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
