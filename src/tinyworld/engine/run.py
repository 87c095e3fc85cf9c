"""The run folder: which one, and what to resume from. One resolver for every way a user names a checkpoint."""

import fcntl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinyworld.config.schema import Recipe
from tinyworld.core import files
from tinyworld.core.errors import CheckpointError, ConfigError, MissingFileError
from tinyworld.engine import checkpoint

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class RunPlan:
    """Where a run writes, and the verified checkpoint it starts from (None = from step 0)."""

    folder: Path
    checkpoint: Path | None
    note: str | None = None


def plan_run(recipe: Recipe) -> RunPlan:
    """Decide the folder and the checkpoint from output_dir, run_name and resume_from_checkpoint.

    `latest` means the newest checkpoint that verifies, in the named run or else in the newest run of this recipe;
    `checkpoint-N` is looked for in the same run; anything else is a path to a checkpoint folder, which goes on in its own
    run folder unless run_name names another.
    """
    output = Path(recipe.run.output_dir).expanduser().resolve()
    named = output / recipe.run.run_name if recipe.run.run_name else None
    wanted = recipe.checkpoint.resume_from_checkpoint
    if wanted is None:
        folder = named or _fresh_name(output, recipe.name)
        if (folder / JOURNAL).exists():
            raise ConfigError(
                f"{folder} already holds a run. Use --resume_from_checkpoint latest to go on with it, or another --run_name."
            )
        return RunPlan(folder, None)
    if wanted == "latest" or checkpoint.NAME.match(wanted):
        known = named or _newest_run(output, recipe.name)
        if known is None:
            return RunPlan(
                _fresh_name(output, recipe.name), None, f"no run of {recipe.name} in {output} yet: starting from step 0"
            )
        return _within(known, wanted)
    path = files.find(wanted, None, "checkpoint", "checkpoint.resume_from_checkpoint")
    if not path.is_dir() or files.read_manifest(path) is None:
        raise CheckpointError(
            f"{path} is not a checkpoint folder (no readable {files.MANIFEST}). Name a folder like output/<run>/checkpoint-500, "
            "a name like checkpoint-500, or latest. To start from weights alone use --pretrained_model_path."
        )
    return RunPlan(
        named or (path.parent if (path.parent / JOURNAL).exists() else _fresh_name(output, recipe.name)), path
    )


def _within(folder: Path, wanted: str) -> RunPlan:
    if wanted != "latest":
        path = folder / wanted
        if not path.is_dir():
            there = ", ".join(p.name for p in checkpoint.listing(folder)) or "none"
            raise MissingFileError(
                f"No {wanted} in {folder}; there: {there}. Change checkpoint.resume_from_checkpoint."
            )
        return RunPlan(folder, path)
    newest = checkpoint.newest_good(folder)
    note = None if newest else f"{folder} has no complete checkpoint yet: starting from step 0"
    return RunPlan(folder, newest, note)


def _fresh_name(output: Path, name: str) -> Path:
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, count = output / stem, 1
    while folder.exists():
        count += 1
        folder = output / f"{stem}-{count}"
    return folder


def _newest_run(output: Path, name: str) -> Path | None:
    runs = [path.parent for path in output.glob(f"{name}-*/{JOURNAL}")]
    return max(runs, key=lambda run: (run / JOURNAL).stat().st_mtime, default=None)


def lock(folder: Path) -> IO[str]:
    """Hold the run folder for this process; the lock goes with the process, however it ends."""
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(
            f"{folder} is in use by another training process. Wait for it, stop it, or use another --run_name."
        ) from error
    return file
