"""From values of clips beside those of baselines to a table: means, how sure they are, and how often the model wins."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from tinyworld.metrics.bootstrap import interval

BETTER_HIGH = frozenset({"delta1", "delta1_scaled", "auc30", "overlap"})
"""Names of metrics of which more is better; of all others less is."""


@dataclass(frozen=True)
class Outcome:
    """What was measured of a part of a clip. id: of the clip. part: what tells it from the clip's other parts. values: by
    metric; not finite where there is none. baselines: the same by the name of the baseline."""

    id: str
    part: int | str
    values: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Line(NamedTuple):
    """One metric beside one baseline, or beside none (then baseline is NaN and wins and of are 0).

    mean, low, high: over the `clips` that have a value, with the 95 % bootstrap interval of the mean (NaN for one).
    beside: the baseline's name. baseline: its mean. wins: in how many of the `of` clips with both the model is better.
    """

    name: str
    clips: int
    mean: float
    low: float
    high: float
    beside: str | None
    baseline: float
    wins: int
    of: int


def tally(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Line]:
    """The lines of these metrics, in this order, a line for each baseline that has the metric.

    Parts of a clip are averaged first: they are alike, and an interval that took each for a clip of its own would be too
    narrow. With a single clip its parts stand for clips.
    """
    clips = _clips(outcomes)
    lines = []
    for name in names:
        own = [_mean([part.values.get(name, math.nan) for part in parts]) for parts in clips]
        rivals = dict.fromkeys(
            key
            for part in outcomes
            for key, values in part.baselines.items()
            if math.isfinite(values.get(name, math.nan))
        )
        if any(map(math.isfinite, own)):
            lines += [_line(name, own, key, clips) for key in rivals or (None,)]
    return lines


def unit_of(outcomes: Sequence[Outcome]) -> str:
    """What the intervals of `tally` are over."""
    return "parts of one clip" if len({outcome.id for outcome in outcomes}) == 1 < len(outcomes) else "clips"


def as_json(outcomes: Sequence[Outcome], names: Sequence[str]) -> dict[str, Any]:
    """Lines and single values, ready for `core.files.write_json`."""
    lines = [line._asdict() for line in tally(outcomes, names)]
    return {"over": unit_of(outcomes), "lines": lines, "clips": [asdict(outcome) for outcome in outcomes]}


def _clips(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.id, []).append(outcome)
    clips = list(grouped.values())
    return [[part] for part in clips[0]] if len(clips) == 1 else clips


def _line(name: str, own: Sequence[float], beside: str | None, clips: Sequence[Sequence[Outcome]]) -> Line:
    known = [value for value in own if math.isfinite(value)]
    low, high = interval(known) if len(known) > 1 else (math.nan, math.nan)
    told = len(known), _mean(known), low, high
    if beside is None:
        return Line(name, *told, None, math.nan, 0, 0)
    rival = [_mean([part.baselines.get(beside, {}).get(name, math.nan) for part in parts]) for parts in clips]
    sign = 1 if name in BETTER_HIGH else -1
    pairs = [(a, b) for a, b in zip(own, rival, strict=True) if math.isfinite(a) and math.isfinite(b)]
    wins = sum(sign * a > sign * b for a, b in pairs)
    return Line(name, *told, beside, _mean(rival), wins, len(pairs))


def _mean(values: Sequence[float]) -> float:
    """Of the finite ones; NaN where there is none."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
