"""The processes of one training: started together, told to stop once, and none left behind.

They are started here and not by torchrun, which turns every exit code into 1 and kills its processes 30 s after a
SIGTERM, whether their save is done or not. What a process needs to find the others (RANK, WORLD_SIZE, MASTER_ADDR, …)
has the names that torchrun gives it.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinyworld.core.errors import EXIT_INTERRUPTED
from tinyworld.supervisor.stop import Stop

GRACE = 30.0
"""Seconds that the others get to end by themselves once one process has failed."""
POLL = 0.05
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How the processes ended: the rank that failed first and its exit code, -N for signal N; rank 0 when none failed."""

    rank: int
    code: int

    @property
    def words(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        names = {known.value: known.name for known in signal.Signals}  # real-time signals have none
        return f"killed by {names.get(-self.code, f'signal {-self.code}')}"


def log_of(folder: Path, rank: int) -> Path:
    """Where the output of a rank goes; rank 0 writes to the terminal."""
    return folder / "ranks" / f"rank-{rank}.log"


def run(command: Sequence[str], count: int, folder: Path, stop: Stop, grace: float = GRACE) -> Ended:
    """Run `command` as `count` processes until all have ended. Whatever happens, none is alive on return."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with contextlib.ExitStack() as files:
            for rank, environment in enumerate(_environments(count)):
                output = None if rank == 0 else files.enter_context(_opened(log_of(folder, rank)))
                processes.append(_start(command, environment, output))
        return _wait(processes, stop, grace)
    finally:
        for process in processes:
            _kill(process)


def _environments(count: int) -> list[dict[str, str]]:
    """The environment of each process. One process alone needs to find nobody."""
    if count == 1:
        return [dict(os.environ)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def _start(command: Sequence[str], environment: dict[str, str], output: IO[bytes] | None) -> "subprocess.Popen[bytes]":
    """In a session of its own: a Ctrl-C in the terminal reaches the supervisor alone, which passes it on once."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_tied_to_this_process(),
    )


def _tied_to_this_process() -> Callable[[], None] | None:
    """On Linux: what a new process runs first, so that the kernel kills it when the supervisor is killed."""
    if sys.platform != "linux":
        return None
    library, parent = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return tie


def _wait(processes: "list[subprocess.Popen[bytes]]", stop: Stop, grace: float) -> Ended:
    failed: list[Ended] = []
    deadline = float("inf")
    told = False
    while running := [process for process in processes if process.poll() is None]:
        failed += _newly_failed(processes, failed)
        if failed:
            deadline = min(deadline, time.monotonic() + grace)
        if stop.asked and not told:
            told = True
            for process in running:  # not its group: loader processes must live until the save is done
                process.send_signal(stop.asked)
        if stop.urgent or time.monotonic() > deadline:
            for process in running:
                _kill(process)
        time.sleep(POLL)
    failed += _newly_failed(processes, failed)
    if failed:
        return failed[0]
    return Ended(0, max(process.returncode for process in processes))


def _newly_failed(processes: "list[subprocess.Popen[bytes]]", known: list[Ended]) -> list[Ended]:
    ranks = {ended.rank for ended in known}
    ended = [(rank, process.returncode) for rank, process in enumerate(processes) if rank not in ranks]
    return [Ended(rank, code) for rank, code in ended if code not in (None, 0, EXIT_INTERRUPTED)]


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The process and what it started; a group outlives its leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
