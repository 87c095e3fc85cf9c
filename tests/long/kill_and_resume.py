"""Kill training with SIGKILL at random moments, resume with `latest`, and compare with an uninterrupted run bit by bit.

    python tests/long/kill_and_resume.py [--kills 5] [--seed 0]

Prints one line per moment and exits with 1 when any final weight, average, optimizer moment, random state, validation
number, or anything of Seraena (discriminator, its optimizer, replay buffer, generators) differs. Works on small rendered
rooms in a temporary folder.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tinyworld.data.rooms import make_rooms

STEPS = 40
FLAGS = {
    "height": 32, "width": 32, "n_frames": 8, "train_batch_size": 2, "max_train_steps": STEPS, "encoder_width": 8,
    "decoder_widths": "[16,8,8,8]", "checkpointing_steps": 7, "checkpoints_total_limit": 3, "validation_steps": 10,
    "num_preview_clips": 1, "early_stopping_patience": 0, "log_steps": 1, "lr_warmup_steps": 3, "device": "cpu", "cpu_threads": 1,
    "run_name": "run", "use_seraena": "true", "seraena_width": 8, "seraena_buffer_mb": 1, "seraena_ramp_steps": 10,
}  # fmt: skip


def command(data: Path, output: Path) -> list[str]:
    flags = {**FLAGS, "data_root": data, "output_dir": output, "resume_from_checkpoint": "latest"}
    return [
        sys.executable,
        "-m",
        "tinyworld",
        "train",
        "taehv_demo",
        *(f"--{key}={value}" for key, value in flags.items()),
    ]


def final_state(run: Path) -> dict[str, torch.Tensor]:
    folder = run / f"checkpoint-{STEPS}"
    state = {f"model.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    state |= {f"ema.{k}": v for k, v in load_file(folder / "ema.safetensors").items()}
    trainer = torch.load(folder / "state" / "trainer.pt", weights_only=True)
    for index, moments in trainer["optimizer"]["state"].items():
        state |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
    for name in ("seraena", "seraena-rank0"):
        state |= dict(tensors(torch.load(folder / "state" / f"{name}.pt", weights_only=True), name))
    state["random"] = torch.load(folder / "state" / "rng-rank0.pt", weights_only=True)["torch"]
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
    elif isinstance(value, torch.Tensor | int | float):
        yield name, torch.as_tensor(value)


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    return [k for k in one.keys() | other.keys() if k not in one or k not in other or not torch.equal(one[k], other[k])]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_rooms(folder / "rooms", scenes=6, frames=17, height=48, width=48, points=False)
        began = time.monotonic()
        subprocess.run(command(data, folder / "straight"), check=True, capture_output=True)
        whole = time.monotonic() - began
        expected = final_state(folder / "straight" / "run")
        print(f"uninterrupted: {STEPS} steps in {whole:.1f} s, {len(expected)} tensors")
        bad = 0
        for kill in range(options.kills):
            output, delay = folder / f"killed-{kill}", moments.uniform(0.15, 1.0) * whole
            process = subprocess.Popen(command(data, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            left = sorted(path.name for path in (output / "run").glob("*checkpoint-*")) if output.exists() else []
            resumed = subprocess.run(command(data, output), capture_output=True, text=True)
            if resumed.returncode:
                print(
                    f"killed after {delay:5.1f} s: the resume ended with {resumed.returncode}\n{resumed.stderr[-2000:]}"
                )
                bad += 1
                continue
            different = differing(expected, final_state(output / "run"))
            bad += bool(different)
            verdict = f"DIFFERENT: {different[:3]}" if different else "bit-identical"
            print(f"killed after {delay:5.1f} s, found {', '.join(left) or 'no checkpoint'}: {verdict}", flush=True)
    print(f"{options.kills - bad} of {options.kills} resumed runs are bit-identical")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
