"""One verdict for all ranks on a step: every rank says what it met, one small all-reduce, and all of them do the same.

Nothing else communicates before it (with strategy ddp), so a rank that ran out of memory, met a broken number or an
error leaves no other waiting in a collective.
"""

import hashlib
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from tinyworld.core import dist
from tinyworld.core.errors import TrainingError

HISTORY = 64
"""Losses of good steps that a spike is measured against."""
LEAST_HISTORY = 32
HALF_BITS = 26
"""A digest travels as two numbers of so many bits: sums over a million samples stay whole in float64."""


@dataclass(frozen=True)
class Vote:
    """What one rank says of its part of a step. loss: its mean; draws: what `digest_of` makes of its samples."""

    loss: float = 0.0
    samples: int = 0
    draws: int = 0
    faults: int = 0
    stop: bool = False
    failed: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True)
class Verdict:
    """What all ranks said together; equal on all of them. loss: the mean over ranks."""

    loss: float
    samples: int
    draws: int
    faults: bool
    stop: bool
    failed: bool
    out_of_memory: bool


def agree(vote: Vote) -> Verdict:
    """The verdict on a step. Every rank must call it at the same place."""
    high, low = divmod(vote.draws, 1 << HALF_BITS)
    numbers = (vote.loss, vote.samples, high, low, vote.faults, vote.stop, vote.failed, vote.out_of_memory)
    loss, samples, high_sum, low_sum, *flags = dist.total(numbers)
    draws = (int(high_sum) << HALF_BITS) + int(low_sum)
    return Verdict(loss / dist.world_size(), int(samples), draws, *(flag > 0 for flag in flags))


def digest_of(draws: Iterable[str]) -> int:
    """A number for a set of samples that does not depend on their order, so ranks can add up theirs."""
    size = 1 << (2 * HALF_BITS)
    return sum(int.from_bytes(hashlib.blake2b(draw.encode(), digest_size=8).digest(), "big") % size for draw in draws)


def chained(digest: str, draws: int) -> str:
    """The digest of a run's samples so far, one step further: equal at a step means the same batches in all steps before."""
    return hashlib.blake2b(f"{digest} {draws}".encode(), digest_size=8).hexdigest()


def fault_in(loss: float, recent: list[float], spike_factor: float) -> str | None:
    """Why a step with this loss must not be taken; None when it may.

    A spike is a loss further above the median of the recent ones than `spike_factor` times their upper spread (from the
    median to the 90th percentile, at least one hundredth of the median).
    """
    if not math.isfinite(loss):
        return f"loss {loss}"
    if spike_factor <= 0 or len(recent) < LEAST_HISTORY:
        return None
    middle, high = statistics.median(recent), statistics.quantiles(recent, n=10)[-1]
    spread = max(high - middle, abs(middle) / 100, 1e-12)
    if loss - middle <= spike_factor * spread:
        return None
    return f"loss {loss:.4g} is a spike: the recent median is {middle:.4g} and the spread above it {spread:.3g}"


def check_limit(in_a_row: int, limit: int, step: int, ids: list[str]) -> None:
    """Raises TrainingError after too many skipped steps in a row: such a run learns nothing and only burns hours."""
    if in_a_row > limit:
        raise TrainingError(
            f"{in_a_row} steps in a row up to step {step} had a non-finite loss or gradient, or a spike (limit: "
            f"training.max_skipped_steps={limit}); the last batch held {', '.join(ids[:4])}. The weights before "
            "them are in the newest checkpoint; `tinyworld replay` looks into the capsules of the run. Usual causes: "
            "learning_rate too high (try a tenth), a broken clip (try `tinyworld data scan --deep`), or mixed_precision "
            "(try --mixed_precision no)."
        )
