"""Checkpoints that are complete and verified, or absent.

checkpoint-N/ holds N finished steps:
  model.safetensors      the fp32 master weights, public key names
  ema.safetensors        their moving average, when ema_decay > 0
  state/trainer.pt       optimizer, training state (plain values and tensors; loads with weights_only)
  state/rng-rank0.pt …   the random state of each rank
  state/NAME.pt          an auxiliary's networks and optimizer; state/NAME-rank0.pt …: what only that rank knows of it
  manifest.json          sizes and SHA-256 of all of these, the step, the task's fingerprint; written last
"""

import contextlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyworld.core import dist, files
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError

NAME = re.compile(r"^checkpoint-(\d+)$")
STATE = "state"


@dataclass(frozen=True)
class Found:
    """A checkpoint folder and what verification says of it (no problems = complete)."""

    path: Path
    step: int
    problems: list[str]

    @property
    def bytes(self) -> int:
        return size_of(self.path)


def listing(run: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest step first, unverified."""
    return sorted((path for path in run.glob("checkpoint-*") if NAME.match(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step in a checkpoint folder's name, -1 for another name."""
    match = NAME.match(path.name)
    return int(match[1]) if match else -1


def size_of(path: Path) -> int:
    """Bytes of all files of a checkpoint."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


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
    states: dict[str, Any],
    rank_states: dict[str, Any],
    fingerprint: dict[str, Any],
) -> Path:
    """Write checkpoint-`step` and point step-N.safetensors and latest.safetensors at its best weights (the average when
    there is one). Every rank calls it and writes its own part; when one cannot, none has a checkpoint.

    write_weights: 'model' and optionally 'ema' → a function that writes that file. states: name → what the main rank
    writes to state/. rank_states: name → what each rank does, as NAME-rank<k>.
    """
    final = run / f"checkpoint-{step}"
    with contextlib.ExitStack() as stack:
        about = {"step": step, "fingerprint": fingerprint}
        folder = dist.on_main(lambda: _begin(stack, final, about))
        dist.together(lambda: _write(folder, write_weights, states, rank_states))
        dist.on_main(stack.close)
    dist.on_main(lambda: _link(run, final, step, "ema" if "ema" in write_weights else "model"))
    return final


def _begin(stack: contextlib.ExitStack, final: Path, about: dict[str, Any]) -> Path:
    folder = stack.enter_context(files.staged_folder(final, about))
    (folder / STATE).mkdir()
    return folder


def _write(
    folder: Path, weights: dict[str, Callable[[Path], None]], states: dict[str, Any], rank_states: dict[str, Any]
) -> None:
    for name, state in rank_states.items():
        torch.save(state, folder / STATE / _of_rank(name))
    if dist.is_main():
        for name, write in weights.items():
            write(folder / f"{name}.safetensors")
        for name, state in states.items():
            torch.save(state, folder / STATE / f"{name}.pt")


def _of_rank(name: str) -> str:
    return f"{name}-rank{dist.rank()}.pt"


def _link(run: Path, final: Path, step: int, kind: str) -> None:
    problems = files.verify_folder(final, content=False)  # staged_folder has just read every byte
    if problems:
        raise CheckpointError(f"{final} was written but is not there: {'; '.join(problems)}. Check the disk.")
    for link in (f"step-{step}.safetensors", "latest.safetensors"):
        files.hard_link(final / f"{kind}.safetensors", run / link)


def check(path: Path, fingerprint_at: Callable[[int], dict[str, Any]]) -> None:
    """Raise CheckpointError when a checkpoint is damaged or of another task. fingerprint_at: step → the task's then."""
    problems = files.verify_folder(path)
    if problems:
        raise CheckpointError(
            f"{path} cannot be resumed from: {'; '.join(problems[:3])}. Use --resume_from_checkpoint latest for the newest "
            "checkpoint that is complete, or `tinyworld checkpoint list` to see all."
        )
    manifest = files.read_manifest(path) or {}
    saved, fingerprint = manifest.get("fingerprint", {}), fingerprint_at(int(manifest.get("step", 0)))
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


def read_state(path: Path, name: str) -> Any:
    """What `save` was given as states[name]; None when there is none."""
    return _read(path / STATE / f"{name}.pt")


def read_rank_state(path: Path, name: str) -> Any:
    """What this rank gave as rank_states[name]; None when the checkpoint comes from fewer ranks."""
    return _read(path / STATE / _of_rank(name))


def _read(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None


def prune(run: Path, keep: int) -> list[Path]:
    """Remove the oldest checkpoints (and their step-N link) beyond the newest `keep` that are complete; 0 keeps all.

    Incomplete folders do not count towards `keep`, so the last good checkpoint is never removed.
    """
    if keep <= 0:
        return []
    good = [path for path in listing(run) if not files.verify_folder(path, content=False)]
    removed = good[:-keep]
    for path in removed:
        shutil.rmtree(path)
        (run / f"step-{step_of(path)}.safetensors").unlink(missing_ok=True)
    return removed
