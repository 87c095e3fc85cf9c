"""What a checkpoint costs the training: written beside it (background_save) against written while it stands still.

    python benchmarks/checkpoint_stall.py [--batch 4 --size 64 --every 5 --saves 3 --device cpu]
    python benchmarks/checkpoint_stall.py --reduction

The full-width TAEHV (11.3 million parameters, AdamW, moving average: 173 MiB per checkpoint) trains on rendered rooms in a
temporary folder (set TMPDIR for another disk), in four runs: both ways in turn, twice. Times are the runs' own, from
their journals; only the copying (`saving.contents`) and the wait for a best model are clocked from here. Printed are medians:

- a step that no write runs beside, and one that a write runs beside
- how long the training stands still for a checkpoint, and the parts of it
- the write itself, and what a checkpoint costs in all: standing still, and steps that are slower beside the write
- the same standstill for each run's last checkpoint, which follows a validation with a best model

--reduction instead measures two processes (gloo, one thread each): the mean of the gradients taken after the backward pass
(`strategy.reduce`), as ddp does here, against torch's DistributedDataParallel, which exchanges them during the pass.
"""

import argparse
import copy
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.console import LOGGER
from tinyworld.core.journal_lines import JOURNAL, Record, read_lines
from tinyworld.data.rooms import make_rooms
from tinyworld.engine import parallel, saving
from tinyworld.engine.accelerate_setup import device_name, processes, training_device
from tinyworld.engine.background import Background
from tinyworld.engine.loop import run_training
from tinyworld.engine.parallel.precision import Forward
from tinyworld.tasks.taehv import TaehvTask

FRAMES, ROUNDS, WARM_UP = 12, 2, 2
REDUCED_STEPS = 6


@dataclass
class Costs:
    """Seconds, of all runs of one way to save. The last checkpoint of a run is kept apart: it follows a validation."""

    quiet: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    slower: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    last_stalls: list[float] = field(default_factory=list)
    last_waits: list[float] = field(default_factory=list)
    bytes: int = 0


def make_recipe(folder: Path, options: argparse.Namespace, **more: Any) -> TaehvRecipe:
    steps = options.every * (options.saves + 1)
    values = {
        "data_root": str(folder / "rooms"), "height": options.size, "width": options.size, "n_frames": FRAMES,
        "variant": "taew2_1", "encoder_width": None, "decoder_widths": None, "train_batch_size": options.batch,
        "max_train_steps": steps, "log_steps": 1, "checkpointing_steps": options.every, "checkpoints_total_limit": 2,
        "validation_steps": steps, "validation_height": options.size, "validation_width": options.size,
        "num_validation_samples": 1, "output_dir": str(folder), "tracker_name": "none", "device": options.device,
    }  # fmt: skip
    return load_recipe("taehv_demo", values | more)


@contextmanager
def clocked(owner: Any, name: str) -> Iterator[list[float]]:
    """Seconds of each call of a function, which is otherwise as it was."""
    function: Callable[..., Any] = getattr(owner, name)
    seconds: list[float] = []

    def timed(*values: Any) -> Any:
        began = time.perf_counter()
        result = function(*values)
        seconds.append(time.perf_counter() - began)
        return result

    with patch.object(owner, name, timed):
        yield seconds


def run(recipe: TaehvRecipe, costs: Costs) -> None:
    """One training run; adds what it cost."""
    with clocked(saving, "contents") as copies, clocked(Background, "wait") as waits, processes(recipe):
        folder = run_training(TaehvTask(recipe), recipe).folder
    events, _ = read_lines(folder / JOURNAL)
    steps = {event["step"]: event for event in events if event["event"] == "step"}
    *saves, last = [event for event in events if event["event"] == "checkpoint"]
    for step in range(WARM_UP + 1, saves[0]["step"] + 1):
        costs.quiet.append(steps[step]["seconds_per_step"])
    for save, copied in zip(saves, copies, strict=False):
        costs.stalls.append(save["stall"])
        costs.copies.append(copied)
        costs.writes.append(save["seconds"])
        until = steps[save["step"]]["time"] + copied + save["seconds"]
        following = range(save["step"] + 1, save["step"] + recipe.checkpoint.checkpointing_steps + 1)
        beside = [step for step in following if _began(steps[step]) < until]
        costs.beside += [steps[step]["seconds_per_step"] for step in beside]
        costs.quiet += [steps[step]["seconds_per_step"] for step in following if step not in beside]
        costs.bytes = save["bytes"]
    costs.last_stalls.append(last["stall"])
    costs.last_waits.append(waits[-1])


def _began(step: Record) -> float:
    return float(step["time"] - step["seconds_per_step"])
