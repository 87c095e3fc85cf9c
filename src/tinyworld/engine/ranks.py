"""Signs of life: the last words of each rank in run/ranks/rank-K.json, and what this host knows of a process.

Ages compare the times that the file system gave to the files, never the clocks of two hosts. A rank is called silent only
after its file stayed as it was while one waited for it, so that a clock that jumps accuses nobody.
"""

import functools
import json
import os
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

Condition = Literal["runs", "stopped", "gone", "elsewhere"]


@dataclass(frozen=True)
class Sign:
    """What a rank said last. `seconds` in its phase are those when it wrote; `age` is how much older the file is than now."""

    rank: int
    host: str
    pid: int
    pid_space: str
    phase: str
    step: int
    ids: list[str]
    ids_total: int
    seconds: float
    startup: bool
    closed: bool
    time: str
    written_ns: int = 0
    age: float = 0.0

    @property
    def since(self) -> float:
        """Seconds in the phase, as far as one can tell from outside."""
        return self.seconds + self.age


def sign_path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


@functools.cache
def here() -> tuple[str, str]:
    """This host's name and its space of process ids: containers may share a name and still number apart."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (not a path, a name like pid:[4026531836])
    except OSError:
        space = ""
    return socket.gethostname(), space


def wall_time() -> str:
    """The time of day with its zone, for people only."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def replace_file(path: Path, rank: int, text: str) -> None:
    """Replace a file in one step, without fsync: it has to be seen by the living, not to outlast a power cut."""
    staging = staging_path(path, rank)
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)


def staging_path(path: Path, rank: int) -> Path:
    return path.with_name(f".{path.name}-{rank}")


def clear_sign(folder: Path, rank: int) -> None:
    """Remove what an earlier life of this rank left. Raises OSError when it cannot."""
    path = sign_path(folder, rank)
    path.unlink(missing_ok=True)
    staging_path(path, rank).unlink(missing_ok=True)


def write_sign(folder: Path, sign: Sign) -> None:
    """Raises OSError when the folder cannot be written."""
    facts = asdict(sign)
    del facts["written_ns"], facts["age"]
    replace_file(sign_path(folder, sign.rank), sign.rank, json.dumps(facts, ensure_ascii=False) + "\n")


def read_json(path: Path) -> tuple[dict[str, Any], int] | None:
    """An object and its file's time in ns; None for what is not there, not readable or not an object.

    The file is opened before it is asked for its time: on NFS that is what makes the answer fresh.
    """
    try:
        with path.open(encoding="utf-8") as file:
            facts, written = json.load(file), os.fstat(file.fileno()).st_mtime_ns
    except (OSError, ValueError):
        return None
    return (facts, written) if isinstance(facts, dict) else None


def read_signs(folder: Path, ranks: Collection[int]) -> dict[int, Sign]:
    """The signs of the ranks that have one, ages not yet set."""
    signs = {}
    for rank in ranks:
        found = read_json(sign_path(folder, rank))
        if found is not None:
            try:
                signs[rank] = Sign(**found[0], written_ns=found[1])
            except TypeError:  # of another version of tinyworld
                continue
    return signs


def with_ages(signs: Mapping[int, Sign], own: int) -> dict[int, Sign]:
    """Ages against this rank's own fresh sign, or the newest one where this rank cannot write.

    May be negative after a clock was set back.
    """
    if not signs:
        return {}
    now = signs[own].written_ns if own in signs else max(sign.written_ns for sign in signs.values())
    return {rank: replace(sign, age=(now - sign.written_ns) / 1e9) for rank, sign in signs.items()}


def condition(sign: Sign) -> Condition:
    """What this host knows of the process. A dead one that nobody has waited for yet is gone, too."""
    if (sign.host, sign.pid_space) != here():
        return "elsewhere"
    try:
        os.kill(sign.pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    try:
        state = (
            Path(f"/proc/{sign.pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    except (OSError, IndexError):
        return "runs"  # no /proc (macOS)
    return "gone" if state in "ZX" else "stopped" if state in "Tt" else "runs"


def without_new_sign(folder: Path, signs: dict[int, Sign], doubtful: Collection[int], patience: float) -> set[int]:
    """Wait until each doubtful rank has written again or is gone, at most `patience` seconds; returns those that did not.

    `signs` is brought up to date on the way.
    """
    waiting = set(doubtful)
    deadline = time.monotonic() + patience
    while waiting and time.monotonic() < deadline:
        time.sleep(patience / 20)
        for rank, sign in read_signs(folder, waiting).items():
            known = signs.get(rank)
            if known is None or sign.written_ns != known.written_ns:
                signs[rank] = sign
                waiting.discard(rank)
        if any(rank in signs and not signs[rank].closed and condition(signs[rank]) == "gone" for rank in waiting):
            break  # certain now; the others are no longer of interest
    return waiting
