"""What a checkpoint costs the training: written beside it (background_save) against written while it stands still.

    python benchmarks/checkpoint_stall.py [--batch 4 --size 64 --every 4 --saves 3 --device cpu]
    python benchmarks/checkpoint_stall.py --reduction

The full-width TAEHV (11.3 million parameters, AdamW, moving average: 173 MiB per checkpoint) trains on rendered rooms in a
temporary folder (set TMPDIR for another disk), in four runs: both ways in turn, twice. Times are the runs' own, from
their journals; only the copying (`saving.contents`) and the wait for a best model are clocked from here. Printed are medians:

- a step that no write runs beside, and one that a write runs beside
- how long the training stands still for a checkpoint, and the parts of it
- the write itself, and what a checkpoint costs in all: standing still, and steps that are slower beside the write
- the same standstill for each run's last checkpoint, which follows a validation with a best model

Writing takes time of a processor. Where no core is free for it, training gives it, and a checkpoint costs in all what it
costs when training stands still: read the load in the first line before the numbers.

--reduction instead measures two processes (gloo, one thread each): the mean of the gradients taken after the backward pass
(`strategy.reduce`), as ddp does here, against torch's DistributedDataParallel, which exchanges them during the pass.
"""

import argparse
import copy
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
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
ROWS = (
    "step without a save",
    "standing still per checkpoint",
    "  longest",
    "  copying to main memory",
    "  waiting, hand-over; synchronous: writing",
    "the write itself",
    "step beside a write",
    "slower steps, per checkpoint",
    "checkpoint in all: still and slower",
    "standing still after a validation",
    "  waiting for the best model",
)


@dataclass
class Costs:
    """Seconds, of all runs of one way to save. The last checkpoint of a run is kept apart: it follows a validation."""

    quiet: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
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
        "max_train_steps": steps, "lr_warmup_steps": steps, "log_steps": 1, "checkpointing_steps": options.every,
        "checkpoints_total_limit": 2, "validation_steps": steps, "validation_height": options.size,
        "validation_width": options.size, "num_validation_samples": 1, "output_dir": str(folder), "tracker_name": "none",
        "device": options.device,
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


def compare_saves(folder: Path, options: argparse.Namespace) -> None:
    costs = {True: Costs(), False: Costs()}
    for _ in range(ROUNDS):
        for background, found in costs.items():
            run(make_recipe(folder, options, background_save=background), found)
    ours, baseline = costs[True], costs[False]
    print(
        f"{options.batch} clips of {options.size} x {options.size} x {FRAMES} per step, {ROUNDS * options.saves} checkpoints "
        f"of {ours.bytes / 2**20:.0f} MiB each way, one every {options.every} steps"
    )
    print(f"{'':<44}{'background':>22}{'synchronous':>22}")
    for name, ours_shown, baseline_shown in zip(ROWS, rows(ours), rows(baseline), strict=True):
        print(f"{name:<44}{ours_shown:>22}{baseline_shown:>22}")
    print(f"standing still, synchronous / background: {median(baseline.stalls) / median(ours.stalls):.1f}x")


def rows(costs: Costs) -> Iterator[str]:
    """What stands beside ROWS: seconds, and their share of a step's time."""
    step, stall, copied = median(costs.quiet), median(costs.stalls), median(costs.copies)
    slower = (sum(costs.beside) - len(costs.beside) * step) / len(costs.stalls)

    def shown(seconds: float) -> str:
        return f"{seconds:.3f} s {seconds / step:8.1%}"

    yield shown(step)
    yield shown(stall)
    yield shown(max(costs.stalls))
    yield shown(copied)
    yield shown(median(still - own for still, own in zip(costs.stalls, costs.copies, strict=True)))
    yield shown(median(costs.writes))
    yield shown(median(costs.beside)) if costs.beside else "none"
    yield shown(slower)
    yield shown(stall + slower)
    yield shown(median(costs.last_stalls))
    yield shown(median(costs.last_waits))


def measure_reduction(rank: int, folder: Path, recipe: TaehvRecipe) -> None:
    """A process of two. Both ways start from the same weights and get the same clips; which goes first changes."""
    torch.set_num_threads(1)
    LOGGER.setLevel(logging.ERROR)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    task, device = TaehvTask(recipe), torch.device("cpu")
    other = DistributedDataParallel(Forward(copy.deepcopy(task.model), recipe, device))
    strategy = parallel.build(recipe, task.model, device)
    seconds: dict[str, list[float]] = {name: [] for name in ("backward", "waiting", "reduce", "ours", "overlapped")}
    for number, (batch,) in enumerate(task.batches(0, REDUCED_STEPS, rank, 2)):
        found: dict[str, float] = {}
        steps = [partial(separate_step, task, strategy), partial(overlapping_step, task, other)]
        for step in steps if number % 2 else reversed(steps):
            found |= step(batch, number)
        if abs(found["norm"] - found["expected norm"]) > 1e-3 * found["norm"]:
            raise RuntimeError(f"the two ways' gradients have other norms: {found}")
        if number:  # the first step warms up
            for name in seconds:
                seconds[name].append(found[name])
    if rank == 0:
        show_reduction(recipe, {name: median(values) for name, values in seconds.items()})
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def separate_step(task: TaehvTask, strategy: parallel.Strategy, batch: Any, number: int) -> dict[str, float]:
    """Seconds of a step as the ddp strategy takes it, and the norm of its gradient. The barrier before the reduction stands
    for the verdict, and keeps the wait for the other process out of it."""
    torch.distributed.barrier()
    began = time.perf_counter()
    losses = task.step(strategy.model, batch, torch.device("cpu"), number)
    marks = [time.perf_counter()]
    strategy.backward(losses.total, last=True)
    marks.append(time.perf_counter())
    torch.distributed.barrier()
    marks.append(time.perf_counter())
    norm = strategy.reduce()
    marks.append(time.perf_counter())
    strategy.drop()
    parts = [end - begin for begin, end in pairwise(marks)]
    names = ("backward", "waiting", "reduce")
    return dict(zip(names, parts, strict=True)) | {"ours": marks[-1] - began, "norm": norm}


def overlapping_step(task: TaehvTask, model: nn.Module, batch: Any, number: int) -> dict[str, float]:
    """Seconds of the same step with DistributedDataParallel, and the norm of its gradient."""
    torch.distributed.barrier()
    began = time.perf_counter()
    task.step(model, batch, torch.device("cpu"), number).total.backward()
    norm = float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
    seconds = time.perf_counter() - began
    model.zero_grad()
    return {"overlapped": seconds, "expected norm": norm}


def show_reduction(recipe: TaehvRecipe, seconds: dict[str, float]) -> None:
    data = recipe.data
    print(
        f"2 processes (gloo, one thread each), {recipe.training.train_batch_size} clips of {data.height} x {data.width} x "
        f"{FRAMES} each; medians of {REDUCED_STEPS - 1} steps"
    )
    print(f"  backward                                        {seconds['backward']:.3f} s")
    print(f"  waiting for the other process                   {seconds['waiting']:.3f} s")
    share = seconds["reduce"] / seconds["backward"]
    print(
        f"  reduce after it, with the norm                  {seconds['reduce']:.3f} s, {share:.1%} of the backward pass"
    )
    print(f"  forward, backward, reduce                       {seconds['ours']:.3f} s")
    print(f"  the same with DistributedDataParallel           {seconds['overlapped']:.3f} s")
    print(f"  ratio, ours / overlapped                        {seconds['ours'] / seconds['overlapped']:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4, help="clips per step")
    parser.add_argument("--size", type=int, default=64, help="height and width of a clip, pixels")
    parser.add_argument("--every", type=int, default=4, help="steps between two checkpoints")
    parser.add_argument("--saves", type=int, default=3, help="checkpoints of a run, besides the last")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--reduction", action="store_true", help="measure the reduction of gradients instead")
    options = parser.parse_args()
    LOGGER.setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rooms(
            folder / "rooms", scenes=5, frames=24, height=options.size, width=options.size, points=False, workers=1
        )
        if options.reduction:
            recipe = make_recipe(folder, options, device="cpu", ema_decay=0.0, num_workers=0)
            multiprocessing.spawn(measure_reduction, (folder, recipe), nprocs=2)
        else:
            print(
                f"on {device_name(training_device(make_recipe(folder, options)))}, {os.cpu_count()} cores with a load of "
                f"{os.getloadavg()[0]:.1f} at the start, checkpoints in {folder.parent}"
            )
            compare_saves(folder, options)


if __name__ == "__main__":
    main()
