"""Words for people: the project's logger, and one console for log lines and live bars, so that neither overwrites the other."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.progress import Progress

LOGGER = logging.getLogger("tinyworld")
LOGGER.setLevel(logging.INFO)


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
        super().__init__(stderr=True, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """See `draws_on`."""
        return draws_on(self.file, os.environ)


CONSOLE = ScreenConsole()
DRAWING = threading.RLock()
"""Held by whoever writes while a thread draws a view: rich finds out where a frame begins and replaces it in two moves, and
another thread's line between them would leave a part of the old frame behind."""
# A process that is forked in the middle of drawing would inherit rich's locks as held for ever, and hang when it prints.
os.register_at_fork(before=DRAWING.acquire, after_in_parent=DRAWING.release, after_in_child=DRAWING.release)


class ConsoleHandler(logging.Handler):
    """Prints log lines above a live bar. Lines marked `live` repeat what the bar shows and are left to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "live", False):
            with DRAWING:
                CONSOLE.print(self.format(record), markup=False, highlight=False)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that goes away when done; yields the function (done, total) that moves it. Nothing is drawn in a log file."""
    with Progress(console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
