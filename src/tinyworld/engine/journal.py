"""The run's memory: journal.jsonl (one JSON object per line) and training.log. Only the main rank writes."""

import logging
import os
from pathlib import Path
from typing import Any

from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.core.journal_lines import encoded, opened


class Journal:
    """Appends events. Each line is written in one call and flushed, so a kill can cut at most the last line."""

    def __init__(self, path: Path) -> None:
        self._file = opened(path) if dist.is_main() else None

    def write(self, event: str, step: int, **facts: Any) -> None:
        if self._file is not None:
            self._file.write(encoded(event, step, **facts)[1])
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def log_to(path: Path) -> logging.Handler:
    """Copy every log line into the run's training.log; returns the handler so that the caller can remove it."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    return handler
