"""Checkpoints that are complete and verified, or absent.

checkpoint-N/ holds N finished steps:
  model.safetensors      the fp32 master weights, public key names
  ema.safetensors        their moving average, when ema_decay > 0
  state/trainer.pt       the training state: counters, history (plain values; loads with weights_only, as all below)
  state/optimizer.pt     AdamW's moments by parameter name: the same whatever strategy and number of processes wrote it
  state/rng-rank0.pt …   the random state of each rank
  state/NAME.pt          an auxiliary's networks and optimizer; state/NAME-rank0.pt …: what only that rank knows of it
  manifest.json          sizes and SHA-256 of all of these, the step, the task's fingerprint; written last
"""

import contextlib
import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyworld.core import files
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError
from tinyworld.core.journal_lines import JOURNAL
from tinyworld.core.version import __version__

NAME = re.compile(r"^checkpoint-(\d+)$")
STATE = "state"
LATEST = "latest.safetensors"
SMALL_FILES = 2**16
"""Bytes of what is small in a checkpoint: generators, counters, headers, the manifest."""


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


def saved_step(path: Path) -> int:
    """The step that a checkpoint's manifest states, else the one in its name. Reads no content."""
    return int((files.read_manifest(path) or {}).get("step", step_of(path)))


def inspect(path: Path) -> Found:
    return Found(path, saved_step(path), files.verify_folder(path))


def newest_good(run: Path) -> Path | None:
    """The newest checkpoint that verifies; every newer one that does not is named in the log."""
    for path in reversed(listing(run)):
        problems = files.verify_folder(path)
        if not problems:
            return path
        LOGGER.warning("%s is damaged and is passed over: %s", path.name, "; ".join(problems[:3]))
    return None


def check(
    path: Path,
    fingerprint_at: Callable[[int], dict[str, Any]],
    verified: bool = False,
    settings: Callable[[], list[str]] = list,
) -> None:
    """Raise CheckpointError when a checkpoint is damaged or of another task. fingerprint_at: step → the task's then.
    verified: its content was read just before, and is not read again. settings: what was set otherwise then, in words; told
    in place of what differs in the fingerprint, where there is something to tell."""
    problems = [] if verified else files.verify_folder(path)
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
        told = "; ".join(settings() or changed)
        raise CheckpointError(
            f"{path} belongs to a run with other settings, and going on would not be a resume: {told}. "
            "Restore these settings, or start a new run from its weights with --pretrained_model_path "
            f"{path / 'model.safetensors'}."
        )
    writer = manifest.get("tinyworld_version", __version__)
    if writer != __version__:
        LOGGER.warning("%s was written by tinyworld %s, this is %s: numbers may differ", path.name, writer, __version__)


def read_state(path: Path, name: str) -> Any:
    """What the writer was given as states[name]; None when there is none."""
    return _read(path / STATE / f"{name}.pt")


def rank_count(path: Path, name: str) -> int:
    """How many ranks gave rank_states[name]."""
    pattern = re.compile(rf"{re.escape(name)}-rank\d+\.pt")
    return sum(1 for file in (path / STATE).iterdir() if pattern.fullmatch(file.name))


def read_rank_state(path: Path, name: str, rank: int) -> Any:
    """What one rank of the saving run gave as rank_states[name]."""
    return _read(path / STATE / f"{name}-rank{rank}.pt")


def read_rank_states(path: Path, name: str) -> Iterator[Any]:
    """What each rank gave as rank_states[name], in rank order, one at a time: they can be large."""
    return (read_rank_state(path, name, rank) for rank in range(rank_count(path, name)))


def _read(file: Path) -> Any:
    if not file.exists():
        return None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds something else than tensors and plain values, which could run code when it is opened, or is no "
            "state of a run at all; it was not opened. Use a checkpoint from a source that you trust."
        ) from error


def prune(run: Path, keep: int, verified: Path | None = None) -> list[Path]:
    """Remove the oldest checkpoints (and their step-N link) beyond the newest `keep` that are complete; 0 keeps all.

    Incomplete folders do not count towards `keep`. Kept besides: what another run beside this one began from, and the
    newest that verifies when none of the newest `keep` does. verified: a checkpoint whose content was just read back,
    which spares reading one again.
    """
    if keep <= 0:
        return []
    good = [path for path in listing(run) if not files.verify_folder(path, content=False)]
    kept, removed = good[-keep:], good[:-keep]
    if removed and verified not in kept and not _newest_verified(kept):
        last = _newest_verified(removed)
        removed = [path for path in removed if path != last]
    if removed:
        parents = _parents(run)
        removed = [path for path in removed if path.resolve() not in parents]
    for path in removed:
        (run / f"step-{step_of(path)}.safetensors").unlink(missing_ok=True)
        files.remove_folder(path)
    return removed


def _newest_verified(paths: list[Path]) -> Path | None:
    return next((path for path in reversed(paths) if not files.verify_folder(path)), None)


def _parents(run: Path) -> set[Path]:
    """Checkpoints that runs beside `run` began from: `resumed_from` and `parent_checkpoint` (of an earlier stage) of the start
    events before their first step."""
    found: set[Path] = set()
    own = run.resolve()
    for journal in own.parent.glob(f"*/{JOURNAL}"):
        if journal.parent != own:
            found |= {linked_to(path) or path for path in map(Path, _began_from(journal))}
    return found


def _began_from(journal: Path) -> Iterator[str]:
    with contextlib.suppress(PermissionError), journal.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:  # a line that a kill has cut
                continue
            kind = event.get("event") if isinstance(event, dict) else None
            if kind == "step":
                return
            if kind == "start":
                yield from (event[key] for key in ("resumed_from", "parent_checkpoint") if event.get(key))


def best_weights(path: Path) -> Path:
    """The weights of a checkpoint that are validated, linked and exported: the average when there is one."""
    average = path / "ema.safetensors"
    return average if average.exists() else path / "model.safetensors"


def link(path: Path) -> None:
    """Point step-N.safetensors and latest.safetensors of the run at the best weights of a checkpoint."""
    for name in (f"step-{step_of(path)}.safetensors", LATEST):
        files.hard_link(best_weights(path), path.parent / name)


def linked_to(file: Path) -> Path | None:
    """The checkpoint whose weights `file` is a link to, in the same run; None for any other path."""
    if not file.is_file():
        return None
    weights = ((path, best_weights(path)) for path in listing(file.parent))
    return next((path for path, own in weights if own.exists() and own.samefile(file)), None)


def relink(run: Path) -> Path | None:
    """Point latest.safetensors at the newest checkpoint that verifies, after a kill between its rename and its link or
    after newer ones were set aside; that checkpoint, None when there is none.

    Reads no content when the links are right already.
    """
    complete = [path for path in listing(run) if not files.verify_folder(path, content=False)]
    if complete and _linked(complete[-1]):
        return complete[-1]
    newest = newest_good(run)
    if newest is not None:
        link(newest)
    return newest


def _linked(path: Path) -> bool:
    links = (path.parent / f"step-{step_of(path)}.safetensors", path.parent / LATEST)
    return all(file.exists() and file.samefile(best_weights(path)) for file in links)


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(tensor_bytes(item) for item in value.values())
    return sum(tensor_bytes(item) for item in value) if isinstance(value, list | tuple) else 0


def bytes_of(weights: int, average: bool, auxiliaries: int = 0) -> int:
    """About how many bytes a checkpoint takes: the fp32 weights (`weights` bytes), AdamW's two moments, the average when
    there is one, and `auxiliaries` bytes (of all ranks)."""
    return weights * (4 if average else 3) + auxiliaries + SMALL_FILES


def space_problem(folder: Path, need: int, keep: int) -> str | None:
    """A paragraph when `keep` checkpoints of `need` bytes and the one being written do not fit on the disk of a run
    folder (which need not exist yet); None when they do.

    keep: checkpoints_total_limit, or how many the run writes in all when that is 0. Checkpoints that are in the folder
    already are counted as part of these.
    """
    there = sum(size_of(path) for path in listing(folder))
    free = free_bytes(folder)
    if free >= max(need, (keep + 1) * need - there):
        return None
    fitting = (free + there) // need - 1 if free >= need else 0
    lower = f"lower checkpoint.checkpoints_total_limit to {fitting}, " if fitting > 0 else ""
    return (
        f"The disk of {folder} has {size_text(free)} free, and the run's checkpoints need {size_text((keep + 1) * need)}: "
        f"{keep} of about {size_text(need)} each, and one more while it is written"
        f"{f' ({size_text(there)} are there already)' if there else ''}. Make room, {lower}or set run.output_dir to a "
        "folder on a larger disk."
    )


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk where `folder` is, or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def size_text(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
