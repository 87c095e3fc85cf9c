"""A run of several processes on this machine, each of which a test can look at, stop and kill.

Processes come from a server that has imported torch and tinyworld already, so a run starts in a fraction of a second.
"""

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from tests.engine.fake import FakeTask, fake_recipe
from tinyworld.cli.dispatch import exit_code
from tinyworld.config.schema import Recipe
from tinyworld.engine.accelerate_setup import processes
from tinyworld.engine.loop import run_training
from tinyworld.engine.task import Task

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.processes", "tinyworld.tasks.taehv", "tests.faults.tasks"])
PATIENCE = 240.0

MakeTask = Callable[[int], Task]
"""The task of a rank. A function of a module, so that it can be sent to another process."""


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _main(make_task: MakeTask, recipe: Recipe, rank: int, world: int, address: int, output: Path) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    if world > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(address), "LOCAL_WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[logging.StreamHandler()])

    def work() -> int:
        with processes(recipe):
            task = make_task(rank)
            run_training(task, recipe)
            if isinstance(task, FakeTask) and recipe.parallel.strategy == "ddp":
                torch.save(task.model.state_dict(), weights_of(recipe, rank))
        return 0

    code = exit_code(work)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def weights_of(recipe: Recipe, rank: int) -> Path:
    """Where a rank that came to the end leaves the weights that it holds itself."""
    return Path(recipe.run.output_dir) / f"weights-of-rank-{rank}.pt"


class Run(AbstractContextManager["Run"]):
    """`world` processes that train; what they say is in `said(rank)`. Leaving the block ends those that are left."""

    def __init__(self, make_task: MakeTask, recipe: Recipe, world: int = 2, said_in: Path | None = None) -> None:
        self.folder = Path(recipe.run.output_dir) / str(recipe.run.run_name)
        place = said_in or Path(recipe.run.output_dir)
        self._outputs = [place / f"rank-{rank}-{time.monotonic_ns()}.txt" for rank in range(world)]
        self._outputs[0].parent.mkdir(parents=True, exist_ok=True)
        address = port()
        self.ranks = [
            CONTEXT.Process(target=_main, args=(make_task, recipe, rank, world, address, self._outputs[rank]))
            for rank in range(world)
        ]
        for process in self.ranks:
            process.start()

    def said(self, rank: int) -> str:
        return self._outputs[rank].read_text(errors="replace") if self._outputs[rank].exists() else ""

    def signal(self, rank: int, number: int) -> None:
        pid = self.ranks[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def until(self, event: str, step: int = 0) -> None:
        """Wait for an event of the journal at this step or later."""
        self.wait_for(lambda: any(line["event"] == event and line["step"] >= step for line in journal(self.folder)))

    def wait_for(self, there: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE
        while not there():
            if time.monotonic() > ends or not any(process.is_alive() for process in self.ranks):
                raise AssertionError(
                    "it never came; the processes said:\n" + "\n".join(map(self.said, range(len(self.ranks))))
                )
            time.sleep(0.02)

    def codes(self) -> list[int | None]:
        """Exit codes once all have ended; negative for a signal, None for one that still runs when patience is over."""
        ends = time.monotonic() + PATIENCE
        for process in self.ranks:
            process.join(max(ends - time.monotonic(), 0))
        return [process.exitcode for process in self.ranks]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.ranks:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
            process.join()


def journal(folder: Path) -> list[dict[str, Any]]:
    """The journal's complete lines."""
    path = folder / "journal.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in journal(folder) if line["event"] == kind]


def finished(make_task: MakeTask, recipe: Recipe, world: int = 2) -> Path:
    """The folder of a run that has to end well."""
    with Run(make_task, recipe, world) as run:
        codes = run.codes()
        assert codes == [0] * world, "\n".join(run.said(rank) for rank in range(world))
    return run.folder


def quiet_recipe(folder: Path, **sections: dict[str, Any]) -> Recipe:
    """A fake recipe of 12 steps for tasks without noise."""
    training = {"max_train_steps": 12, "log_steps": 1, **sections.pop("training", {})}
    validation = {"validation_steps": 6, **sections.pop("validation", {})}
    checkpoint = {"checkpointing_steps": 4, **sections.pop("checkpoint", {})}
    return fake_recipe(folder, training=training, validation=validation, checkpoint=checkpoint, **sections)


__all__ = ["FakeTask", "Run", "events", "finished", "journal", "quiet_recipe"]
