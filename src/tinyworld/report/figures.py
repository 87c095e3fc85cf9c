"""The charts of the page as plain plotly figures (dicts of data and layout). Colours of text and grid are the page's.

Every number passes `number`: NaN, null and text become gaps, so that a figure is always valid JSON.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyworld.core.journal_lines import Record, number
from tinyworld.report.metrics import TRAINING_MEAN, measured
from tinyworld.report.read import Run

Series = list[float | None]
COLOURS = ("#3d7fd0", "#d9822b", "#2f9e77", "#a06cd5", "#c9546b", "#8c8c3a", "#4aa3b8", "#9a7460")
"""Legible on the light and the dark page."""
BASELINE = "#8a8f98"
FROM_ZERO = ("flicker", "sharpness", "latent_error")
"""Metrics whose axis begins at zero."""
MOST_POINTS = 1600
"""Longer raw curves keep the smallest and the largest value of each stretch, so that no spike is lost."""


@dataclass(frozen=True)
class Chart:
    """One chart: a heading, what is measured in which unit, the figure, and whether it takes the full width."""

    title: str
    caption: str
    figure: dict[str, Any]
    wide: bool = False


def column(records: Sequence[Record], *keys: str) -> Series:
    """The number at a path of keys in each record; None where it is missing or not finite."""
    values: Series = []
    for record in records:
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        values.append(number(value))
    return values


def smoothed(values: Series) -> Series:
    """Exponential mean over about a fortieth of the curve, without the usual pull towards the first value."""
    decay = 1 - 2 / (max(9, len(values) // 40) + 1)
    total = weight = 0.0
    result: Series = []
    for value in values:
        if value is not None:
            total, weight = decay * total + value, decay * weight + 1
        result.append(total / weight if value is not None else None)
    return result


def kept_points(values: Series, limit: int = MOST_POINTS) -> list[int]:
    """Indices to draw: all of a short curve, else those of the extremes of each stretch."""
    if len(values) <= limit:
        return list(range(len(values)))
    stretch = math.ceil(2 * len(values) / limit)
    kept: set[int] = {0, len(values) - 1}
    for start in range(0, len(values), stretch):
        present = [i for i in range(start, min(start + stretch, len(values))) if values[i] is not None]
        if present:
            kept |= {min(present, key=lambda i: values[i] or 0.0), max(present, key=lambda i: values[i] or 0.0)}
    return sorted(kept)


def line(steps: Sequence[int], values: Series, name: str, colour: str, **style: Any) -> Record:
    """A trace over steps. style: opacity, dash, width, markers, legend, fill (stacked), keep (indices to draw)."""
    kept = style.get("keep") or kept_points(values)
    trace: Record = {
        "type": "scatter",
        "mode": "lines+markers" if style.get("markers") or len(kept) == 1 else "lines",
        "x": [steps[i] for i in kept],
        "y": [values[i] for i in kept],
        "name": name,
        "line": {"color": colour, "width": style.get("width", 2), "dash": style.get("dash", "solid")},
        "marker": {"color": colour, "size": 7},
        "opacity": style.get("opacity", 1.0),
        "showlegend": style.get("legend", False),
        "hovertemplate": "%{y:.4g}<extra>%{fullData.name}, step %{x}</extra>",
    }
    if style.get("fill"):
        trace |= {"stackgroup": "one", "fillcolor": colour + "66"}
    if style.get("opacity", 1.0) < 1:
        trace["hoverinfo"] = "skip"
        del trace["hovertemplate"]
    return trace


def layout(log: bool = False, legend: bool = False, from_zero: bool = False, **more: Any) -> Record:
    y: Record = {"type": "log", "tickformat": "~g"} if log else {"rangemode": "tozero" if from_zero else "normal"}
    return {"yaxis": y, "xaxis": {"exponentformat": "none"}, "showlegend": legend, **more}


def _positive(values: Series) -> Series:
    """For a logarithmic axis: what is not above zero is a gap."""
    return [value if value is not None and value > 0 else None for value in values]


def _curve(steps: Sequence[int], values: Series, name: str, colour: str, legend: bool = False) -> list[Record]:
    """The raw values pale, and their smoothed course over them."""
    raw = line(steps, values, name, colour, opacity=0.28, width=1)
    return [raw, line(steps, smoothed(values), name, colour, legend=legend)]


def training_charts(run: Run) -> list[Chart]:
    """Loss terms, learning rate, gradient norm and the other numbers that a task logs at its steps."""
    steps = [record["step"] for record in run.steps]
    if not steps:
        return []
    charts = [_losses(run, steps)]
    for key, title, caption, log in (
        ("gradient_norm", "Gradient norm", "L2 norm of the whole gradient before clipping, log axis", True),
        ("learning_rate", "Learning rate", "of the step", False),
    ):
        values = column(run.steps, key)
        values = _positive(values) if log else values
        if any(value is not None for value in values):
            traces = _curve(steps, values, title, COLOURS[0]) if log else [line(steps, values, title, COLOURS[0])]
            charts.append(Chart(title, caption, {"data": traces, "layout": layout(log, from_zero=True)}))
    charts += _monitors(run, steps)
    return [chart for chart in charts if chart.figure["data"]]


def _losses(run: Run, steps: list[int]) -> Chart:
    names: dict[str, None] = {}
    for record in run.steps:
        names |= dict.fromkeys(record["losses"] if isinstance(record.get("losses"), dict) else ())
    traces: list[Record] = []
    zero: list[str] = []
    for name in sorted(names, key=lambda name: name != "total"):
        values = _positive(column(run.steps, "losses", name))
        if any(value is not None for value in values):
            traces += _curve(steps, values, name, COLOURS[len(traces) // 2 % len(COLOURS)], legend=True)
        else:
            zero.append(name)
    caption = "weighted terms as they are added up; pale: as logged, strong: smoothed; log axis"
    caption += f"; never above zero: {', '.join(zero)}" if zero else ""
    restarts = [life.start["step"] for life in run.lives[1:]]
    if restarts:
        caption += "; dotted: restart"
    marks = [
        {
            "type": "line",
            "x0": x,
            "x1": x,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": BASELINE, "width": 1, "dash": "dot"},
        }
        for x in restarts
    ]
    return Chart("Loss terms", caption, {"data": traces, "layout": layout(True, legend=True, shapes=marks)}, wide=True)


def _monitors(run: Run, steps: list[int]) -> list[Chart]:
    known = {"event", "time", "step", "losses", "samples_seen", "memory_mb"}
    known |= {"learning_rate", "gradient_norm", "seconds_per_step", "data_seconds"}
    names = dict.fromkeys(key for record in run.steps for key in record if key not in known)
    charts = []
    for name in names:
        values = column(run.steps, name)
        if any(value is not None for value in values):
            traces = _curve(steps, values, name, COLOURS[2])
            title = name.replace("_", " ").replace("/", " ").capitalize()
            charts.append(
                Chart(title, "as logged by the task, not part of the loss", {"data": traces, "layout": layout()})
            )
    return charts


def machine_charts(run: Run) -> list[Chart]:
    """Seconds a step, split into waiting for data and computing, and memory."""
    steps = [record["step"] for record in run.steps]
    whole, data = column(run.steps, "seconds_per_step"), column(run.steps, "data_seconds")
    charts = []
    if any(value is not None for value in whole):
        waiting: Series = [min(d or 0.0, w) if w is not None else None for d, w in zip(data, whole, strict=True)]
        compute: Series = [
            w - d if w is not None and d is not None else None for w, d in zip(whole, waiting, strict=True)
        ]
        kept = kept_points(whole)
        traces = [
            line(steps, compute, "compute", COLOURS[0], width=1, legend=True, fill=True, keep=kept),
            line(steps, waiting, "waiting for data", COLOURS[1], width=1, legend=True, fill=True, keep=kept),
        ]
        figure = {"data": traces, "layout": layout(legend=True, from_zero=True)}
        charts.append(Chart("Seconds per step", "mean of the log interval", figure))
    measured = [record for record in run.steps if number(record.get("memory_mb")) is not None]
    if measured:
        values: Series = [(mb or 0.0) / 1024 for mb in column(measured, "memory_mb")]
        trace = line([record["step"] for record in measured], values, "memory", COLOURS[3])
        figure = {"data": [trace], "layout": layout(from_zero=True)}
        charts.append(Chart("Memory", "GiB; on a GPU the peak allocated, else the process's resident memory", figure))
    return charts


def quality_charts(run: Run) -> list[Chart]:
    """Held-out metrics over steps beside their baselines, and PSNR by position in the time group."""
    steps = [entry["step"] for entry in run.validations]
    charts = []
    for metric in measured(run):
        key, title, caption = metric.key, metric.label, metric.caption
        values, baseline = column(run.validations, key), column(run.validations, "baseline", key)
        traces = [line(steps, values, title, COLOURS[0], markers=True)]
        if any(value is not None for value in baseline):
            caption += f"; dashed: {metric.baseline or 'baseline'}"
            traces.append(line(steps, baseline, metric.baseline or "baseline", BASELINE, dash="dash", width=1.5))
        mean_key, mean_name = TRAINING_MEAN.get(key, ("", ""))
        mean = column(run.validations, "baseline", mean_key)
        if any(value is not None for value in mean):
            caption += f"; dotted: {mean_name}"
            traces.append(line(steps, mean, mean_name, COLOURS[2], dash="dot", width=1.5))
        teacher = column(run.validations, "baseline", f"teacher_{key}")
        if any(value is not None for value in teacher):
            caption += "; dotted: the reference VAE itself"
            traces.append(line(steps, teacher, "reference VAE", COLOURS[2], dash="dot", width=1.5))
        if run.best_step is not None and run.best_step in steps:
            best = values[steps.index(run.best_step)]
            ring = {"size": 13, "color": "rgba(0,0,0,0)", "line": {"color": COLOURS[1], "width": 2}}
            caption += "; ring: best model"
            traces.append(line([run.best_step], [best], "best model", COLOURS[1], markers=True) | {"marker": ring})
        charts.append(Chart(title, caption, {"data": traces, "layout": layout(from_zero=key in FROM_ZERO)}))
    positions = _positions(run) if run.validations else None
    return charts + ([positions] if positions else [])


def _positions(run: Run) -> Chart | None:
    """One line for each validation of note: the first, the best, the latest."""
    labels: dict[int, str] = {}
    for label, entry in (("first", run.validations[0]), ("latest", run.latest), ("best", run.best)):
        if entry:
            step = entry["step"]
            labels[step] = f"{labels[step]} and {label}" if step in labels else label
    traces = []
    for (step, label), colour in zip(labels.items(), (BASELINE, COLOURS[0], COLOURS[1]), strict=False):
        profile = next(entry for entry in run.validations if entry["step"] == step).get("psnr_by_position")
        values = [number(value) for value in profile] if isinstance(profile, list) else []
        if any(value is not None for value in values):
            trace = line(range(len(values)), values, f"{label}, step {step}", colour, markers=True, legend=True)
            traces.append(trace | {"hovertemplate": "%{y:.2f} dB at position %{x}<extra>%{fullData.name}</extra>"})
    if not traces:
        return None
    caption = "dB at each frame of a latent's group; a flat line does not pulse"
    positions = {"dtick": 1, "range": [-0.3, max(len(trace["x"]) for trace in traces) - 0.7]}
    figure = {"data": traces, "layout": layout(legend=True) | {"xaxis": positions}}
    return Chart("PSNR by position in the frame group", caption, figure)
