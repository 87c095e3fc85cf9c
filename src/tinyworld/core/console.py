"""Words for people: the project's logger, and one console for log lines and live bars, so that neither overwrites the other."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.progress import Progress

LOGGER = logging.getLogger("tinyworld")
LOGGER.setLevel(logging.INFO)
QUIET = 20.0
"""Seconds between the lines that stand for a bar in a log file."""


def draws_on(stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether bars and live views are drawn on a stream. Only where somebody looks at a screen that can move its cursor.

    Not in files, pipes and CI, nor with TERM=dumb or NO_COLOR. FORCE_COLOR does not change that: many a CI sets it, and
    control characters in its log help nobody.
    """
    if environment.get("NO_COLOR") or environment.get("CI", "").lower() not in ("", "0", "false"):
        return False
    if environment.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


class ScreenConsole(Console):
    """Rich's console on standard error with our own answer to what a terminal is."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Draws nothing, and its locks are free."""
        super().__init__(stderr=True, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """See `draws_on`."""
        return draws_on(self.file, os.environ)


CONSOLE = ScreenConsole()
DRAWING = threading.RLock()
"""Held by whoever writes while a thread draws a view: rich finds out where a frame begins and replaces it in two moves, and
another thread's line between them would leave a part of the old frame behind."""


def _begin_as_a_child() -> None:
    """The thread that draws stayed with the parent, and so does the view."""
    CONSOLE.reset()
    DRAWING.release()


# A process that is forked in the middle of drawing would inherit locks as held for ever, and hang when it prints.
os.register_at_fork(before=DRAWING.acquire, after_in_parent=DRAWING.release, after_in_child=_begin_as_a_child)


def is_not_drawn(record: logging.LogRecord) -> bool:
    """Whether a log line tells what no view shows. The others are marked `live` and left to the log file."""
    return not getattr(record, "live", False)


class ConsoleHandler(logging.Handler):
    """Prints log lines above a live bar or view."""

    def emit(self, record: logging.LogRecord) -> None:
        if is_not_drawn(record):
            try:
                with DRAWING:
                    CONSOLE.print(self.format(record), markup=False, highlight=False)
            except Exception:  # noqa: BLE001 - as in every handler: a terminal that is gone does not end the program
                self.handleError(record)


@contextmanager
def redrawn(draw: Callable[[], None], seconds: float) -> Iterator[None]:
    """Meanwhile a thread calls `draw` every so many seconds, holding `DRAWING`."""
    closing = threading.Event()

    def work() -> None:
        while not closing.wait(seconds):
            with DRAWING:
                draw()

    thread = threading.Thread(target=work, name="drawing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that goes away when done; yields the function (done, total) that moves it. In a log file a line now and then."""
    if not CONSOLE.is_terminal:
        yield _now_and_then(what)
        return
    # Rich's own thread would draw without DRAWING.
    with Progress(console=CONSOLE, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task(what, total=None)
        with redrawn(progress.refresh, 0.1):
            yield lambda done, total: progress.update(bar, completed=done, total=total)


def _now_and_then(what: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET:
            last = time.monotonic()
            LOGGER.info("%s: %d of %d", what, done, total)

    return tell
