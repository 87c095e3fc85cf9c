"""A run folder as training leaves it: 300 steps in two processes, three validations, previews, checkpoints, mishaps."""

import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tinyworld.core.names import file_name

T0 = 1_790_000_000.0
CLIPS = [f"walk/clip_{name}" for name in ("meadow", "harbour", "stairs", "crossing", "market", "tunnel")]
CONFIG = """\
task: taehv
name: taehv_demo
model: {variant: taecvx}
training: {max_train_steps: 300, mixed_precision: bf16}
validation: {validation_steps: 100, metric_for_best_model: psnr}
"""


def write_mp4(path: Path, frames: int = 12, height: int = 64, width: int = 64, seed: int = 0) -> None:
    """Original, a paler reconstruction and their difference, side by side, with something moving."""
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(12))
        stream.width, stream.height, stream.pix_fmt = 3 * width, height, "yuv420p"
        for t in range(frames):
            ball = np.exp(-((x - (8 + 4 * t + seed)) ** 2 + (y - height / 2) ** 2) / 60)
            left = np.stack([90 + x + 20 * seed % 60, 60 + y, 120 + 100 * ball], axis=-1).clip(0, 255)
            right = left * 0.85 + 15
            picture = np.concatenate([left, right, (4 * abs(left - right)).clip(0, 255)], axis=1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))


def step_record(step: int, noise: random.Random, time: float) -> dict[str, Any]:
    fall = math.exp(-step / 70)
    reconstruction = (0.9 * fall + 0.06) * noise.uniform(0.85, 1.15)
    flicker = (0.02 * fall + 0.004) * noise.uniform(0.7, 1.3)
    latent = (0.3 * fall + 0.001) * noise.uniform(0.9, 1.1)
    data = noise.uniform(0.004, 0.02) + (0.25 if step % 97 == 0 else 0)
    return {
        "event": "step",
        "time": time,
        "step": step,
        "losses": {
            "total": reconstruction + flicker + latent,
            "reconstruction": reconstruction,
            "flicker": flicker,
            "latent": latent,
            "encoder": 0.0,
        },
        "learning_rate": 1e-3 * min(step / 30, 1, (1 + math.cos(math.pi * step / 300)) / 2 + 0.01),
        "gradient_norm": (0.3 + 2 * fall) * noise.lognormvariate(0, 0.3),
        "seconds_per_step": 0.45 + data + noise.uniform(0, 0.05),
        "data_seconds": data,
        "samples_seen": 4 * step,
        "latent_std": 1 - 0.6 * fall + noise.uniform(-0.01, 0.01),
    } | ({"memory_mb": 1400 + 60 * math.log(step)} if step % 50 == 0 else {})


def validation(step: int, psnr: float, time: float) -> dict[str, Any]:
    """An entry of validation_history.json. LPIPS is not measured; one clip has a flicker that is null."""
    profile = [psnr + 0.3, psnr + 0.1, psnr - 0.1, psnr - 0.35]
    clips = [
        {
            "id": clip,
            "psnr": psnr + 1.7 * (k - 2.5),
            "ssim": 0.75 + 0.03 * k,
            "flicker": None if k == 0 else 0.01 + 0.002 * k,
            "lpips": None,
            "psnr_by_position": profile,
        }
        for k, clip in enumerate(CLIPS)
    ]
    means = {"psnr": psnr, "ssim": 0.5 + psnr / 80, "flicker": 0.3 / psnr, "lpips": None, "psnr_by_position": profile}
    return {"step": step, "time": time, **means, "baseline": {"psnr": 15.4, "ssim": 0.412}, "clips": clips}


def journal_of(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Training to 180, killed, resumed from 150, finished at 300."""
    noise = random.Random(0)
    start = {"event": "start", "time": T0, "step": 0, "run": "demo", "recipe": "taehv_demo", "version": "0.1.0"}
    start |= {
        "parameters": 11315539,
        "resumed_from": None,
        "device": "cpu (2 threads)",
        "world_size": 1,
        "dtype": "bf16",
    }
    start |= {"clips": 35, "held_out": 6, "quarantined": 1}
    lines: list[dict[str, Any]] = [start]
    lines.append({"event": "quarantine", "time": T0, "step": 0, "path": "clips/cut.mp4", "reason": "the file was cut"})

    def train(first: int, last: int, offset: float) -> None:
        for step in range(first, last + 1):
            now = T0 + offset + 0.5 * step
            if step == 212:
                ids = ["walk/clip_tunnel", "walk/clip_market"]
                lines.append(
                    {"event": "skip", "time": now, "step": step, "reason": "loss nan, gradient norm nan", "ids": ids}
                )
                continue
            lines.append(step_record(step, noise, now))
            for entry in history:
                if entry["step"] == step:
                    metrics = {key: entry[key] for key in ("psnr", "ssim", "flicker", "lpips", "psnr_by_position")}
                    more = {"seconds": 3.2, "metrics": metrics, "baseline": entry["baseline"], "best": step == 200}
                    lines.append({"event": "validation", "time": now, "step": step, **more})
            if step % 50 == 0:
                saved = {"path": f"checkpoint-{step}", "seconds": 0.84, "bytes": 181_000_000}
                lines.append({"event": "checkpoint", "time": now, "step": step, **saved})

    train(1, 180, 0)
    lines.append(start | {"time": T0 + 200, "step": 150, "resumed_from": "/runs/demo/checkpoint-150"})
    train(151, 300, 130)
    end = {"reason": "finished", "message": "", "exit_code": 0}
    lines.append({"event": "stop", "time": T0 + 290, "step": 300, **end})
    return lines


def write_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    history = [validation(100, 19.8, T0 + 50), validation(200, 24.31, T0 + 230), validation(300, 24.02, T0 + 285)]
    (folder / "validation_history.json").write_text(json.dumps(history))
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal_of(history)))
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "best_model").mkdir()
    best = {key: value for key, value in history[1].items() if key != "clips"}
    info = {"metric_for_best_model": "psnr", **best}
    (folder / "best_model" / "model_info.json").write_text(json.dumps(info))
    (folder / "checkpoint-300").mkdir()
    for step in (200, 300):
        (folder / "previews" / f"step-{step}").mkdir(parents=True)
        for seed, clip in enumerate(CLIPS[:2]):
            write_mp4(folder / "previews" / f"step-{step}" / f"{file_name(clip)}.mp4", seed=seed)
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A fresh copy that a test may damage."""
    return write_run(tmp_path / "demo-20260921")
