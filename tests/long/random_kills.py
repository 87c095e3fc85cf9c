"""Kill training with SIGKILL at random moments, again and again, and compare what comes out with an uninterrupted run.

    python tests/long/random_kills.py [--kills 200] [--processes 1] [--jobs 1] [--seed 0]

A run is killed at a random moment (half of the time while it writes a checkpoint) and resumed with `latest`, eight times,
and then ends; its last checkpoint must equal that of
the uninterrupted run bit by bit: weights, average, optimizer, random states, validation numbers and all of Seraena
(discriminator, its optimizer, replay buffers, generators). With several processes one of them or all are killed. Prints
one line per run and exits with 1 when anything differs or a resume fails. Small rendered rooms in a temporary folder.
"""

import argparse
import contextlib
import json
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.faults.processes import Run
from tests.faults.real import make_task
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.data.rooms import make_rooms

STEPS = 40
FLAGS: dict[str, Any] = {
    "height": 32, "width": 32, "n_frames": 8, "global_batch_size": 2, "max_train_steps": STEPS, "encoder_width": 8,
    "train_batch_size": 1, "decoder_widths": [16, 8, 8, 8], "checkpointing_steps": 3, "checkpoints_total_limit": 3,
    "validation_steps": 10, "num_preview_clips": 1, "early_stopping_patience": 0, "log_steps": 1, "lr_warmup_steps": 3,
    "device": "cpu", "cpu_threads": 1, "run_name": "run", "use_seraena": True, "seraena_width": 8, "seraena_buffer_mb": 1,
    "seraena_ramp_steps": 10, "resume_from_checkpoint": "latest", "tracker_name": "none", "num_workers": 1,
}  # fmt: skip


KILLS_OF_A_RUN = 8


@dataclass
class Result:
    """What became of one run: how often it was killed, how often while a checkpoint was being written, what differs."""

    kills: int
    while_saving: int
    different: list[str]


def recipe(data: Path, output: Path) -> TaehvRecipe:
    return load_recipe("taehv_demo", {**FLAGS, "data_root": str(data), "output_dir": str(output)})


def final_state(run: Path) -> dict[str, torch.Tensor]:
    """Everything in the last checkpoint, and the numbers of all validations."""
    folder = run / f"checkpoint-{STEPS}"
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= {f"{file.stem}.{name}": value for name, value in load_file(file).items()}
    for file in sorted((folder / "state").glob("*.pt")):
        state |= dict(tensors(torch.load(file, weights_only=True), file.stem))
    state |= {f"best.{name}": value for name, value in load_file(run / "best_model" / "model.safetensors").items()}
    state = {name: value for name, value in state.items() if not name.endswith(".time")}
    history = json.loads((run / "validation_history.json").read_text())
    numbers = [[clip["psnr"], clip["ssim"], clip["flicker"]] for entry in history for clip in entry["clips"]]
    state["validation"] = torch.tensor(numbers, dtype=torch.float64)
    return state


def tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor and number in nested dicts and lists, by its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tensors(item, f"{name}.{index}")
    elif isinstance(value, str):
        yield name, torch.tensor(list(value.encode()))
    elif isinstance(value, torch.Tensor | int | float):
        yield name, torch.as_tensor(value)


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    return [k for k in one.keys() | other.keys() if k not in one or k not in other or not torch.equal(one[k], other[k])]


def saving(run: Run) -> None:
    """Wait until a checkpoint is being written, or the run is over."""
    while run.ranks[0].is_alive() and not is_saving(run):
        time.sleep(0.001)


def is_saving(run: Run) -> bool:
    """Whether the staging folder of a checkpoint is there; it can go while it is looked for."""
    with contextlib.suppress(OSError):
        return any(run.folder.glob(".staging*checkpoint*"))
    return False


def killed_again_and_again(
    data: Path, output: Path, processes: int, whole: float, draw: random.Random, expected: dict[str, torch.Tensor]
) -> Result:
    """One run, killed at random moments KILLS_OF_A_RUN times if it lasts so long, and then left to end."""
    kills = while_saving = 0
    while True:
        with Run(make_task(recipe(data, output)), recipe(data, output), processes) as run:
            if kills < KILLS_OF_A_RUN:
                run.ranks[0].join(draw.uniform(0.1, 0.6) * whole)
                if draw.random() < 0.5:  # half of them while a checkpoint is being written: a hundredth of the time
                    saving(run)
                    time.sleep(draw.uniform(0, 0.05))
                victims = draw.choice([[rank] for rank in range(processes)] + [list(range(processes))])
                alive = [rank for rank in victims if run.ranks[rank].is_alive()]
                for rank in alive:
                    run.signal(rank, signal.SIGKILL)
                if alive:
                    kills += 1
                    while_saving += is_saving(run)
                    if len(alive) < processes:  # the others find out, and end by themselves
                        run.codes()
                    continue
            codes = run.codes()
            if codes != [0] * processes:
                return Result(kills, while_saving, [f"exit codes {codes}: {run.said(0)[-2000:]}"])
        return Result(kills, while_saving, differing(expected, final_state(output / "run")))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_rooms(folder / "rooms", scenes=6, frames=17, height=48, width=48, points=False)
        began = time.monotonic()
        with Run(
            make_task(recipe(data, folder / "straight")), recipe(data, folder / "straight"), options.processes
        ) as run:
            assert run.codes() == [0] * options.processes, run.said(0)
        whole = time.monotonic() - began
        expected = final_state(folder / "straight" / "run")
        print(f"uninterrupted: {STEPS} steps in {whole:.1f} s, {len(expected)} tensors", flush=True)
        results: list[Result] = []

        def work(number: int) -> None:
            while sum(result.kills for result in results) < options.kills:
                draw = random.Random(f"{options.seed}-{number}-{len(results)}")
                output = folder / f"killed-{number}-{len(results)}"
                result = killed_again_and_again(data, output, options.processes, whole, draw, expected)
                results.append(result)
                verdict = f"DIFFERENT: {result.different[:3]}" if result.different else "bit-identical"
                print(f"killed {result.kills} times, {result.while_saving} while saving: {verdict}", flush=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(work, range(options.jobs)))
    bad = [result for result in results if result.different]
    print(
        f"{sum(r.kills for r in results)} kills ({sum(r.while_saving for r in results)} while a checkpoint was being "
        f"written) in {len(results)} runs of {options.processes} process(es): {len(results) - len(bad)} ended bit-identical"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
