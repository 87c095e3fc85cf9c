"""Validation metrics of several runs side by side, and what can be said of which is better.

A mean over few clips is not sure. Beside each stands a bootstrap interval over the clips, and a run is called better only where
its interval overlaps that of no worse one; intervals do not cover what another seed would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyworld.core.journal_lines import Record, number
from tinyworld.report.compare_settings import told
from tinyworld.report.compared import Entry
from tinyworld.report.metrics import Metric

NO_ORDER = ("sharpness",)
"""Metrics of which neither more nor less is better."""
FEWEST = 5
"""Clips below which a bootstrap interval is much too narrow to judge by."""


@dataclass(frozen=True)
class Cell:
    """A mean over held-out clips, its 95 % bootstrap interval (None without numbers of two clips), and the baseline's mean."""

    value: float | None
    interval: tuple[float, float] | None
    baseline: float | None


@dataclass(frozen=True)
class Verdict:
    """Which runs may be called best at something. places: of the runs; empty without a verdict. why: in words. paired: the best
    mean against the next, clip by clip."""

    places: tuple[int, ...]
    why: str
    paired: str = ""


def spread(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean over clips (`metrics.bootstrap`)."""
    from tinyworld.metrics.bootstrap import interval  # metrics need torch, and the page of one run does without

    return interval(values, draws=draws)


def cell(entry: Record | None, metric: Metric) -> Cell:
    """A metric in a validation; everything None where there is no validation."""
    if entry is None:
        return Cell(None, None, None)
    base = entry.get("baseline")
    values = list(by_clip(entry, metric).values())
    return Cell(
        number(entry.get(metric.key)),
        spread(values) if len(values) > 1 else None,
        number(base.get(metric.key)) if isinstance(base, dict) else None,
    )


def by_clip(entry: Record | None, metric: Metric) -> dict[str, float]:
    """The metric of each held-out clip that has one, by the clip's id."""
    clips = entry.get("clips") if entry else None
    rows = [clip for clip in clips if isinstance(clip, dict)] if isinstance(clips, list) else []
    return {str(row.get("id")): value for row in rows if (value := number(row.get(metric.key))) is not None}


def verdict(entries: Sequence[Entry], metric: Metric) -> Verdict:
    """Judge the runs' best validations by one metric, over the clips that all of them have."""
    measured = {entry.place: values for entry in entries if (values := by_clip(entry.run.best, metric))}
    refusal = _refusal(entries, metric, measured)
    if refusal:
        return Verdict((), refusal)
    common = set.intersection(*(set(values) for values in measured.values()))
    if len(common) < FEWEST:
        return Verdict((), f"{len(common)} clips in common: too few to tell (at least {FEWEST})")
    ids = sorted(common)
    sign = 1.0 if metric.higher else -1.0
    rows = {place: [values[clip] for clip in ids] for place, values in measured.items()}
    order = sorted(rows, key=lambda place: -sign * sum(rows[place]))
    spans = {place: spread(rows[place]) for place in order}
    best = order[0]
    kept = tuple(place for place in order if _overlap(spans[best], spans[place]))
    if len(kept) == len(order):
        return Verdict((), "no verdict: the intervals overlap", _paired(entries, metric, rows, order))
    why = "its interval overlaps no other" if len(kept) == 1 else "these overlap each other, not the rest"
    return Verdict(kept, why, _paired(entries, metric, rows, order))


def _refusal(entries: Sequence[Entry], metric: Metric, measured: dict[int, dict[str, float]]) -> str:
    if metric.key in NO_ORDER:
        return "1 is best: neither more nor less is better"
    if len(measured) < 2:
        return "measured clip by clip in fewer than two runs"
    apart = measured_apart([entry for entry in entries if entry.place in measured], metric.key)
    return f"not comparable: {apart}" if apart else ""


def measured_apart(entries: Sequence[Entry], key: str = "") -> str:
    """In words what was different in how the runs were validated; empty where nothing was."""
    ways = [_way(entry, key) for entry in entries]
    for label in dict.fromkeys(label for way in ways for label in way):
        values = [way.get(label, "not known") for way in ways]
        if len(set(values)) > 1:
            return (
                f"{label} {', '.join(f'{entry.letter} {value}' for entry, value in zip(entries, values, strict=True))}"
            )
    return ""


def _way(entry: Entry, key: str) -> dict[str, str]:
    """What a validation's numbers depend on beside the model."""

    def setting(own: str, *usual: str) -> Any:
        values = [entry.run.setting("validation", own), *(entry.run.setting("data", name) for name in usual)]
        return next((value for value in values if value is not None), None)

    if not entry.run.config:
        return {"settings of the validation": "not known"}
    found = {
        "height": setting("validation_height", "height"),
        "width": setting("validation_width", "width"),
        "frames": setting("validation_frames", "n_frames", "num_frames"),
        "data": setting("", "held_out_root", "data_root", "dataset_base_path"),
        "noise levels": setting("validation_sigmas"),
    }
    if key == "lpips":
        found["LPIPS network"] = setting("lpips_backbone")
    return {label: told(value) for label, value in found.items()}


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _paired(entries: Sequence[Entry], metric: Metric, rows: dict[int, list[float]], order: list[int]) -> str:
    """The best mean against the next, on the same clips: a difference is surer than two means."""
    first, second = order[:2]
    gaps = [a - b for a, b in zip(rows[first], rows[second], strict=True)]
    low, high = spread(gaps)
    wins = sum((gap > 0) if metric.higher else (gap < 0) for gap in gaps)
    letters = {entry.place: entry.letter for entry in entries}
    digits = metric.digits + 1
    shown = f"{letters[first]} − {letters[second]}: {sum(gaps) / len(gaps):+.{digits}f}{metric.unit}"
    return f"{shown} [{low:+.{digits}f}, {high:+.{digits}f}], better in {wins} of {len(gaps)}"
