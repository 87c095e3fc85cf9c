"""What filling a cache is for either family: the share of each process, its progress, and what it did.

Any number of processes may work on one folder. Those of a torchrun share the entries between them. Those started by hand
go through all of them, each from a place of its own, and skip what another has made meanwhile. One that is killed leaves
whole entries only; the next goes on.
"""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tinyworld.core import dist
from tinyworld.core.console import CONSOLE, LOGGER
from tinyworld.core.errors import UserError
from tinyworld.core.rng import derive_seed
from tinyworld.data.video_digests import VideoDigests

REPORTS = 20
"""Lines about the progress in a log file, where no bar is drawn."""
Entry = TypeVar("Entry")


@dataclass
class Filled:
    """What a process did with its share: entries that were there, that it made (and their bytes) or found made by others,
    that it removed; videos that could not be read, with the reason."""

    there: int = 0
    made: int = 0
    by_others: int = 0
    bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def share(entries: Sequence[Entry]) -> list[Entry]:
    """What falls to this process of a torchrun; everything without one."""
    rank, world = dist.rank(), dist.world_size()
    return list(entries[len(entries) * rank // world : len(entries) * (rank + 1) // world])


def from_own_place(entries: list[Entry]) -> list[Entry]:
    """The same, beginning elsewhere in each process, so that two of them do not race for the same entries."""
    if dist.world_size() > 1:
        return entries
    start = derive_seed("place", socket.gethostname(), os.getpid()) % max(1, len(entries))
    return entries[start:] + entries[:start]


def tell_progress(on_progress: Callable[[int, int], None], before: int, seen: int, total: int, what: str) -> None:
    """Move the bar from `before` to `seen`; where none is drawn, a line now and then. what: is counted, in the plural."""
    on_progress(seen, total)
    if not CONSOLE.is_terminal and seen * REPORTS // total > before * REPORTS // total:
        LOGGER.info("%d of %d %s", seen, total, what)


def set_aside(video: Path, error: UserError, videos: VideoDigests, done: Filled) -> None:
    """Count a video that cannot be read, and have the cache remember it; said once for all of its cuts."""
    if str(video) not in done.faults:
        LOGGER.warning("%s: %s; its latents are left out", video, error)
        videos.mark(video, str(error))
    done.faults[str(video)] = str(error)
