"""What the live view tells, gathered from numbers that every step leaves on the host anyway."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

FAST, SLOW = 20, 100
"""Steps that the smoothed value and what its trend is measured against reach back to, about."""
STEADY = 0.01
"""A smoothed value within this share of the slow one goes neither up nor down."""
LEAST = 10
"""Steps before a trend is told."""
RECENT = 50
"""Steps that rates are taken over."""
POINTS = 48
"""Points of the loss's curve, at most."""
KEPT_WARNINGS = 3


class Smooth:
    """Two running means of a number (exponential, without a bias towards the start): what it is now and what it was."""

    def __init__(self) -> None:
        self.count, self._fast, self._slow = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self._fast += (value - self._fast) / min(self.count, FAST)
        self._slow += (value - self._slow) / min(self.count, SLOW)

    @property
    def value(self) -> float:
        return self._fast

    @property
    def trend(self) -> int | None:
        """1 up, -1 down, 0 neither; None when there were too few steps to tell."""
        change = self._fast - self._slow
        if self.count < LEAST:
            return None
        if abs(change) <= STEADY * abs(self._slow):
            return 0
        return 1 if change > 0 else -1


class Curve:
    """A number over all steps in at most `POINTS` points: whenever they are full, neighbours become one."""

    def __init__(self) -> None:
        self.points: list[float] = []
        self._every, self._seen = 1, 0

    def add(self, value: float) -> None:
        self._seen += 1
        if self._seen % self._every:
            return
        points = [*self.points, value]
        if len(points) > POINTS:
            points, self._every = points[1::2], 2 * self._every
        self.points = points  # one assignment: the drawing thread never sees a list that changes


@dataclass(frozen=True)
class Took:
    """What a step took. waited: seconds of `seconds` without data. samples: of all ranks."""

    seconds: float
    waited: float
    samples: int


@dataclass(frozen=True)
class Validation:
    """A validation's numbers and which is the best one so far by the metric that decides."""

    step: int
    metrics: Mapping[str, float]
    best_value: float | None
    best_step: int | None


@dataclass
class LiveNumbers:
    """All that is shown. name: of the recipe. start, total: steps done before and in all. validate_every, save_every: 0 never.
    metric: that decides which model is best. learning_rate, norm: of the last step. counts: how often what went wrong."""

    name: str
    start: int
    total: int
    validate_every: int = 0
    save_every: int = 0
    metric: str = ""
    clock: Callable[[], float] = time.monotonic
    step: int = 0
    loss: Smooth = field(default_factory=Smooth)
    curve: Curve = field(default_factory=Curve)
    terms: dict[str, Smooth] = field(default_factory=dict)
    recent: tuple[Took, ...] = ()
    learning_rate: float | None = None
    norm: float | None = None
    validation: Validation | None = None
    validation_seconds: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    doing: str = ""
    doing_since: float = 0.0

    def __post_init__(self) -> None:
        self.began, self.step = self.clock(), self.start
        self.doing_since = self.began

    def stepped(self, step: int, took: Took, loss: float | None, means: Mapping[str, float]) -> None:
        """Take in a step. loss: mean over ranks, None for a step that was skipped. means: the numbers of this rank."""
        self.step = step
        self.recent = (*self.recent, took)[-RECENT:]
        if loss is not None and math.isfinite(loss):
            self.loss.add(loss)
            names = [name for name in means if name.startswith("losses/") and name != "losses/total"]
            fresh = {name.removeprefix("losses/"): Smooth() for name in names}
            self.terms = fresh | self.terms if fresh.keys() - self.terms.keys() else self.terms
            for name in names:
                self.terms[name.removeprefix("losses/")].add(means[name])
            self.curve.add(self.loss.value)  # last: from its first point on, the losses are drawn
        self.learning_rate = means.get("learning_rate", self.learning_rate)
        self.norm = means.get("gradient_norm", self.norm)

    def begin(self, what: str) -> None:
        """What goes on besides steps; empty when steps go on."""
        self.doing, self.doing_since = what, self.clock()

    @property
    def seconds_per_step(self) -> float | None:
        return sum(step.seconds for step in self.recent) / len(self.recent) if self.recent else None

    @property
    def samples_per_second(self) -> float:
        return sum(step.samples for step in self.recent) / max(sum(step.seconds for step in self.recent), 1e-9)

    @property
    def share_waiting(self) -> float:
        """The part of the time that steps wait for data, 0 to 1."""
        return sum(step.waited for step in self.recent) / max(sum(step.seconds for step in self.recent), 1e-9)

    def steps_to(self, every: int) -> int | None:
        """Steps until the next validation or checkpoint, the ones at the end included; None where there are none."""
        left = self.total - self.step
        return min(every - self.step % every, left) if every > 0 and left > 0 else None

    def seconds_left(self) -> float | None:
        """Until the last validation is done, as far as a step and a validation were measured. None: not known, or at the end."""
        if self.seconds_per_step is None or self.step >= self.total:
            return None
        every = self.validate_every
        validations = -(-self.total // every) - self.step // every if every > 0 else 1
        return (self.total - self.step) * self.seconds_per_step + validations * self.validation_seconds


class WarningsKept(logging.Handler):
    """Keeps the first lines of the last few warnings, with the moment each came."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self.kept: deque[tuple[float, str]] = deque(maxlen=KEPT_WARNINGS)

    def emit(self, record: logging.LogRecord) -> None:
        first = record.getMessage().strip().partition("\n")[0]
        self.kept.append((self._clock(), first.removeprefix("warning: ")))
