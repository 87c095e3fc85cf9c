"""Checkpoints of one small tensor, for the tests of the writer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors.torch import load_file, save_file

from tinyworld.engine.writer import Contents, Writer

SLOW = 60.0
"""A time-out that no test should meet."""


def contents(value: float = 1.0, rank: int = 0, average: bool = True, size: int = 8, **own: Any) -> Contents:
    """All weights are `value`, the average is half of it."""

    def saver(number: float) -> Callable[[Path], None]:
        return lambda path: save_file({"w": torch.full((size,), number)}, path)

    weights = {"model.safetensors": saver(value)} | ({"ema.safetensors": saver(value / 2)} if average else {})
    return Contents(weights, {"trainer": {"value": torch.tensor(value)}}, {"rng": {"rank": rank}, **own})


def value_of(file: Path) -> float:
    return float(load_file(file)["w"][0])


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def make(run: Path, keep: int = 0, background: bool = True, timeout: float = SLOW) -> Writer:
    return Writer(run, keep, background, timeout)


def saved(run: Path, *steps: int, **values: Any) -> None:
    for step in steps:
        make(run, background=False).save(step, contents(float(step), **values), {})
