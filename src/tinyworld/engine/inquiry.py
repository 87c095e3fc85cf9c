"""One verdict for all ranks about the one that is late or missing, found from the signs of life. No collectives."""

import json
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinyworld.core.files import json_ready
from tinyworld.engine import lateness, ranks
from tinyworld.engine.lateness import Limits
from tinyworld.engine.ranks import Sign

LATE = "late.json"
MISSING = "missing.json"
READING = 30.0
"""Seconds granted for reading a thousand small files from slow storage, before a rank goes by what it knows itself."""
QUIET_PERIODS = 4
"""A rank whose sign is older than this many periods is doubted; one whose sign then stays as it is for as long is silent."""


class Inquiry:
    """Asked by one rank. `period` is the seconds between two signs of a rank."""

    def __init__(
        self, folder: Path, own: int, world: int, limits: Limits, collective: Collection[str], period: float
    ) -> None:
        self.folder, self.own, self.world = folder, own, world
        self.limits, self.collective = limits, collective
        self.quiet = QUIET_PERIODS * period
        self.patience = READING + self.quiet

    def clear(self) -> None:
        """Forget the verdicts of an earlier life. Raises OSError when they cannot be removed."""
        for path in (self.folder / LATE, self.folder / MISSING):
            path.unlink(missing_ok=True)
            ranks.staging_path(path, self.own).unlink(missing_ok=True)

    def is_decided(self) -> bool:
        """Whether some rank was found late."""
        return ranks.read_json(self.folder / LATE) is not None

    def late(self, own: Sign, written: bool) -> dict[str, Any]:
        """Who holds up the run, asked by a rank whose time is up; `written` says whether the others can see its sign."""
        return self._decide(LATE, lambda: self._judge(own, written))

    def missing(self, own: Sign, written: bool) -> dict[str, Any]:
        """Who died, stopped or left; `text` is empty when all live."""
        return self._decide(MISSING, lambda: self._search(own, written))

    def _signs(self, written: bool) -> tuple[dict[int, Sign], int]:
        """What there is to read, and the number of ranks that one can speak of: where nothing can be read, only oneself."""
        found = ranks.read_signs(self.folder, range(self.world))
        if not written:
            found.pop(self.own, None)
        return ranks.with_ages(found, self.own), self.world if found else 1

    def _judge(self, own: Sign, written: bool) -> dict[str, Any]:
        signs, world = self._signs(written)
        doubtful = [rank for rank, sign in signs.items() if not sign.closed and not -self.quiet < sign.age < self.quiet]
        silent = ranks.without_new_sign(self.folder, signs, doubtful, self.quiet)
        finding = lateness.late({**signs, self.own: own}, silent, world, self.own, self.collective)
        return lateness.facts(finding, own, lateness.paragraph(finding, own, self.limits, self.folder))

    def _search(self, own: Sign, written: bool) -> dict[str, Any]:
        signs, world = self._signs(written)
        signs[self.own] = signs.get(self.own, own)
        finding = lateness.lost(signs, (), world)
        if finding is None or finding.reason == "absent":
            doubtful = [
                rank for rank in range(world) if rank != self.own and not (rank in signs and signs[rank].closed)
            ]
            silent = ranks.without_new_sign(self.folder, signs, doubtful, self.quiet)
            finding = lateness.lost(signs, silent, world) or lateness.left(signs)
        return lateness.facts(finding, own, lateness.verdict(finding)) if finding else {"text": ""}

    def _decide(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The first rank to create the file does the work, the others wait for it and quote it."""
        path = self.folder / name
        with suppress(OSError):  # a folder that cannot be written: each rank says what it knows itself
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                quoted = self._quoted(path)
                if quoted is not None:
                    return quoted
        facts = work()
        with suppress(OSError):
            ranks.replace_file(path, self.own, json.dumps(json_ready(facts), indent=2, ensure_ascii=False) + "\n")
        return facts

    def _quoted(self, path: Path) -> dict[str, Any] | None:
        """What the rank that came first has found; None when it died over it."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            found = ranks.read_json(path)
            if found is not None:
                return found[0]
            time.sleep(min(self.quiet / QUIET_PERIODS, 0.5))
        return None
