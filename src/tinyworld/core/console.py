"""Words for people: the project's logger, and one console for log lines and live bars, so that neither overwrites the other."""

import logging

from rich.console import Console

LOGGER = logging.getLogger("tinyworld")
LOGGER.setLevel(logging.INFO)
CONSOLE = Console(stderr=True, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Prints log lines above a live bar. Lines marked `live` repeat what the bar shows and are left to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "live", False):
            CONSOLE.print(self.format(record), markup=False, highlight=False)
