"""The table of which run is better at what, as text for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyworld.report.compare_pace import Pace, on_gpu, pace, peak_memory
from tinyworld.report.compare_quality import cell, verdict
from tinyworld.report.compared import Entry
from tinyworld.report.metrics import Metric
from tinyworld.report.words import ABSENT


@dataclass(frozen=True)
class Told:
    """One run's number: text, its interval as text (empty without), and whether the run may be called best."""

    value: str
    span: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One thing to be good at. best: places of the runs that may be called best; why, paired: in words; baseline: text."""

    label: str
    better: str
    cells: list[Told]
    best: tuple[int, ...]
    why: str
    paired: str = ""
    baseline: str = ""


def better_at(entries: Sequence[Entry], metrics: Sequence[Metric]) -> list[Row]:
    """Quality of each run's best model, then speed, memory and goodput."""
    rows = [_quality(entries, metric) for metric in metrics]
    return rows + [row for row in (_throughput(entries), _memory(entries), _goodput(entries)) if row is not None]


def _quality(entries: Sequence[Entry], metric: Metric) -> Row:
    found = verdict(entries, metric)
    cells, baselines = [], []
    for entry in entries:
        own = cell(entry.run.best, metric)
        span = f"{own.interval[0]:.{metric.digits}f} – {own.interval[1]:.{metric.digits}f}" if own.interval else ""
        value = ABSENT if own.value is None else f"{own.value:.{metric.digits}f}"
        cells.append(Told(value, span, entry.place in found.places))
        baselines.append(ABSENT if own.baseline is None else f"{own.baseline:.{metric.digits}f}")
    known = [text for text in dict.fromkeys(baselines) if text != ABSENT]
    baseline = f"{metric.baseline}: {' / '.join(known)}" if known and metric.baseline else ""
    better = "higher is better" if metric.higher else "lower is better"
    unit = f"{metric.unit.strip()}, " if metric.unit else ""
    told = "" if found.why.startswith("1 is best") else unit + better
    return Row(metric.label, told, cells, found.places, found.why, found.paired, baseline)


def _throughput(entries: Sequence[Entry]) -> Row | None:
    """Judged on one kind of machine only, and only where the middle 80 % of the log intervals are apart."""
    found = {entry.place: known for entry in entries if (known := pace(entry.run)) is not None}
    if not found:
        return None
    best, why = _fastest(entries, found)
    cells = [
        Told(f"{known.median:.3g}", f"{known.low:.3g} – {known.high:.3g}", entry.place in best)
        if (known := found.get(entry.place))
        else Told(ABSENT)
        for entry in entries
    ]
    return Row("Throughput", "clips a second, higher is better", cells, best, why)


def _fastest(entries: Sequence[Entry], found: dict[int, Pace]) -> tuple[tuple[int, ...], str]:
    machines = {_machine(entry) for entry in entries if entry.place in found}
    if len(found) < 2:
        return (), "known of one run only"
    if len(machines) > 1:
        return (), "not comparable: different machines"
    order = sorted(found, key=lambda place: -found[place].median)
    kept = tuple(place for place in order if found[place].high >= found[order[0]].low)
    if len(kept) == len(order):
        return (), "no verdict: the middle 80 % of the log intervals overlap"
    return kept, "the middle 80 % of the log intervals are apart; other programs on the machine count too"


def _machine(entry: Entry) -> str:
    start = entry.run.lives[-1].start if entry.run.lives else {}
    return f"{start.get('device')} x {start.get('world_size')}"


def _memory(entries: Sequence[Entry]) -> Row | None:
    values = [peak_memory(entry.run) for entry in entries]
    if all(value is None for value in values):
        return None
    cells = [Told(ABSENT if value is None else f"{value:.3g}") for value in values]
    kind = "peak allocated" if all(on_gpu(entry.run) for entry in entries) else "resident on a CPU, allocated on a GPU"
    return Row(
        "Peak memory", f"GiB, lower is better; {kind}", cells, (), "no verdict: one number a run says nothing of noise"
    )


def _goodput(entries: Sequence[Entry]) -> Row | None:
    spent = [entry.run.goodput for entry in entries]
    if not any(one and one.wall for one in spent):
        return None
    cells = [Told(f"{100 * one.goodput:.0f} %" if one and one.wall else ABSENT) for one in spent]
    return Row(
        "Goodput",
        "time in steps that count, higher is better",
        cells,
        (),
        "no verdict: tells of the machine's luck as well",
    )
