"""Why the processes of a run ended: from the run's own words where there are any."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyworld.core.errors import EXIT_HUNG
from tinyworld.core.journal_lines import Record
from tinyworld.supervisor.processes import Ended, log_of

LATE = Path("ranks") / "late.json"
"""Written when a rank hung; its `text` says which one and where."""
END_OF_LOG = 8192
MOST_CHARACTERS = 600
TRACE_OF_THIS_TIME = (
    (r"0x[0-9a-fA-F]+", "N"),
    (r"(?<![\w.])~?\.{0,2}(/[\w.@%+=:-]+)+/?", "PATH"),
    (r"\d+(\.\d+)?", "N"),
)
"""What differs between two occurrences of the same trouble."""


@dataclass(frozen=True)
class Cause:
    """How the processes ended, and the run's own words about it ("" when it left none)."""

    ended: str
    message: str

    def __str__(self) -> str:
        message = self.message[:MOST_CHARACTERS] + " …" * (len(self.message) > MOST_CHARACTERS)
        return f"{self.ended}: {message}" if message else self.ended

    @property
    def kind(self) -> str:
        """The same for two occurrences of the same trouble: digits, addresses and paths are masked."""
        message = self.message
        for pattern, stands_for in TRACE_OF_THIS_TIME:
            message = re.sub(pattern, stands_for, message)
        return f"{self.ended}: {message}"


def find_cause(folder: Path, ended: Ended, events: Sequence[Record], since: float) -> Cause:
    """The cause of an end. events: what this life wrote into the journal. since: when it began, seconds since 1970.

    A rank other than 0 that failed by itself says more in its own output than rank 0, which only saw it go.
    """
    words = ended.words if ended.rank == 0 else f"rank {ended.rank}: {ended.words}"
    own = _last_line(log_of(folder, ended.rank), since) if ended.rank and 0 < ended.code != EXIT_HUNG else ""
    return Cause(words, own or _late(folder / LATE, since) or _last_word(events))


def _last_word(events: Sequence[Record]) -> str:
    stops = [event for event in events if event["event"] == "stop"]
    return str(stops[-1].get("message") or "").strip() if stops else ""


def _late(path: Path, since: float) -> str:
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_mtime >= since else None
    except (OSError, ValueError):
        return ""
    return str(found.get("text") or "").strip() if isinstance(found, dict) else ""


def _last_line(path: Path, since: float) -> str:
    """The last line of a log that was written to since then; of a traceback it is the error."""
    try:
        if path.stat().st_mtime < since:
            return ""
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - END_OF_LOG, 0))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
