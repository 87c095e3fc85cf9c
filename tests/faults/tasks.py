"""Fake tasks in which one rank meets a fault."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.engine.fake import FakeBatch, FakeTask
from tinyworld.core import dist
from tinyworld.core.errors import DataError
from tinyworld.engine.task import Losses, Roles


class QuietTask(FakeTask):
    """Without noise and without a helper: what it learns depends on the global batches alone."""

    def roles(self) -> Roles:
        return Roles(self.model)

    def step(self, model: nn.Module, batch: FakeBatch, device: torch.device, done: int) -> Losses:
        return Losses({"fit": (model(batch.inputs) - batch.inputs.sum(1, keepdim=True)).square().mean()})


class Faulty(QuietTask):
    """Rank 1 meets the fault at step 6 (index): in its numbers, its memory, its code, its data, or by never coming back."""

    AT = 6

    def __init__(self, kind: str, batch: int = 8) -> None:
        super().__init__(batch=batch)
        self.kind = kind

    def batches(
        self, start_step: int, stop_step: int, rank: int, world: int, left_out: int = 0
    ) -> Iterator[list[FakeBatch]]:
        steps = super().batches(start_step, stop_step, rank, world, left_out)
        for step, batches in zip(range(start_step, stop_step), steps, strict=True):
            if rank == 1 and step == self.AT:
                if self.kind == "data":
                    raise DataError("the disk with the videos is gone")
                if self.kind == "nan":
                    batches[0].inputs[0] = torch.nan
                if self.kind == "late data":
                    wait_for_ever_in_the_loader()
            yield batches

    def step(self, model: nn.Module, batch: FakeBatch, device: torch.device, done: int) -> Losses:
        if dist.rank() == 1 and done == self.AT:
            if self.kind == "memory" and len(batch.ids) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            if self.kind == "no memory at all":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            if self.kind == "code":
                raise ValueError("shapes do not fit")
            if self.kind == "late step":
                wait_for_ever_in_the_step()
        return super().step(model, batch, device, done)


def wait_for_ever_in_the_loader() -> None:
    time.sleep(1000)


def wait_for_ever_in_the_step() -> None:
    time.sleep(1000)


class Slow(QuietTask):
    """Steps that leave time for a signal."""

    def step(self, model: nn.Module, batch: FakeBatch, device: torch.device, done: int) -> Losses:
        time.sleep(0.05)
        return super().step(model, batch, device, done)


class CannotEvaluate(QuietTask):
    """Rank 1 fails in its first validation."""

    def evaluate(self, model: nn.Module, samples: Any, device: torch.device) -> Any:
        if dist.rank() == 1:
            raise ValueError("a held-out clip of another shape")
        return super().evaluate(model, samples, device)


class FullDisk(QuietTask):
    """The disk is full when checkpoint-8 is written."""

    def write_weights(self, weights: Any, file: Path) -> None:
        super().write_weights(weights, file)
        if "checkpoint-8" in file.parent.name:
            raise OSError(28, "No space left on device", str(file))


def quiet(rank: int) -> QuietTask:
    return QuietTask(batch=8)


def noisy(rank: int) -> FakeTask:
    """With noise from each rank's generators, and with a helper."""
    return FakeTask(batch=8)


def nan(rank: int) -> Faulty:
    return Faulty("nan")


def memory(rank: int) -> Faulty:
    return Faulty("memory")


def no_memory_at_all(rank: int) -> Faulty:
    return Faulty("no memory at all")


def code(rank: int) -> Faulty:
    return Faulty("code")


def data(rank: int) -> Faulty:
    return Faulty("data")


def late_data(rank: int) -> Faulty:
    return Faulty("late data")


def late_step(rank: int) -> Faulty:
    return Faulty("late step")


def slow(rank: int) -> Slow:
    return Slow(batch=8)


def full_disk(rank: int) -> FullDisk:
    return FullDisk(batch=8)


def cannot_evaluate(rank: int) -> CannotEvaluate:
    return CannotEvaluate(batch=8)
