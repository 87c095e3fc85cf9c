"""The run's memory: journal.jsonl (one JSON object per line) and training.log. Only the main rank writes."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.core.files import json_ready


class Journal:
    """Appends events. Each line is written in one call and flushed, so a kill can cut at most the last line."""

    def __init__(self, path: Path) -> None:
        self._file = None
        if dist.is_main():
            _end_cut_line(path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, **facts: Any) -> None:
        if self._file is not None:
            line = {"event": event, "time": round(time.time(), 3), "step": step, **json_ready(facts)}
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _end_cut_line(path: Path) -> None:
    """A process killed while writing leaves half a line; end it, so the next event starts on a line of its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def log_to(path: Path) -> logging.Handler:
    """Copy every log line into the run's training.log; returns the handler so that the caller can remove it."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    return handler
