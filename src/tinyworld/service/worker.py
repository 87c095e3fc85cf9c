"""The process that computes: it opens the models once and does one job after another, until it is told or made to stop.

A process of its own, because a thread cannot be ended: a job that takes too long, a video that brings libav down or eats all
memory costs that job, and not the service.
"""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tinyworld.core.errors import UserError

Report = Callable[[int, int], None]
"""(steps done, steps in all), between steps; raises `Stopped` when the job is no longer wanted."""


class Stopped(Exception):
    """A job that is no longer wanted ends here."""


class Outcome(NamedTuple):
    """Of a job. files: names of results that are there. result: numbers and facts, ready for JSON."""

    files: list[str]
    result: dict[str, Any]


Work = Callable[[dict[str, Any], Path, str, Report], Outcome]
"""(request, the job's folder, the sender's name of its file, report) → what came of it. Raises UserError."""
Opening = Callable[[], tuple[Work, Any]]
"""Opens the models: how to work with them, and what can be asked of them (any value that pickle takes)."""


@dataclass(frozen=True)
class Message:
    """What the worker says. kind: ready (what can be asked), refused (an error of opening), progress, done, failed, stopped;
    nothing, for silence."""

    kind: str
    value: Any = None


UNEXPECTED = (
    "This job failed for a reason that lies in the program, not in the request. The service's log has the details."
)


class Worker:
    """The process, seen from the service. opening: must be importable by a new process."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self._process: Any = None
        self._pipe: Connection | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> Any:
        """Start the process and wait until it is ready; returns what can be asked of it. Raises what opening raised."""
        self.kill()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(self.opening, theirs), daemon=True, name="tinyworld worker")
        self._process.start()
        theirs.close()
        message = self.hear(None)
        if message is None:
            raise UserError(f"The process that opens the models ended before it was ready ({self._how_it_ended()}).")
        if message.kind == "refused":
            self.kill()
            raise message.value
        return message.value

    def give(self, request: dict[str, Any], place: Path, name: str) -> None:
        self._say((request, place, name))

    def stop(self) -> None:
        """Say that the job is no longer wanted; the worker looks between steps."""
        self._say(None)

    def _say(self, words: Any) -> None:
        assert self._pipe is not None
        with contextlib.suppress(OSError):  # the process has ended; the next `hear` finds out
            self._pipe.send(words)

    def hear(self, seconds: float | None) -> Message | None:
        """What the worker says within this time, Message("nothing") for silence; None where it has ended."""
        assert self._pipe is not None
        try:
            return self._pipe.recv() if self._pipe.poll(seconds) else Message("nothing")
        except (EOFError, OSError):
            return None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def lost(self) -> str:
        """The paragraph for a job whose worker ended by itself."""
        return (
            f"The process that worked on this job ended ({self._how_it_ended()}). Too little memory and damaged videos are usual "
            "causes: ask for fewer frames or a smaller picture, or send another file."
        )

    def _how_it_ended(self) -> str:
        self._process.join()
        code = self._process.exitcode
        return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _work(opening: Opening, pipe: Connection) -> None:
    """In the process. It ends when the service does: its end of the pipe is then closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both, and the service decides what becomes of a job
    try:
        work, abilities = opening()
    except UserError as error:
        pipe.send(Message("refused", error))
        return
    pipe.send(Message("ready", abilities))
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        if asked is not None:  # a stop that came too late
            pipe.send(_done(work, asked, pipe))


def _done(work: Work, asked: tuple[dict[str, Any], Path, str], pipe: Connection) -> Message:
    def report(done: int, total: int) -> None:
        if pipe.poll():
            pipe.recv()
            raise Stopped
        pipe.send(Message("progress", (done, total)))

    try:
        return Message("done", work(*asked, report))
    except Stopped:
        return Message("stopped")
    except UserError as error:
        return Message("failed", str(error))
    except Exception:  # noqa: BLE001 - one job's defect is not to end the service; it is in the log, whole
        traceback.print_exc()
        return Message("failed", UNEXPECTED)
