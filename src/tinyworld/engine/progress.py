"""What a person sees while a run goes on: a live view on a terminal, one line per log interval elsewhere."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.live import Live

from tinyworld.core import dist
from tinyworld.core.console import CONSOLE, DRAWING, LOGGER, redrawn
from tinyworld.engine.live_numbers import LiveNumbers, Took, Validation, WarningsKept
from tinyworld.engine.live_streams import above_the_view, can_lead_the_log
from tinyworld.engine.live_view import LiveView, clock
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.state import TrainingState

REFRESH_SECONDS = 0.5


class TrainingProgress:
    """Step-based progress. Use as a context manager; `stepped` after every step, `line` at the log interval.

    numbers: with the steps done before and in all. memory: of this process, MiB. The view is drawn by a thread from what it
    was told, twice a second; being told costs the training a few assignments. Nothing is drawn by other ranks than the main
    one, nor where standard output goes elsewhere than to the terminal (`| tee`), nor where a program logs by a handler that
    cannot be led above the view. A view that cannot be drawn ends with a warning, and the run goes on.
    """

    def __init__(self, numbers: LiveNumbers, memory: Callable[[], float], stop: StopRequest) -> None:
        self._live = CONSOLE.is_terminal and sys.stdout.isatty() and dist.is_main() and can_lead_the_log()
        self._numbers, self._warnings = numbers, WarningsKept()
        self._view = LiveView(numbers, self._warnings, memory, stop)
        self._screen = Live(
            self._view, console=CONSOLE, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._held = ExitStack()
        self._failure_told = False

    def __enter__(self) -> "TrainingProgress":
        if self._live:
            LOGGER.addHandler(self._warnings)
            self._held.callback(LOGGER.removeHandler, self._warnings)
            with DRAWING:
                self._screen.start()
                # Rich hides the cursor. Killed, a process cannot bring it back; a cursor that stays needs no restoring.
                CONSOLE.show_cursor(True)
            self._held.callback(self._stop)
            print_forked = self._held.enter_context(above_the_view())
            self._held.enter_context(redrawn(lambda: self._redraw(print_forked), REFRESH_SECONDS))
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self._held.close()
        except Exception as error:  # noqa: BLE001 - of the terminal; it must not take the place of how the run ended
            self._view.failure = error
        self._tell_failure()

    def _stop(self) -> None:
        with DRAWING:
            self._screen.stop()

    def _redraw(self, print_forked: Callable[[], None]) -> None:
        try:
            print_forked()
            if self._view.failure is None:
                self._screen.refresh()
        except Exception as error:  # noqa: BLE001 - the terminal is gone, say; told by the training's thread
            self._view.failure = error

    def _tell_failure(self) -> None:
        """Not told where it is found: in the middle of a frame, and with locks that a log line needs."""
        error = self._view.failure
        if error is not None and not self._failure_told:
            self._failure_told = True
            LOGGER.warning("warning: the live view has ended, the run has not: %s: %s", type(error).__name__, error)

    def stepped(self, state: TrainingState, took: Took, loss: float | None, means: Mapping[str, float]) -> None:
        """A step is done. loss: mean over ranks, None for a step that was skipped. means: the logged numbers of this rank."""
        self._tell_failure()
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
        numbers = self._numbers
        done = max(step - numbers.start, 1)
        left = (numbers.clock() - numbers.began) / done * (numbers.total - step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in facts.items())
        shown = self._live and self._view.failure is None
        LOGGER.info("step %d/%d  %s  %s left", step, numbers.total, text, clock(left), extra={"live": shown})
