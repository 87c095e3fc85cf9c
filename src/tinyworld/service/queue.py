"""Jobs one after another, in the order of arrival, and what becomes of those that end, wait, take too long or grow old."""

import threading
import time
from dataclasses import replace
from typing import Any

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import DISK_FULL, UserError
from tinyworld.service.jobs import ENDED, Job, Kind, Shelf, State
from tinyworld.service.limits import Limits
from tinyworld.service.refusals import Busy, DiskFull, NotThere
from tinyworld.service.worker import Message, Worker

LOOK_SECONDS = 0.2
"""Between looks at a running job."""
SWEEP_SECONDS = 60.0
"""Between looks for jobs that are too old."""
INTERRUPTED = "The service was stopped while it worked on this job. Send it again."


class Queue:
    """One service's jobs. patience: seconds that a job which is no longer wanted has to end by itself.

    grace: seconds that the running job has at the end of the service. All methods may be called from any thread.
    """

    def __init__(
        self, shelf: Shelf, worker: Worker, limits: Limits, patience: float = 3.0, grace: float = 10.0
    ) -> None:
        self.shelf, self.worker, self.limits, self.patience, self.grace = shelf, worker, limits, patience, grace
        self._jobs: dict[str, Job] = {}
        self._uploading: dict[str, int] = {}
        self._running: Job | None = None
        self._ending: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="jobs")
        for job in shelf.load():
            self._jobs[job.id] = job
            if job.state == "running":
                self._end(job, "interrupted", INTERRUPTED)
        self._numbers = max((job.number for job in self._jobs.values()), default=0)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the service: nothing new is taken, the running job has `grace` seconds, waiting ones keep their places."""
        with self._changed:
            self._ending = time.monotonic() + self.grace
            self._changed.notify_all()
        self._thread.join()
        self.worker.kill()

    def reserve(self) -> str:
        """A place in the queue, and a folder for the upload. Raises Busy and DiskFull. Must be followed by `submit` or `drop`."""
        with self._changed:
            if self._ending is not None:
                raise Busy("The service is about to end. Try again when it is back.")
            waiting = len(self._uploading) + sum(job.state == "queued" for job in self._jobs.values())
            if waiting >= self.limits.max_queue:
                raise Busy(f"{waiting} jobs wait already, as many as this service lets (--max_queue). Try again later.")
            self._check_disk(0)
            identifier = self.shelf.new()
            self._uploading[identifier] = 0
            return identifier

    def grew(self, identifier: str, count: int) -> None:
        """An upload has `count` bytes more. Raises DiskFull."""
        with self._changed:
            self._check_disk(count)
            self._uploading[identifier] += count

    def drop(self, identifier: str) -> None:
        """An upload that came to nothing."""
        with self._changed:
            if identifier not in self._uploading:  # submitted: only the answer was lost
                return
            del self._uploading[identifier]
        self.shelf.remove(identifier)

    def submit(self, identifier: str, kind: Kind, request: dict[str, Any], name: str, owner: str) -> Job:
        """Put a reserved place's job into the queue; a copy of it."""
        with self._changed:
            self._numbers += 1
            job = Job(identifier, self._numbers, kind, request, name, owner, time.time())
            job.bytes = self.shelf.measure(identifier)
            self.shelf.save(job)
            self._uploading.pop(identifier)
            self._jobs[identifier] = job
            self._changed.notify_all()
            return replace(job)

    def job(self, identifier: str) -> tuple[Job, int]:
        """A copy of a job, and how many are before it. Raises NotThere."""
        with self._changed:
            job = self._jobs.get(identifier)
            if job is None:
                raise NotThere("There is no such job here. It was removed, or is too old, or never was.")
            return replace(job), self._before(job)

    def of(self, owner: str) -> list[tuple[Job, int]]:
        """Those of one browser, the newest first."""
        with self._changed:
            mine = [(replace(job), self._before(job)) for job in self._jobs.values() if owner and job.owner == owner]
        return sorted(mine, key=lambda pair: -pair[0].number)

    @property
    def works(self) -> bool:
        """Whether jobs are taken one after another; not before the start, after the end, and after a defect."""
        return self._thread.is_alive()

    def counts(self) -> dict[str, int]:
        with self._changed:
            return {
                "queued": sum(job.state == "queued" for job in self._jobs.values()),
                "running": int(self._running is not None),
            }

    def remove(self, identifier: str) -> None:
        """Remove a job and its results; one that waits is not begun, one that runs is ended. Raises NotThere."""
        with self._changed:
            job = self._jobs.pop(identifier, None)
            if job is None:
                raise NotThere("There is no such job here. It was removed, or is too old, or never was.")
            if job is not self._running:  # else the folder goes when the worker is done with it
                self.shelf.remove(identifier)
            self._changed.notify_all()

    def sweep(self) -> None:
        """Remove the jobs that ended longer ago than they are kept."""
        oldest = time.time() - self.limits.keep_hours * 3600
        with self._changed:
            old = [job.id for job in self._jobs.values() if job.state in ENDED and (job.ended or 0) < oldest]
            for identifier in old:
                del self._jobs[identifier]
                self.shelf.remove(identifier)

    def _before(self, job: Job) -> int:
        if job.state != "queued":
            return 0
        waiting = sum(other.state == "queued" and other.number < job.number for other in self._jobs.values())
        return waiting + (self._running is not None)

    def _used(self) -> int:
        return sum(job.bytes for job in self._jobs.values()) + sum(self._uploading.values())

    def _check_disk(self, more: int) -> None:
        if self._used() + more >= self.limits.disk_bytes:
            raise DiskFull(
                f"All jobs together have used up the {self.limits.max_disk_mb:g} MiB of this service (--max_disk_mb). Delete "
                f"jobs that are no longer needed, or wait: they go after {self.limits.keep_hours:g} hours."
            )

    def _run(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            try:
                self._do(job)
            except OSError as error:
                self._storage_failed(job, error)

    def _next(self) -> Job | None:
        """The job whose turn it is, now running; None at the end of the service."""
        swept = 0.0
        with self._changed:
            while self._ending is None:
                if time.monotonic() - swept > SWEEP_SECONDS:
                    self.sweep()
                    swept = time.monotonic()
                waiting = [job for job in self._jobs.values() if job.state == "queued"]
                if waiting:
                    self._running = min(waiting, key=lambda job: job.number)
                    self._running.state, self._running.started = "running", time.time()
                    return self._running
                self._changed.wait(SWEEP_SECONDS)
        return None

    def _do(self, job: Job) -> None:
        self.shelf.save(job)
        try:
            if not self.worker.alive:
                self.worker.start()
        except UserError as error:
            LOGGER.error("the models cannot be opened again: %s", error)
            self._end(
                job,
                "failed",
                "The service cannot open its models any more. Tell those who run it; its log has the reason.",
            )
            return
        self.worker.give(job.request, self.shelf.place(job.id), job.name)
        message = self._wait(job, time.monotonic() + 60 * self.limits.job_minutes)
        if message is None:
            reason = self.worker.lost()
            ended = (
                "SIGTERM" in reason or self._ending is not None
            )  # whoever ends the service may end both its processes
            self._end(job, "interrupted" if ended else "failed", INTERRUPTED if ended else reason)
        elif message.kind == "done":
            job.files, job.result = message.value
            self._end(job, "done")
        elif message.kind == "failed":
            self._end(job, "failed", message.value)
        else:
            self._end(job, "interrupted" if message.value == INTERRUPTED else "failed", message.value)

    def _wait(self, job: Job, latest: float) -> Message | None:
        """How a job ended: the worker's last word, or Message("stopped", why); None where the worker ended by itself."""
        swept = time.monotonic()
        while True:
            message = self.worker.hear(LOOK_SECONDS)
            if message is None or message.kind not in ("nothing", "progress"):
                return message
            if message.kind == "progress":
                job.progress = message.value
            why = self._why_stop(job, latest)
            if why is not None:
                return self._stopped(why)
            if time.monotonic() - swept > SWEEP_SECONDS:
                self.sweep()
                swept = time.monotonic()

    def _why_stop(self, job: Job, latest: float) -> str | None:
        now = time.monotonic()
        with self._changed:
            if job.id not in self._jobs:
                return "It was removed."
            if self._ending is not None and now > self._ending:
                return INTERRUPTED
            job.bytes = self.shelf.measure(job.id)
            if self._used() > self.limits.disk_bytes:
                return (
                    f"The results do not fit into the {self.limits.max_disk_mb:g} MiB of this service (--max_disk_mb). Delete "
                    "jobs that are no longer needed, or ask for fewer frames or a smaller picture."
                )
        if now > latest:
            return (
                f"This job took longer than the {self.limits.job_minutes:g} minutes that a job may take (--job_minutes). Ask for "
                "fewer frames, fewer steps or a smaller picture."
            )
        return None

    def _stopped(self, why: str) -> Message:
        """Have the worker leave its job: by itself, or by ending it, so that it is started again for the next one."""
        self.worker.stop()
        latest = time.monotonic() + self.patience
        while time.monotonic() < latest:
            message = self.worker.hear(LOOK_SECONDS)
            if message is None or message.kind in ("done", "failed", "stopped"):
                return Message("stopped", why)
        self.worker.kill()
        return Message("stopped", why)

    def _end(self, job: Job, state: State, error: str | None = None) -> None:
        """Keep how a job ended. What it was made of goes, and of one that failed all that it made."""
        with self._changed:
            self._running = None
            job.state, job.error, job.ended, job.progress = state, error, time.time(), None
            if job.id not in self._jobs:
                self.shelf.remove(job.id)
                return
            self.shelf.tidy(job)
            job.bytes = self.shelf.measure(job.id)
            self.shelf.save(job)
            self._changed.notify_all()

    def _storage_failed(self, job: Job, error: OSError) -> None:
        """The disk refuses what is to be kept of a job: it is told, and the service goes on."""
        LOGGER.error("job %d: %s", job.number, error)
        self.worker.kill()  # it may not be done, and what it says next is not to count for another job
        full = error.errno in DISK_FULL
        with self._changed:
            self._running = None
            job.state, job.ended, job.files = "failed", time.time(), []
            job.error = (
                f"The service's disk {'is full' if full else 'failed'}. Tell those who run it; its log has the reason."
            )
