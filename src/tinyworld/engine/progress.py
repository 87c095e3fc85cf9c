"""What a person sees while a run goes on: a live view on a terminal, one line per log interval elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live

from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.core.console import CONSOLE, DRAWING, LOGGER
from tinyworld.engine.live_numbers import LiveNumbers, Took, Validation, WarningsKept
from tinyworld.engine.live_view import LiveView, clock
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.state import TrainingState

REFRESH_SECONDS = 0.5


class _AboveTheView(FileProxy):
    """Standard output or error while the view is drawn: whole lines go above it."""

    def write(self, text: str) -> int:
        with DRAWING:
            return super().write(text)

    def flush(self) -> None:
        with DRAWING:
            super().flush()


class TrainingProgress:
    """Step-based progress. Use as a context manager; `stepped` after every step, `line` at the log interval.

    memory: of this process, MiB. The view is drawn by a thread from what it was told, twice a second; being told costs the
    training a few assignments. Nothing is drawn by other ranks than the main one, nor where standard output goes elsewhere
    than to the terminal (`| tee`).
    """

    def __init__(
        self,
        recipe: Recipe,
        start: int,
        memory: Callable[[], float],
        stop: StopRequest,
        console: Console = CONSOLE,
    ) -> None:
        self._start, self._total, self._began = start, recipe.training.max_train_steps, time.monotonic()
        self._live = console.is_terminal and sys.stdout.isatty() and dist.is_main()
        self._numbers = LiveNumbers(
            recipe.name,
            start,
            self._total,
            recipe.validation.validation_steps,
            recipe.checkpoint.checkpointing_steps,
            recipe.validation.metric_for_best_model,
        )
        self._warnings = WarningsKept()
        view = LiveView(self._numbers, self._warnings, memory, stop)
        self._console = console
        self._screen = Live(view, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._held = ExitStack()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="live view", daemon=True)

    def __enter__(self) -> "TrainingProgress":
        if self._live:
            LOGGER.addHandler(self._warnings)
            self._held.callback(LOGGER.removeHandler, self._warnings)
            with DRAWING:
                self._screen.start()
                # Rich hides the cursor. Killed, a process cannot bring it back; a cursor that stays needs no restoring.
                self._console.show_cursor(True)
            self._held.callback(self._stop)
            for redirect, stream in ((redirect_stdout, sys.stdout), (redirect_stderr, sys.stderr)):
                proxy = self._held.enter_context(redirect(_AboveTheView(self._console, stream)))
                self._held.callback(proxy.flush)
            self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._held.close()

    def _stop(self) -> None:
        self._closing.set()
        self._thread.join()
        with DRAWING:
            self._screen.stop()

    def _draw(self) -> None:
        while not self._closing.wait(REFRESH_SECONDS):
            with DRAWING:
                self._screen.refresh()

    def stepped(self, state: TrainingState, took: Took, loss: float | None, means: Mapping[str, float]) -> None:
        """A step is done. loss: mean over ranks, None for a step that was skipped. means: the logged numbers of this rank."""
        self._numbers.stepped(state.step, took, loss, means)
        self._numbers.counts = {
            "steps skipped": state.skipped_total,
            "times gone back": state.rewinds,
            "clips set aside": len(state.faults),
        }

    def validated(self, state: TrainingState, seconds: float = 0.0) -> None:
        """Show the newest entry of the validation history, if there is one. seconds: it took."""
        self._numbers.validation_seconds = seconds
        if state.history:
            entry = state.history[-1]
            numbers = {k: v for k, v in entry.items() if isinstance(v, float) and k != "time" and "@" not in k}
            self._numbers.validation = Validation(entry["step"], numbers, state.best_value, state.best_step)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """While something else than steps goes on."""
        self._numbers.begin(what)
        try:
            yield
        finally:
            self._numbers.begin("")

    def line(self, step: int, facts: Mapping[str, Any]) -> None:
        """One log line; on a terminal it goes to the log file only, the view shows the same."""
        done = max(step - self._start, 1)
        left = (time.monotonic() - self._began) / done * (self._total - step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in facts.items())
        LOGGER.info("step %d/%d  %s  %s left", step, self._total, text, clock(left), extra={"live": self._live})
