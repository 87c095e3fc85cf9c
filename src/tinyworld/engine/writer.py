"""Checkpoints written beside the training, by all ranks together, complete or absent.

`save` hands copies to a background thread and returns. The threads use no collectives, which would get between those of
the training: ranks meet through files in the staging folder, on the file system that they share. Rank 0 makes the folder;
every rank writes its part there, makes it durable and leaves a marker with sizes and SHA-256; when all markers are there,
rank 0 writes the manifest, reads everything back, renames the folder, sets the links, prunes, and tells the others.

Every wait is bounded: by the time-out, counted from the last change in the staging folder, and by a few seconds once
the process is about to end, so that a process with an error does not live on for a rank that is gone.
"""

import contextlib
import json
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch

from tinyworld.core import dist, files
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import DISK_FULL, CheckpointError
from tinyworld.engine import checkpoint
from tinyworld.engine.checkpoint import STATE

T = TypeVar("T")
Entries = dict[str, dict[str, Any]]
"""Relative name → bytes and sha256, as in a manifest."""
LAST_GRACE = 10.0
"""Seconds without a change that a thread still waits for other ranks once its process is about to end."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between two looks for what another rank leaves."""


@dataclass(frozen=True)
class Contents:
    """What one rank adds to a checkpoint: closures and tensors over copies in main memory that training does not touch.

    files: relative name → writes that file; of rank 0. states: NAME → state/NAME.pt; of rank 0. rank_states: NAME →
    state/NAME-rank<k>.pt; of each rank.
    """

    files: dict[str, Callable[[Path], None]]
    states: dict[str, Any]
    rank_states: dict[str, Any]


@dataclass(frozen=True)
class Saved:
    """A published checkpoint. seconds: from the hand-over until all was done."""

    step: int
    path: Path
    bytes: int
    seconds: float


@dataclass
class _Job:
    """One checkpoint on its way."""

    step: int
    final: Path
    staging: Path
    began: float
    error: CheckpointError | None = None

    def marker(self, rank: int) -> Path:
        """What a rank leaves when its part is written, or cannot be."""
        return self.staging / f".rank-{rank}.json"

    def outcome(self, rank: int) -> Path:
        """What rank 0 tells another at the end, beside the staging folder, which is gone then."""
        return self.staging.with_name(f"{self.staging.name}-outcome-{rank}")


class Writer:
    """Writes the checkpoints of a run. Every rank makes one and calls `save` and `wait` at the same places.

    run: the run folder, on a file system that all ranks share. keep: how many complete ones stay (0: all). background:
    whether `save` returns before the checkpoint is written. timeout: seconds that a rank waits for another that shows no
    change.
    """

    def __init__(self, run: Path, keep: int, background: bool, timeout: float) -> None:
        self._run, self._keep, self._background, self._timeout = run, keep, background, timeout
        self._rank, self._world = dist.rank(), dist.world_size()
        self._owner = dist.from_main(f"w{uuid4().hex[:8]}")
        self._count = 0
        self._job: _Job | None = None
        self._thread: threading.Thread | None = None
        self._told = False
        self._saved: list[Saved] = []
        self._closing = False

    def save(self, step: int, contents: Contents, fingerprint: dict[str, Any]) -> None:
        """Write checkpoint-`step`, once the one before it is written.

        Raises CheckpointError, on every rank, when the one before could not be written, or this one when it is not
        written in the background. Nothing appears then, and the next `save` begins anew.
        """
        self.wait()
        self._count += 1  # not the step alone: after going back, a step is saved again
        final = self._run / f"checkpoint-{step}"
        staging = files.staging_path(final, f"{self._owner}.{self._count}")
        self._job = _Job(step, final, staging, time.monotonic())
        if self._background:
            self._thread = threading.Thread(target=self._work, args=(self._job, contents, fingerprint), name=final.name)
            self._thread.start()
        else:
            self._work(self._job, contents, fingerprint)
            self.wait()

    def finished(self) -> list[Saved]:
        """Rank 0: what was published since the last call. Never blocks."""
        count = len(self._saved)  # the thread may add one meanwhile
        saved, self._saved[:count] = self._saved[:count], []
        return saved

    def failed(self) -> CheckpointError | None:
        """Why the checkpoint that was handed over last could not be written, until `wait` raises it. Never blocks. The caller
        has to tell it: `close` does not any more."""
        error = self._job.error if self._job is not None else None
        self._told = self._told or error is not None
        return error

    def wait(self) -> None:
        """Until nothing is on its way. Raises CheckpointError, on every rank, when the last one could not be written."""
        if self._thread is not None:
            self._thread.join()
        job, self._job, self._thread = self._job, None, None
        if job is not None and job.error is not None:
            _let_go(job.error)
            raise job.error

    def close(self) -> None:
        """Let a write that is going on end, however the run ends: without patience for ranks that show no change, and
        without raising; what failed is in the log."""
        self._closing = True
        try:
            self.wait()
        except CheckpointError as error:
            if self._rank == 0 and not self._told:  # the others have it from rank 0
                LOGGER.error("%s", error)

    def _work(self, job: _Job, contents: Contents, fingerprint: dict[str, Any]) -> None:
        try:
            if self._rank == 0:
                self._lead(job, contents, fingerprint)
            else:
                self._follow(job, contents)
        except Exception as error:  # noqa: BLE001 - a file system that fails even while its failure is dealt with
            job.error = _error(f"{job.final.name} was perhaps not written: {type(error).__name__}: {error}", error)

    def _lead(self, job: _Job, contents: Contents, fingerprint: dict[str, Any]) -> None:
        """Rank 0, from the staging folder to the last word."""
        size = 0
        try:
            (job.staging / STATE).mkdir(parents=True)
            entries = self._write(job, contents) | self._others(job)
            size = self._publish(job, entries, {"step": job.step, "fingerprint": fingerprint})
        except Exception as error:  # noqa: BLE001 - raised by wait(), in the main thread
            job.error = self._explained(job, contents, error)
            with contextlib.suppress(OSError):  # what cannot be removed now is removed at the next start
                files.remove_folder(job.staging)
        told = {"error": None} if job.error is None else {"error": str(job.error), "full": not job.error.passing}
        try:
            for rank in range(1, self._world):
                files.write_json(job.outcome(rank), told)
        except OSError as error:  # they hear nothing and give up by themselves
            job.error = job.error or _error(
                f"{job.final.name} is written, but other ranks cannot be told: {error}", error
            )
        if job.error is None:
            seconds = round(time.monotonic() - job.began, 3)
            self._saved.append(Saved(job.step, job.final, size, seconds))

    def _follow(self, job: _Job, contents: Contents) -> None:
        """Any other rank: its part, its marker, then what rank 0 says of the whole."""
        outcome, within = job.outcome(self._rank), f"within {self._timeout:g} s"
        if self._until(lambda: (job.staging / STATE).is_dir() or outcome.exists() or None, job) is None:
            job.error = _error(f"{job.final.name} was not written: rank 0 did not begin with it {within}.")
            return
        left: dict[str, Any] = {"files": {}, "error": None}
        own: CheckpointError | None = None
        try:
            left["files"] = self._write(job, contents)
        except Exception as error:  # noqa: BLE001 - told to rank 0, and raised by wait()
            own = self._explained(job, contents, error)
            left |= {"error": str(own), "full": not own.passing}
        with contextlib.suppress(OSError):  # the folder is gone when rank 0 has given up, and its outcome says why
            files.write_json(job.marker(self._rank), left)
        # twice as patient as rank 0, so that its word on a rank that is missing comes before this one gives up
        told = self._until(lambda: _read(outcome), job, patience=2)
        outcome.unlink(missing_ok=True)
        if told is None:
            job.error = own or _error(f"{job.final.name} was perhaps not written: no word came from rank 0 {within}.")
        elif told["error"] is not None:
            job.error = _error(told["error"], own, told["full"])

    def _write(self, job: _Job, contents: Contents) -> Entries:
        """This rank's part, durable. After an error its files are gone: a full disk needs room for the marker."""
        parts: dict[str, Callable[[Path], None]] = {}
        for name, state in contents.rank_states.items():
            parts[f"{STATE}/{name}-rank{self._rank}.pt"] = partial(torch.save, state)
        if self._rank == 0:
            parts |= {f"{STATE}/{name}.pt": partial(torch.save, state) for name, state in contents.states.items()}
            parts |= contents.files
        entries: Entries = {}
        try:
            for name, write in parts.items():
                write(job.staging / name)
                entries[name] = files.settled(job.staging / name)
        except Exception:
            for name in parts:
                with contextlib.suppress(OSError):
                    (job.staging / name).unlink()
            raise
        return entries

    def _others(self, job: _Job) -> Entries:
        """Rank 0: the parts of all other ranks, as their markers name them."""
        missing = set(range(1, self._world))
        found: dict[int, dict[str, Any]] = {}

        def complete() -> bool | None:
            for rank in sorted(missing):
                marker = _read(job.marker(rank))
                if marker is not None:
                    found[rank] = marker
                    missing.discard(rank)
            return True if not missing or any(marker["error"] for marker in found.values()) else None

        if self._until(complete, job) is None:
            names = ", ".join(f"rank {rank}" for rank in sorted(missing))
            raise CheckpointError(
                f"{job.final.name} was not written: no part came from {names} within {self._timeout:g} s "
                "(parallel.step_timeout). The log of that process says what it does; if it is only slow, raise the time-out."
            )
        for marker in found.values():
            if marker["error"]:
                raise _error(marker["error"], full=marker["full"])
        return {name: entry for marker in found.values() for name, entry in marker["files"].items()}

    def _publish(self, job: _Job, entries: Entries, about: dict[str, Any]) -> int:
        """Manifest, verification, name, links, pruning; bytes of the whole."""
        for rank in range(1, self._world):
            job.marker(rank).unlink()
        files.seal(job.staging, entries, about)
        for name in entries:
            files.drop_cached(job.staging / name)
        problems = files.verify_folder(job.staging)
        if problems:
            shown = "; ".join(problems[:3]).replace(job.staging.name, job.final.name)
            raise CheckpointError(
                f"{job.final.name} reads back otherwise than it was written: {shown}. Check the disk."
            )
        size = checkpoint.size_of(job.staging)
        files.publish(job.staging, job.final)
        try:
            checkpoint.link(job.final)
        except OSError as error:
            raise CheckpointError(f"{job.final.name} is written, but cannot be linked as latest: {error}") from error
        try:
            checkpoint.prune(self._run, self._keep, verified=job.final)
        except OSError as error:  # no reason to end a run: the next one tries again
            LOGGER.warning("warning: an old checkpoint could not be removed: %s", error)
        return size

    def _until(self, look: Callable[[], T | None], job: _Job, patience: int = 1) -> T | None:
        """What `look` finds; None when nothing changed in the staging folder for `patience` time-outs."""
        seen, since, pause = _trace(job.staging), time.monotonic(), SHORTEST_PAUSE
        while (found := look()) is None:
            now = _trace(job.staging)
            if now != seen:
                seen, since = now, time.monotonic()
            ending = self._closing or not threading.main_thread().is_alive()
            limit = min(self._timeout, LAST_GRACE) if ending else self._timeout
            if time.monotonic() - since > patience * limit:
                return None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return found

    def _explained(self, job: _Job, contents: Contents, error: Exception) -> CheckpointError:
        """The error as a paragraph. A full disk is known by the error where it says so (torch's does not), or by the room."""
        if isinstance(error, CheckpointError):
            return error
        _let_go(error)
        which = f"{job.final.name} was not written"
        which += f" (rank {self._rank})" if self._world > 1 else ""
        before = checkpoint.listing(self._run)
        known = checkpoint.tensor_bytes([contents.states, contents.rank_states])
        need = max(known, _size(job.staging), _size(before[-1]) if before else 0)
        try:
            room = checkpoint.free_bytes(self._run) + _size(job.staging)
        except OSError:  # the disk itself is gone
            room = need
        if not _says_full(error) and room >= need:
            text = str(error).replace(job.staging.name, job.final.name)
            return _error(f"{which}: {type(error).__name__}: {text}", error)
        free = checkpoint.size_text(room)
        numbers = (
            f"at least {checkpoint.size_text(need)}, {free} are free" if room < need else f"more than the {free} left"
        )
        return _error(
            f"{which}: the disk of {self._run} is full. A checkpoint needs {numbers}. Make room, lower "
            f"checkpoint.checkpoints_total_limit (now {self._keep}), or set run.output_dir to a folder on a larger disk.",
            error,
            full=True,
        )


def _let_go(error: BaseException | None) -> None:
    """Close what the functions that failed have open, and free what they hold: a removed file keeps its room on the disk
    as long as it is open, and the error's traceback would keep it so."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _error(message: str, cause: Exception | None = None, full: bool = False) -> CheckpointError:
    """full: the disk, which somebody has to make room on; anything else may be gone at the next try."""
    error = CheckpointError(message)
    error.passing = not full
    error.__cause__ = cause
    return error


def _says_full(error: Exception) -> bool:
    return getattr(error, "errno", None) in DISK_FULL or any(f"os error {code})" in str(error) for code in DISK_FULL)


def _read(file: Path) -> dict[str, Any] | None:
    """JSON that another rank has left; None while there is none."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _trace(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes below a folder; changes while anyone writes there."""
    with contextlib.suppress(OSError):  # files come and go
        return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))
    return []


def _size(folder: Path) -> int:
    return sum(size for _, size in _trace(folder))
