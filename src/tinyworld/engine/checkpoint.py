"""Checkpoints that are complete and verified, or absent.

checkpoint-N/ holds N finished steps:
  model.safetensors      the fp32 master weights, public key names
  ema.safetensors        their moving average, when ema_decay > 0
  state/trainer.pt       optimizer, training state (plain values and tensors; loads with weights_only)
  state/rng.pt           the random state of each rank
  manifest.json          sizes and SHA-256 of all of these, the step, the task's fingerprint; written last
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyworld.core import files
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError

NAME = re.compile(r"^checkpoint-(\d+)$")


@dataclass(frozen=True)
class Found:
    """A checkpoint folder and what verification says of it (no problems = complete)."""

    path: Path
    step: int
    problems: list[str]

    @property
    def bytes(self) -> int:
        return sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())


def listing(run: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest step first, unverified."""
    return sorted((path for path in run.glob("checkpoint-*") if NAME.match(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step in a checkpoint folder's name, -1 for another name."""
    match = NAME.match(path.name)
    return int(match[1]) if match else -1


def inspect(path: Path) -> Found:
    manifest = files.read_manifest(path) or {}
    return Found(path, int(manifest.get("step", step_of(path))), files.verify_folder(path))


def newest_good(run: Path) -> Path | None:
    """The newest checkpoint that verifies; every newer one that does not is named in the log."""
    for path in reversed(listing(run)):
        problems = files.verify_folder(path)
        if not problems:
            return path
        LOGGER.warning("%s is damaged and is passed over: %s", path.name, "; ".join(problems[:3]))
    return None


def save(
    run: Path,
    step: int,
    write_weights: dict[str, Callable[[Path], None]],
    trainer: dict[str, Any],
    rng_of_ranks: list[dict[str, Any]],
    fingerprint: dict[str, Any],
) -> Path:
    """Write checkpoint-`step` and point step-N.safetensors and latest.safetensors at its best weights (the average when
    there is one). `write_weights` maps 'model' and optionally 'ema' to a function that writes that file.
    """
    final = run / f"checkpoint-{step}"
    with files.staged_folder(final, {"step": step, "fingerprint": fingerprint}) as folder:
        for name, write in write_weights.items():
            write(folder / f"{name}.safetensors")
        (folder / "state").mkdir()
        torch.save(trainer, folder / "state" / "trainer.pt")
        torch.save(rng_of_ranks, folder / "state" / "rng.pt")
    problems = files.verify_folder(final)
    if problems:
        raise CheckpointError(f"{final} was written but does not read back: {'; '.join(problems)}. Check the disk.")
    weights = final / ("ema.safetensors" if "ema" in write_weights else "model.safetensors")
    files.hard_link(weights, run / f"step-{step}.safetensors")
    files.hard_link(weights, run / "latest.safetensors")
    return final


def load(path: Path, fingerprint: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trainer state and random states of a checkpoint. Raises CheckpointError when damaged or of another task."""
    problems = files.verify_folder(path)
    if problems:
        raise CheckpointError(
            f"{path} cannot be resumed from: {'; '.join(problems[:3])}. Use --resume_from_checkpoint latest for the newest "
            "checkpoint that is complete, or `tinyworld checkpoint list` to see all."
        )
    saved = (files.read_manifest(path) or {}).get("fingerprint", {})
    changed = [
        f"{key} was {saved.get(key)!r}, is now {fingerprint[key]!r}"
        for key in fingerprint
        if saved.get(key) != fingerprint[key]
    ]
    if changed:
        raise CheckpointError(
            f"{path} belongs to a run with other settings, and going on would not be a resume: {'; '.join(changed)}. "
            "Restore these settings, or start a new run from its weights with --pretrained_model_path "
            f"{path / 'model.safetensors'}."
        )
    trainer = torch.load(path / "state" / "trainer.pt", map_location="cpu", weights_only=True)
    rng_of_ranks = torch.load(path / "state" / "rng.pt", map_location="cpu", weights_only=True)
    return trainer, rng_of_ranks


def prune(run: Path, keep: int) -> list[Path]:
    """Remove the oldest checkpoints (and their step-N link) beyond the newest `keep` that verify; 0 keeps all.

    Damaged folders do not count towards `keep`, so the last good checkpoint is never removed.
    """
    if keep <= 0:
        return []
    good = [path for path in listing(run) if not files.verify_folder(path)]
    removed = good[:-keep]
    for path in removed:
        shutil.rmtree(path)
        (run / f"step-{step_of(path)}.safetensors").unlink(missing_ok=True)
    return removed
