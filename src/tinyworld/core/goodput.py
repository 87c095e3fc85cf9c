"""Goodput: which share of a run's wall time went into steps that count, and where the rest went.

Everything follows from the journal's events and their times, over all restarts; the parts add up to the wall time from
the first event to the last. Only steps at log intervals are in a journal, with the mean seconds of a step over the
interval: so a step counts with that mean, and what a killed process did after its last line is taken as steps of the
same pace.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tinyworld.core.journal_lines import Record, number

COMPUTE, DATA, VALIDATION, SAVING = "computing", "waiting for data", "validation", "saving"
STARTUP, LOST, DOWN, OTHER = "start-up", "lost work", "down", "other"
PARTS = {
    COMPUTE: "steps that count",
    DATA: "within these steps",
    VALIDATION: "held-out clips",
    SAVING: "training waited for a checkpoint",
    STARTUP: "from the start of a process to its first step",
    LOST: "steps that were done again or skipped, and waiting for a process that hung",
    DOWN: "no process was training",
    OTHER: "logging and ending",
}
"""Every part of the wall time and what it is."""


@dataclass(frozen=True)
class Goodput:
    """Seconds of each part of PARTS, and the restart events of the journal."""

    seconds: dict[str, float]
    restarts: list[Record]

    @property
    def wall(self) -> float:
        return sum(self.seconds.values())

    @property
    def productive(self) -> float:
        """Seconds of the steps that count, waiting for their data included."""
        return self.seconds[COMPUTE] + self.seconds[DATA]

    def share(self, part: str) -> float:
        """Of the wall time, in [0, 1]; 0 for a run without any time."""
        return self.seconds[part] / self.wall if self.wall else 0.0

    @property
    def goodput(self) -> float:
        """`productive` over the wall time, in [0, 1]."""
        return self.productive / self.wall if self.wall else 0.0


def measure(records: Iterable[Record]) -> Goodput:
    """Account for the wall time between the first and the last of a journal's events."""
    account = _Account()
    restarts = []
    for record in records:
        account.take(record)
        if record["event"] == "restart":
            restarts.append(record)
    return Goodput(account.closed(), restarts)


def table(goodput: Goodput) -> str:
    """A few lines for a terminal: each part that took time, its hours and its share."""
    count = len(goodput.restarts)
    of = f" with {count} restart{'s' * (count != 1)}" if count else ""
    lines = [f"goodput {goodput.goodput:.1%} of {duration(goodput.wall)}{of}"]
    for part, meaning in PARTS.items():
        if goodput.seconds[part] > 0:
            lines.append(f"  {part:<17}{duration(goodput.seconds[part]):>12}  {goodput.share(part):>6.1%}  {meaning}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.8 s, 42 s, 3 min 5 s, 1 h 02 min, 2 d 2 h."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {int(seconds) % 60} s"


@dataclass
class _Steps:
    """Steps (first, last] that count so far."""

    first: float
    last: float
    compute: float
    data: float


class _Account:
    """Time goes by from event to event: while no process runs it is down time, before a process speaks start-up, and
    else it waits in `pool` until an event says what it was."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys(PARTS, 0.0)
        self.steps: list[_Steps] = []
        self.phase = "down"
        self.now: float | None = None
        self.pool = self.pause = 0.0
        self.position = 0
        self.skipped = 0
        self.pace: tuple[float, float] | None = None

    def take(self, record: Record) -> None:
        event, step = record["event"], record["step"]
        if event == "start" and self.phase == "running":  # killed without a word: it ended at its last line
            self._end(None)
        self._pass(number(record.get("time")))
        if event == "start" or (event == "step" and self.phase != "running"):
            self._begin(step)
        elif event == "restart":
            if self.phase == "running":
                self._end(None)
            self.phase, self.pause = "starting", max(number(record.get("pause")) or 0.0, 0.0)
        elif event == "stop":
            if self.phase == "running":
                self._end(step)
            self.phase = "down"
        elif event == "step":
            self._count(record)
        elif event == "validation":
            self._claim(VALIDATION, number(record.get("seconds")))
        elif event == "checkpoint":
            self._claim(SAVING, number(record["stall"] if "stall" in record else record.get("seconds")))
        elif event == "rewind":
            self._work(number(record.get("from_step")) or 0.0)
            self._undo(step)
            self.position, self.skipped = step, 0
        elif event == "skip":
            self.skipped += 1

    def closed(self) -> dict[str, float]:
        """The sums; the last process may still be running."""
        self.sums[OTHER if self.pace else STARTUP] += self.pool
        self.pool = 0.0
        self.sums[COMPUTE] = sum(steps.compute for steps in self.steps)
        self.sums[DATA] = sum(steps.data for steps in self.steps)
        return self.sums

    def _pass(self, time: float | None) -> None:
        if time is None:
            return
        elapsed = max(time - self.now, 0.0) if self.now is not None else 0.0
        self.now = max(time, self.now) if self.now is not None else time
        paused = min(self.pause, elapsed)
        self.pause = 0.0
        self.sums[DOWN] += paused
        if self.phase == "running":
            self.pool += elapsed - paused
        else:
            self.sums[STARTUP if self.phase == "starting" else DOWN] += elapsed - paused

    def _begin(self, step: int) -> None:
        self._undo(step)
        self.phase, self.position, self.pace, self.skipped = "running", step, None, 0

    def _undo(self, step: float) -> None:
        """Training goes back to `step`: what was done after it is lost."""
        while self.steps and self.steps[-1].last > step:
            steps = self.steps.pop()
            kept = max(step - steps.first, 0.0) / (steps.last - steps.first)
            self.sums[LOST] += (steps.compute + steps.data) * (1 - kept)
            if kept:
                self.steps.append(_Steps(steps.first, step, steps.compute * kept, steps.data * kept))

    def _count(self, record: Record) -> None:
        """A line about the steps since the line before it."""
        step = record["step"]
        seconds, data = number(record.get("seconds_per_step")) or 0.0, number(record.get("data_seconds")) or 0.0
        began = self.pace is not None
        if seconds > 0:
            self.pace = (seconds, min(max(data, 0.0) / seconds, 1.0))
        self._work(step)
        self.sums[OTHER if began else STARTUP] += self.pool
        self.pool, self.position, self.skipped = 0.0, step, 0

    def _work(self, step: float) -> None:
        """Take the steps after `position` up to `step` out of the pool, at the known pace."""
        count = step - self.position
        if self.pace is None or count <= 0:
            return
        taken = min(self.pool, count * self.pace[0])
        self.pool -= taken
        wasted = taken * min(self.skipped / count, 1.0)
        self.sums[LOST] += wasted
        good = taken - wasted
        self.steps.append(_Steps(self.position, step, good * (1 - self.pace[1]), good * self.pace[1]))

    def _claim(self, part: str, seconds: float | None) -> None:
        """What an event says it took: from the time since the line before it, else from time that was nobody's."""
        wanted = max(seconds or 0.0, 0.0)
        taken = min(self.pool, wanted)
        self.pool -= taken
        late = min(self.sums[OTHER], wanted - taken)
        self.sums[OTHER] -= late
        self.sums[part] += taken + late

    def _end(self, step: int | None) -> None:
        """A process ends at `step`. One that was killed or hung does not know it, and its pace must tell."""
        if self.pace is None:
            self.sums[STARTUP] += self.pool
        else:
            known = step is not None and step >= self.position
            self._work(step if known and step is not None else self.position + self.pool / self.pace[0])
            self.sums[OTHER] += self.pool
        self.pool, self.phase, self.skipped = 0.0, "down", 0
