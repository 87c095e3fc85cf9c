"""backend="auto": the eager step, until so much time has gone into it that measuring others may pay.

Making another step costs seconds to minutes, a short clip takes less. So nothing is made before `PATIENCE` seconds of work
have gone by; then each way is timed on the latent at hand, the fastest one goes on, and a line in the log says so. Which one
that is depends on the machine and its load, so results of long clips may differ from run to run in the last digits.
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import UserError

PATIENCE = 20.0
"""Seconds of eager work after which the others are made and measured; about what making them costs."""
BUDGET = 0.3
"""Seconds of measuring per way, at least three repetitions; the fastest repetition counts."""
GAIN = 0.95
"""Another way has to take less than this share of the eager step's time."""

Step = Callable[..., Any]


class Chooser:
    """A step that is the eager one at first and the fastest one later. All ways give equal results up to rounding.

    `others`: name → what makes the step; called once, when it is time to measure.
    """

    def __init__(self, what: str, eager: Step, others: dict[str, Callable[[], Step]]) -> None:
        self.what, self.eager, self.others = what, eager, others
        self.chosen: str | None = None
        """What was chosen; None as long as nothing was measured."""
        self.step, self.spent = eager, 0.0

    def __call__(self, *arguments: Any) -> Any:
        if self.chosen is not None or not self.others:
            return self.step(*arguments)
        began = time.perf_counter()
        result = self.eager(*arguments)
        _wait()
        self.spent += time.perf_counter() - began
        if self.spent > PATIENCE:
            self._choose(arguments)
        return result

    def _choose(self, arguments: tuple[Any, ...]) -> None:
        began = time.perf_counter()
        ways = {"eager": self.eager, **{name: make() for name, make in self.others.items()}}
        for step in ways.values():
            step(*arguments)  # what is made at the first call is not measured
        _wait()
        cost = time.perf_counter() - began
        times = measured(ways, arguments)
        fastest = min(times, key=lambda name: times[name] * (GAIN if name == "eager" else 1))
        self.chosen, self.step = fastest, ways[fastest]
        found = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in times.items())
        LOGGER.info("%s: %s per latent, measured in %.0f s: %s from here on", self.what, found, cost, fastest)


def worth_measuring(dtype: torch.dtype, device: torch.device) -> list[str]:
    """Ways beside the eager one that can run here and have a chance: torch.compile gains nothing on a CPU (docs/lab-log.md)."""
    from tinyworld.models.taehv.onnx_runtime import check_runtime

    ways = []
    try:
        check_runtime(dtype, device)
        ways.append("onnx")
    except UserError:
        pass  # not installed, or not in this number type: that is no mistake of somebody who leaves the choice to us
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        ways.append("compile")
    return ways


def measured(ways: dict[str, Step], arguments: tuple[Any, ...]) -> dict[str, float]:
    """Seconds of each way's fastest repetition; the ways take turns, so that a busy moment meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    while any(len(found) < 3 or sum(found) < BUDGET for found in times.values()):
        for name, step in ways.items():
            began = time.perf_counter()
            step(*arguments)
            _wait()
            times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


def _wait() -> None:
    """A GPU works behind the program's back."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
