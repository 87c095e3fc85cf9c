"""Several runs to be looked at together: each with one name, one letter and one colour for the whole page."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyworld.core.errors import ConfigError
from tinyworld.report.metrics import family
from tinyworld.report.read import Run, read_run

LETTERS = "ABCDEFGH"
"""One for each run; the page has as many colours."""
PAGE = "report-compare.html"


@dataclass(frozen=True)
class Entry:
    """One run of a comparison. name: its path below the folder that all runs share. place: 0 for the first that was given."""

    run: Run
    name: str
    place: int

    @property
    def letter(self) -> str:
        return LETTERS[self.place]


def read_together(folders: Sequence[str | Path]) -> list[Entry]:
    """Read two runs or more, in the order given.

    Raises MissingFileError for a folder that holds no run; ConfigError for a run given twice, for more runs than LETTERS and for
    runs of different tasks, whose numbers mean different things.
    """
    if len(folders) > len(LETTERS):
        raise ConfigError(
            f"{len(folders)} runs were given, and a page compares at most {len(LETTERS)}: more curves cannot be told apart. "
            "Give fewer, or write a page for each group of them."
        )
    paths = [Path(folder).expanduser() for folder in folders]
    real = [path.resolve() for path in paths]
    twice = next((path for path in paths if real.count(path.resolve()) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} was given more than once. Give each run once.")
    runs = [read_run(path) for path in paths]
    together = common_parent(real)
    entries = [
        Entry(run, path.relative_to(together).as_posix(), place)
        for place, (run, path) in enumerate(zip(runs, real, strict=True))
    ]
    _check_one_family(entries)
    return entries


def common_parent(folders: Sequence[Path]) -> Path:
    """The nearest folder that holds all of them."""
    return Path(os.path.commonpath([path.resolve().parent for path in folders]))


def family_of(entries: Sequence[Entry]) -> str:
    """The family of all runs: that of the first whose config.yaml names its task."""
    known = [entry.run for entry in entries if "task" in entry.run.config]
    return family(known[0] if known else entries[0].run)


def _check_one_family(entries: Sequence[Entry]) -> None:
    """A run whose config.yaml is lost goes with the others."""
    kinds: dict[str, list[Entry]] = {}
    for entry in entries:
        if "task" in entry.run.config:
            kinds.setdefault(family(entry.run), []).append(entry)
    if len(kinds) > 1:
        told = "; ".join(f"{kind}: {', '.join(entry.name for entry in found)}" for kind, found in kinds.items())
        largest = max(kinds.values(), key=len)
        raise ConfigError(
            f"These runs are of different tasks, whose losses and metrics mean different things ({told}). Compare runs of one "
            f"task at a time, for example: tinyworld report {' '.join(str(entry.run.folder) for entry in largest)}"
        )
