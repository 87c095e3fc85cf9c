"""Speed, memory and time of runs: what the journal tells of the machine."""

import statistics
from dataclasses import dataclass

from tinyworld.core.journal_lines import number
from tinyworld.report.figures import Series
from tinyworld.report.read import Run


@dataclass(frozen=True)
class Pace:
    """Clips a second over the log intervals: the median, and the middle 80 % of them."""

    median: float
    low: float
    high: float


def clips_per_second(run: Run) -> Series:
    """For each logged step: clips of a step over the mean seconds of a step since the line before; None where unknown."""
    values: Series = []
    before, seen_before = 0, 0.0
    for record in run.steps:
        seen, seconds = number(record.get("samples_seen")), number(record.get("seconds_per_step"))
        count = record["step"] - before
        known = seen is not None and seconds and count > 0
        values.append((seen - seen_before) / count / seconds if known and seen is not None and seconds else None)
        before, seen_before = record["step"], seen if seen is not None else seen_before
    return values


def pace(run: Run) -> Pace | None:
    """None for a run without timed steps. The first line of a run is left out: it holds the warming up."""
    values = [value for value in clips_per_second(run)[1:] if value is not None]
    if len(values) < 2:
        return None
    tenths = statistics.quantiles(values, n=10)
    return Pace(statistics.median(values), tenths[0], tenths[-1])


def peak_memory(run: Run) -> float | None:
    """GiB: the largest of the logged steps."""
    values = [mb / 1024 for record in run.steps if (mb := number(record.get("memory_mb"))) is not None]
    return max(values, default=None)


def on_gpu(run: Run) -> bool:
    """Whether the run's memory is that of a GPU."""
    return bool(run.lives) and "cpu" not in str(run.lives[-1].start.get("device", "cpu")).lower()
