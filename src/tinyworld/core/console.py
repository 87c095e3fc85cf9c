"""Words for people: the project's logger, and one console for log lines and live bars, so that neither overwrites the other."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

LOGGER = logging.getLogger("tinyworld")
LOGGER.setLevel(logging.INFO)
CONSOLE = Console(stderr=True, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Prints log lines above a live bar. Lines marked `live` repeat what the bar shows and are left to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "live", False):
            CONSOLE.print(self.format(record), markup=False, highlight=False)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that goes away when done; yields the function (done, total) that moves it. Nothing is drawn in a log file."""
    with Progress(console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
