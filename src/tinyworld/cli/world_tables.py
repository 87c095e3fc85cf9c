"""Tables of `tinyworld evaluate fantasy`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyworld.infer.world.tally import Line, Outcome

WORDS = {
    "abs_rel": "depth, AbsRel",
    "delta1": "depth, δ1",
    "abs_rel_scaled": "depth, AbsRel, one scale",
    "delta1_scaled": "depth, δ1, one scale",
    "point_error": "points, relative error",
    "point_error_scaled": "points, one scale",
    "consistency": "points against depth",
    "ate": "camera, ATE",
    "rpe_translation": "camera, RPE position",
    "rpe_rotation": "camera, RPE rotation in °",
    "auc30": "camera, AUC@30",
    "depth_agreement": "depth, carried to others",
    "colour_agreement": "colour, carried to others",
    "colour_as_asked": "colour change left, if as asked",
    "overlap": "share that lands there",
    "colour_flicker": "flicker of colours",
    "depth_flicker": "flicker of depth",
    "unsteadiness": "camera, unsteadiness",
}
WIDEST = 44
"""Of the name of a clip."""
WIDEST_CELL = len("0.0000 / 0.0000")


def summary(lines: Sequence["Line"]) -> str:
    """A line for each metric and baseline: mean, 95 % interval, the baseline's mean, how often the model is better."""
    from tinyworld.infer.world.tally import BETTER_HIGH

    told = [f"  {'':<34}{'mean':>8}   {'95 % interval':<19}{'baseline':>8}  better in"]
    last = None
    for line in lines:
        label = f"{WORDS[line.name]} {'↑' if line.name in BETTER_HIGH else '↓'}" if line.name != last else ""
        own = f"{_number(line.mean):>8}   {_interval(line):<19}" if label else " " * 30
        beside = "" if line.beside is None else f"{_number(line.baseline):>8}  {line.wins} of {line.of}: {line.beside}"
        told.append(f"  {label:<34}{own}{beside}".rstrip())
        last = line.name
    return "\n".join(told)


def each_clip(outcomes: Sequence["Outcome"], names: Sequence[str], beside: Sequence[str]) -> str:
    """A line for each outcome: the metrics that any of them has, each with the first of the baselines `beside` that has it
    behind a slash."""
    names = [name for name in names if any(math.isfinite(outcome.values.get(name, math.nan)) for outcome in outcomes)]
    width = min(WIDEST, max(len(_name(outcome)) for outcome in outcomes))
    heads = [WORDS[name].removeprefix("camera, ") for name in names]
    columns = [max(len(head), WIDEST_CELL) + 3 for head in heads]
    told = [f"  {'':<{width}}" + "".join(f"{head:>{column}}" for head, column in zip(heads, columns, strict=True))]
    for outcome in outcomes:
        cells = []
        for name in names:
            rivals = (outcome.baselines.get(key, {}).get(name, math.nan) for key in beside)
            rival = next((value for value in rivals if math.isfinite(value)), math.nan)
            text = _number(outcome.values.get(name, math.nan))
            cells.append(f"{text} / {_number(rival)}" if math.isfinite(rival) else text)
        row = "".join(f"{cell:>{column}}" for cell, column in zip(cells, columns, strict=True))
        told.append(f"  {_name(outcome)[-width:]:<{width}}{row}")
    return "\n".join(told)


def _name(outcome: "Outcome") -> str:
    return f"{outcome.id} ({outcome.part})"


def _interval(line: "Line") -> str:
    if not math.isfinite(line.low):
        return "–"
    return f"{_number(line.low)} … {_number(line.high)}"


def _number(value: float) -> str:
    """A dash for what could not be measured."""
    return f"{value:.4f}" if math.isfinite(value) else "–"
