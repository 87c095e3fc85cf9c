"""What the page's script draws: the curves of all runs, with three axes to choose from (steps, clips seen, hours).

The script smooths and colours; here are only numbers. A long curve is cut into stretches, each with its mean, smallest and
largest value, so that no spike is lost and the smoothed line is that of all values.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinyworld.core.journal_lines import Record, number
from tinyworld.report.compare_pace import clips_per_second
from tinyworld.report.compare_quality import by_clip, spread
from tinyworld.report.compare_settings import Difference
from tinyworld.report.compared import Entry
from tinyworld.report.figures import FROM_ZERO, Series, column
from tinyworld.report.metrics import Metric

STRETCHES = 800
"""Of a curve; a shorter one is drawn as it is."""
MOST_SPANS, SPAN_DRAWS = 25, 500
"""Validations of a run that have an interval in a chart, and draws for each: a long history would take minutes."""
NOT_MONITORS = {
    *("event", "time", "step", "losses", "samples_seen", "memory_mb", "draws"),
    *("learning_rate", "gradient_norm", "seconds_per_step", "data_seconds"),
}
Values = Callable[[Entry], Series]


def logged(*keys: str) -> Values:
    """The numbers at a path of keys in a run's step events."""
    return lambda entry: column(entry.run.steps, *keys)


def axes(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """For each run the places of its stretches: step, clips seen, hours since the run began (idle time included)."""
    found = []
    for entry in entries:
        records = entry.run.steps
        began = _began(entry)
        hours = [None if (at := number(record.get("time"))) is None else (at - began) / 3600 for record in records]
        ends = [part[-1] for part in _stretches(len(records))]
        found.append(
            {
                "steps": [records[i]["step"] for i in ends],
                "clips": _picked(column(records, "samples_seen"), ends),
                "hours": _picked(hours, ends),
            }
        )
    return found


def _began(entry: Entry) -> float:
    times = [number(life.start.get("time")) for life in entry.run.lives[:1]]
    times += [number(record.get("time")) for record in entry.run.steps]
    return next((time for time in times if time is not None), 0.0)


def training_charts(entries: Sequence[Entry], changed: Sequence[Difference]) -> list[dict[str, Any]]:
    """Total loss, gradient norm and learning rate."""
    weights = any(row.key.startswith("loss.") for row in changed)
    told = (
        "weighted sum of the terms; the weights differ between these runs" if weights else "weighted sum of all terms"
    )
    charts = [
        chart(entries, "Total loss", told, "loss", logged("losses", "total"), log=True, wide=True),
        chart(
            entries,
            "Gradient norm",
            "L2 norm of the whole gradient before clipping",
            "L2 norm",
            logged("gradient_norm"),
            log=True,
        ),
        chart(
            entries,
            "Learning rate",
            "of the step",
            "learning rate",
            logged("learning_rate"),
            plain=True,
        ),
    ]
    return [one for one in charts if one["curves"]]


def monitor_charts(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What tasks log beside the loss, the numbers that most runs have first."""
    charts = []
    names = dict.fromkeys(key for entry in entries for record in entry.run.steps for key in record)
    for name in names:
        if name not in NOT_MONITORS:
            title = name.replace("_", " ").replace("/", " ").capitalize()
            charts.append(chart(entries, title, "as logged by the task", title.lower(), logged(name)))
    return sorted((one for one in charts if one["curves"]), key=lambda one: -len(one["curves"]))


def term_charts(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """One chart for each loss term, over all runs that have it."""
    names: dict[str, None] = {}
    for entry in entries:
        for record in entry.run.steps:
            names |= dict.fromkeys(record["losses"] if isinstance(record.get("losses"), dict) else ())
    charts = [
        chart(
            entries,
            name,
            "times its weight in the loss",
            "loss",
            logged("losses", name),
            log=True,
        )
        for name in names
        if name != "total"
    ]
    return [one for one in charts if one["curves"]]


def machine_charts(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Throughput, waiting for data and memory."""

    def waiting(entry: Entry) -> Series:
        whole, data = (column(entry.run.steps, key) for key in ("seconds_per_step", "data_seconds"))
        return [100 * d / w if d is not None and w else None for d, w in zip(data, whole, strict=True)]

    def memory(entry: Entry) -> Series:
        return [None if mb is None else mb / 1024 for mb in column(entry.run.steps, "memory_mb")]

    charts = [
        chart(entries, "Throughput", "all processes together", "clips / s", lambda e: clips_per_second(e.run)),
        chart(entries, "Waiting for data", "share of a step's time", "percent", waiting),
        chart(entries, "Memory", "of a GPU the peak allocated, else resident", "GiB", memory, plain=True),
    ]
    return [one | {"zero": True} for one in charts if one["curves"]]


def chart(
    entries: Sequence[Entry],
    title: str,
    caption: str,
    unit: str,
    values: Values,
    log: bool = False,
    wide: bool = False,
    plain: bool = False,
) -> dict[str, Any]:
    """One chart. plain: a curve without noise, drawn as it is."""
    curves = []
    for entry in entries:
        found = values(entry)
        if log:
            found = [value if value is not None and value > 0 else None for value in found]
        if any(value is not None for value in found):
            curves.append({"run": entry.place} | _stretched(found))
    return {
        "title": title,
        "caption": caption,
        "unit": unit,
        "log": log,
        "wide": wide,
        "plain": plain,
        "curves": curves,
    }


def quality_charts(entries: Sequence[Entry], metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """Held-out metrics over the validations, with intervals over clips and baselines."""
    charts = []
    for metric in metrics:
        curves = [_measured(entry, metric) for entry in entries]
        curves = [curve for curve in curves if any(value is not None for value in curve["y"])]
        if curves:
            caption = metric.caption + (f"; dashed: {metric.baseline}" if metric.baseline else "")
            charts.append(
                {
                    "title": metric.label,
                    "caption": caption,
                    "unit": metric.unit.strip() or metric.label,
                    "curves": curves,
                    "zero": metric.key in FROM_ZERO,
                }
            )
    return charts


def _measured(entry: Entry, metric: Metric) -> dict[str, Any]:
    found = entry.run.validations
    seen = {record["step"]: number(record.get("samples_seen")) for record in entry.run.steps}
    began = _began(entry)
    times = [number(validation.get("time")) for validation in found]
    every = max(1, math.ceil(len(found) / MOST_SPANS))
    spans = [
        _span(validation, metric) if (len(found) - 1 - place) % every == 0 else (None, None)
        for place, validation in enumerate(found)
    ]
    return {
        "run": entry.place,
        "steps": [validation["step"] for validation in found],
        "clips": [seen.get(validation["step"]) for validation in found],
        "hours": [None if time is None else _short((time - began) / 3600) for time in times],
        "y": [_short(value) for value in column(found, metric.key)],
        "low": [span[0] for span in spans],
        "high": [span[1] for span in spans],
        "baseline": [_short(value) for value in column(found, "baseline", metric.key)],
    }


def _span(validation: Record, metric: Metric) -> tuple[float | None, float | None]:
    values = list(by_clip(validation, metric).values())
    if len(values) < 2:
        return None, None
    low, high = spread(values, SPAN_DRAWS)
    return _short(low), _short(high)


def _stretches(count: int) -> list[range]:
    size = max(1, math.ceil(count / STRETCHES))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _stretched(values: Series) -> dict[str, Series]:
    """Means, and where a stretch has more than one value also its extremes."""
    parts = [[value for i in part if (value := values[i]) is not None] for part in _stretches(len(values))]
    means = [_short(math.fsum(part) / len(part)) if part else None for part in parts]
    if len(parts) == len(values):
        return {"y": means}
    return {
        "y": means,
        "low": [_short(min(part, default=None)) for part in parts],
        "high": [_short(max(part, default=None)) for part in parts],
    }


def _picked(values: Series, places: Sequence[int]) -> Series:
    return [_short(values[i]) for i in places]


def _short(value: float | None) -> float | None:
    """Six digits: more than a picture shows."""
    return None if value is None else float(f"{value:.6g}")
