"""Jobs and their folders. Every path is made here, of names that are drawn or fixed; nothing of a request becomes one.

FOLDER/
  service.lock        held by the service that uses the folder
  k3J…22 letters…/    one job, by its identifier, which is drawn at random
    job.json          everything about it; written last, so that a folder without it was never submitted
    upload            the file that was sent, under this name whatever its own; gone when the job has ended
    files/            the results, under the names in `RESULTS`
"""

import fcntl
import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import ConfigError
from tinyworld.core.files import write_json

Kind = Literal["reconstruct", "lift", "generate"]
State = Literal["queued", "running", "done", "failed", "interrupted"]
STATES = ("queued", "running", "done", "failed", "interrupted")
ENDED = ("done", "failed", "interrupted")
RESULTS = {
    "reconstruction.mp4": "video/mp4",
    "video.mp4": "video/mp4",
    "depth.mp4": "video/mp4",
    "cloud.ply": "application/octet-stream",
    "scene.zip": "application/zip",
}
"""Every name under which a result can be fetched, and its type."""
LOCK, UPLOAD, FILES, RECORD = "service.lock", "upload", "files", "job.json"
IDENTIFIER_BYTES = 16
LEAST_BYTES = 2**15
"""That a job counts for beside its files, so that the limit on the disk is one on the number of jobs as well."""
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{22}")
"""Of a job: 16 random bytes in base64's letters for addresses."""


@dataclass
class Job:
    """One request. number: in the order of arrival. request: what is to be done, checked. name: what the sender calls the file;
    for people's eyes alone. owner: digest of the browser that sent it, "" for other clients. created, started, ended: seconds of
    the clock, None before. progress: steps done and steps in all, None where they are not counted. result: numbers and facts."""

    id: str
    number: int
    kind: Kind
    request: dict[str, Any]
    name: str
    owner: str
    created: float
    state: State = "queued"
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    progress: tuple[int, int] | None = None
    bytes: int = 0


SAVED = (
    "number",
    "kind",
    "request",
    "name",
    "owner",
    "created",
    "state",
    "started",
    "ended",
    "error",
    "result",
    "files",
)


class Shelf:
    """The folder of a service. Raises ConfigError where another service uses it, or it holds something else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"--folder {folder} is a file. Give the service a folder of its own.")
        if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / LOCK).is_file():
            raise ConfigError(
                f"--folder {folder}: there is something there that is not a service's, and a service removes what is old in its "
                "folder. Give it a folder of its own."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked(folder)

    def _locked(self, given: Path) -> IO[str]:
        lock = (self.folder / LOCK).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ConfigError(
                f"--folder {given} is in use by another service. Stop that one, or give another folder."
            ) from None
        return lock

    def close(self) -> None:
        """Let another service have the folder."""
        self._lock.close()

    def new(self) -> str:
        """The identifier of a job whose folder is there, empty, for this user alone."""
        while True:
            drawn = secrets.token_urlsafe(IDENTIFIER_BYTES)
            try:
                self.place(drawn).mkdir(mode=0o700)
            except FileExistsError:
                continue
            return drawn

    def place(self, identifier: str) -> Path:
        """The folder of a job. Raises ValueError for what `new` cannot have drawn."""
        if not IDENTIFIER.fullmatch(identifier):
            raise ValueError("no identifier of a job")
        return self.folder / identifier

    def upload(self, identifier: str) -> Path:
        return self.place(identifier) / UPLOAD

    def result(self, job: Job, name: str) -> Path | None:
        """The file that holds a result of a job; None where there is none of that name."""
        for known in RESULTS:
            if known == name and known in job.files:
                return self.place(job.id) / FILES / known
        return None

    def save(self, job: Job) -> None:
        write_json(self.place(job.id) / RECORD, {key: getattr(job, key) for key in SAVED})

    def measure(self, identifier: str) -> int:
        """Bytes that a job takes on the disk, and `LEAST_BYTES`; files may go while they are counted."""
        total = LEAST_BYTES
        for parent, _, names in os.walk(self.place(identifier)):
            for name in names:
                try:
                    total += os.lstat(f"{parent}/{name}").st_size
                except FileNotFoundError:
                    continue
        return total

    def tidy(self, job: Job) -> None:
        """Of a job that has ended, leave the record and the results that are to be fetched."""
        place = self.place(job.id)
        for path in place.iterdir():
            if path.is_dir() and not (path.name == FILES and job.files):
                shutil.rmtree(path)
            elif path.is_file() and path.name != RECORD:
                path.unlink()

    def remove(self, identifier: str) -> None:
        """The folder of a job, and all in it. The record goes first: what is left by a kill was never submitted."""
        place = self.place(identifier)
        (place / RECORD).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)

    def load(self) -> list[Job]:
        """The jobs of an earlier service in this folder, in their order; what was never submitted whole is removed."""
        jobs = []
        for place in self.folder.iterdir():
            if not IDENTIFIER.fullmatch(place.name) or place.is_symlink() or not place.is_dir():
                continue
            job = _read(place)
            if job is None:
                self.remove(place.name)
                continue
            job.bytes = self.measure(job.id)
            jobs.append(job)
        return sorted(jobs, key=lambda job: job.number)


def _read(place: Path) -> Job | None:
    try:
        told = json.loads((place / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        LOGGER.warning("%s is removed: its %s cannot be read (%s)", place, RECORD, error)
        return None
    if not isinstance(told, dict) or set(told) != set(SAVED) or told["state"] not in STATES:
        LOGGER.warning("%s is removed: its %s is not of this version", place, RECORD)
        return None
    return Job(id=place.name, **told)
