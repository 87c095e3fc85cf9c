"""Lines of a run's journal: one reader that forgives what a kill cut, and one writer for between two processes.

A line is a JSON object with event, step and time (seconds since 1970); `engine/journal.py` writes them while training.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import IO, Any

from tinyworld.core.files import json_ready

JOURNAL = "journal.jsonl"
Record = dict[str, Any]


def number(value: Any) -> float | None:
    """A finite number, or None for everything else (null, NaN, text)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def read_lines(path: Path) -> tuple[list[Record], int]:
    """(events in order, number of lines that are none). Each event has a text `event` and a whole `step`.

    Raises OSError when there is no journal to read.
    """
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    records = [record for line in lines if (record := _record(line)) is not None]
    return records, len(lines) - len(records)


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("event"), str) or number(record.get("step")) is None:
        return None
    return record | {"step": int(record["step"])}


def encoded(event: str, step: int, **facts: Any) -> tuple[Record, bytes]:
    """One event, now, and the line that it makes."""
    record = {"event": event, "time": round(time.time(), 3), "step": step, **json_ready(facts)}
    return record, json.dumps(record, ensure_ascii=False).encode() + b"\n"


def append_line(path: Path, event: str, step: int, **facts: Any) -> Record:
    """Add one event to a journal that no process of the run has open, and return it."""
    record, line = encoded(event, step, **facts)
    with opened(path) as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return record


def opened(path: Path) -> IO[bytes]:
    """The journal to append to. A last line that a kill has cut is ended, so that the next event has one of its own."""
    file = path.open("ab+")
    size = file.seek(0, os.SEEK_END)
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        file.write(b"\n")
    return file
