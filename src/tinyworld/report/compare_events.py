"""When runs ran, stopped, skipped and went back: a lane for each on one clock, and a table of what happened with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyworld.core.goodput import duration
from tinyworld.core.journal_lines import Record, number
from tinyworld.report.compared import Entry
from tinyworld.report.words import life as told_life
from tinyworld.report.words import restart as told_restart
from tinyworld.report.words import skip as told_skip

MOST_EVENTS = 15
"""Rows of one run; the page says how many more there are."""
MOST_MARKS = 150
"""Marks in one lane."""


@dataclass(frozen=True)
class Mark:
    """A point of a lane. at: percent of the clock; kind: skip, rewind or end; text: for who points at it."""

    at: float
    kind: str
    text: str


@dataclass
class Lane:
    """One run: (from, length) of each process in percent of the clock, and marks."""

    place: int
    running: list[tuple[float, float]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True)
class Timeline:
    """Lanes of all runs on a clock that starts with each of them. ticks: (percent, label)."""

    lanes: list[Lane]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Event:
    """One row: seconds since the run began (None: unknown), the step, what and why."""

    after: float | None
    step: int
    what: str
    why: str


def timeline(entries: Sequence[Entry]) -> Timeline | None:
    """None when no run has a time."""
    began = {entry.place: _began(entry) for entry in entries}
    longest = max(
        (life.last_time - began[entry.place] for entry in entries for life in entry.run.lives if life.last_time),
        default=0.0,
    )
    if longest <= 0:
        return None
    lanes = [_lane(entry, began[entry.place], longest) for entry in entries]
    return Timeline(lanes, [(25.0 * part, duration(longest * part / 4) if part else "0") for part in range(5)])


def _began(entry: Entry) -> float:
    times = (number(life.start.get("time")) for life in entry.run.lives)
    return next((time for time in times if time is not None), 0.0)


def _lane(entry: Entry, began: float, longest: float) -> Lane:
    lane = Lane(entry.place)

    def at(time: float) -> float:
        return round(100 * min(max((time - began) / longest, 0.0), 1.0), 3)

    for life in entry.run.lives:
        start = number(life.start.get("time"))
        if start is not None:
            lane.running.append((at(start), round(at(life.last_time) - at(start), 3)))
            told = told_life(life)
            lane.marks.append(Mark(at(life.last_time), "end", f"{told['end']} at step {life.last_step}"))
    for kind, records in (("skip", entry.run.skips), ("rewind", entry.run.rewinds)):
        for record in records[:MOST_MARKS]:
            time = number(record.get("time"))
            if time is not None:
                lane.marks.append(Mark(at(time), kind, f"{kind} at step {record['step']}"))
    return lane


def events(entry: Entry) -> tuple[list[Event], int]:
    """What happened to a run, in order, at most MOST_EVENTS rows, and how many more there are."""
    run, began = entry.run, _began(entry)

    def after(record: Record) -> float | None:
        time = number(record.get("time"))
        return None if time is None else max(time - began, 0.0)

    found = []
    for count, life in enumerate(run.lives):
        told = told_life(life)
        if count:
            found.append(
                Event(after(life.start), told["step"], "resumed", f"from {told['resumed_from'] or 'its start'}")
            )
        stop = life.stop or {}
        message = str(stop.get("message") or "").strip()
        ended = Event(max(life.last_time - began, 0.0), life.last_step, told["end"], message)
        found.append(ended)
    found += (
        [Event(after(r), r["step"], "restarted", told_restart(r)["cause"]) for r in run.goodput.restarts]
        if run.goodput
        else []
    )
    found += [Event(after(r), r["step"], "step skipped", str(told_skip(r)["reason"])) for r in run.skips]
    found += [Event(after(r), r["step"], "taken back", _rewound(r)) for r in run.rewinds]
    found += [Event(after(r), r["step"], "settings changed", _changed(r)) for r in run.changes]
    found.sort(key=lambda event: event.after if event.after is not None else -1.0)
    return found[:MOST_EVENTS], max(len(found) - MOST_EVENTS, 0)


def _rewound(record: Record) -> str:
    return f"from step {record.get('from_step')} to {record.get('checkpoint')}"


def _changed(record: Record) -> str:
    changes = record.get("changes")
    rows = [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []
    return ", ".join(f"{row.get('key')} from {row.get('before')} to {row.get('after')}" for row in rows)
