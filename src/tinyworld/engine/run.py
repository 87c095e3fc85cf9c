"""The run folder: which one, and what to resume from. One resolver for every way a user names a checkpoint."""

import fcntl
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinyworld.config.resume import Change, changes
from tinyworld.config.schema import Recipe
from tinyworld.config.yaml_text import read_yaml
from tinyworld.core import files
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError, ConfigError, MissingFileError
from tinyworld.core.journal_lines import JOURNAL, read_lines
from tinyworld.engine import checkpoint
from tinyworld.engine.journal import Journal

CONFIG = "config.yaml"
CAPSULES = "capsules"
WEIGHTS = ".safetensors"
ABANDONED = "abandoned"
"""Where checkpoints go that lie after the one a run was taken back to."""


@dataclass(frozen=True)
class RunPlan:
    """Where a run writes, and the checkpoint it starts from (None = from step 0). verified: its content was just read."""

    folder: Path
    checkpoint: Path | None
    verified: bool = False

    @property
    def is_branch(self) -> bool:
        """Whether the checkpoint belongs to another run folder, whose best model stays there."""
        return self.checkpoint is not None and self.checkpoint.parent != self.folder


def run_folder(recipe: Recipe) -> Path:
    """The run's folder, from output_dir, run_name and resume_from_checkpoint; made when it is not there.

    `latest` and `checkpoint-N` mean the named run, or else the newest run of this recipe; a path to a checkpoint goes on
    in the run it lies in, unless run_name names a new one. Raises ConfigError where a run would be written over.
    """
    output = Path(recipe.run.output_dir).expanduser().resolve()
    named = output / recipe.run.run_name if recipe.run.run_name else None
    wanted = recipe.checkpoint.resume_from_checkpoint
    if wanted is None or not names_a_checkpoint(wanted):
        own = resumed_path(recipe).parent if wanted is not None else None
        folder = named or (own if own is not None and (own / JOURNAL).exists() else _fresh_name(output, recipe.name))
        if folder != own and _holds_a_run(folder, resumed_path(recipe) if wanted is not None else None):
            raise ConfigError(
                f"{folder} already holds a run. Use --run_name {folder.name} --resume_from_checkpoint latest to go on with "
                "it, or another --run_name."
            )
    else:
        folder = named or _newest_run(output, recipe.name) or _fresh_name(output, recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare_run(recipe: Recipe, folder: Path) -> RunPlan:
    """What to start from, once the folder is locked: leftovers of killed processes are cleared, then the checkpoint is
    looked for. Raises MissingFileError or CheckpointError for one that is asked for by name and not usable."""
    for place in (folder, folder / CAPSULES):
        files.remove_staging(place)
    wanted = recipe.checkpoint.resume_from_checkpoint
    if wanted is None:
        return RunPlan(folder, None)
    if not names_a_checkpoint(wanted):
        return RunPlan(folder, resumed_path(recipe))
    if wanted != "latest":
        path = folder / wanted
        if not path.is_dir():
            there = ", ".join(p.name for p in checkpoint.listing(folder)) or "none"
            raise MissingFileError(
                f"No {wanted} in {folder}; there: {there}. Change checkpoint.resume_from_checkpoint."
            )
        return RunPlan(folder, path)
    newest = checkpoint.newest_good(folder)
    if newest is None:
        LOGGER.warning("%s has no complete checkpoint yet: starting from step 0", folder)
    return RunPlan(folder, newest, verified=True)


def start_from(plan: RunPlan, config: str, journal: Journal) -> None:
    """Make the folder that of a run that stands at its checkpoint: settings written, later checkpoints set aside.

    Going back to an earlier checkpoint starts another course; `latest` must not mean the end of the one that was left.
    """
    files.write_atomic(plan.folder / CONFIG, config)
    step = checkpoint.saved_step(plan.checkpoint) if plan.checkpoint and not plan.is_branch else 0
    later = [path for path in checkpoint.listing(plan.folder) if checkpoint.step_of(path) > step]
    if later:
        aside = _unused(plan.folder / ABANDONED / time.strftime("%Y%m%d-%H%M%S"))
        aside.mkdir(parents=True)
        for path in later:
            path.rename(aside / path.name)
            (plan.folder / f"step-{checkpoint.step_of(path)}.safetensors").unlink(missing_ok=True)
        names = ", ".join(path.name for path in later)
        LOGGER.warning("going on from step %d: later checkpoints (%s) are set aside in %s", step, names, aside)
        journal.write("set_aside", step, checkpoints=[path.name for path in later], folder=aside)
    checkpoint.relink(plan.folder)  # a kill may have come between a checkpoint and its links


def changed_settings(path: Path, recipe: Recipe, processes: tuple[int, int] | None = None) -> list[Change]:
    """What is set otherwise than in the run that a checkpoint lies in; empty where its settings are not there.
    processes: of the run before and of this one. Raises ConfigError for settings that cannot be read."""
    settings = path.parent / CONFIG
    return changes(read_yaml(settings), recipe, processes) if settings.is_file() else []


def refused_settings(path: Path, recipe: Recipe) -> list[str]:
    """Of the changed settings those that a resume does not allow, in words; empty where they cannot be told."""
    try:
        found = changed_settings(path, recipe)
    except ConfigError:
        return []
    return [f"{one.key} was {one.before}, is now {one.after}" for one in found if one.kind == "forbidden"]


def names_a_checkpoint(wanted: str) -> bool:
    """Whether the value is `latest` or checkpoint-N, which are looked for in a run, and not a path."""
    return wanted == "latest" or checkpoint.NAME.match(wanted) is not None


def resumed_path(recipe: Recipe) -> Path:
    """The checkpoint folder that resume_from_checkpoint names as a path, or one of whose weights it names the link in the run
    (step-N.safetensors, latest.safetensors). Raises MissingFileError or CheckpointError."""
    wanted = recipe.checkpoint.resume_from_checkpoint
    assert wanted is not None
    path = files.find(wanted, recipe.source_folder, "checkpoint", "checkpoint.resume_from_checkpoint")
    path = checkpoint.linked_to(path) or path
    if path.suffix == WEIGHTS or _holds_weights_alone(path):
        raise CheckpointError(
            f"{path} holds weights alone and cannot be resumed. Use --resume_from_checkpoint latest to go on with a run, or "
            f"start a new run from these weights with --pretrained_model_path {wanted}."
        )
    if not path.is_dir() or files.read_manifest(path) is None:
        raise CheckpointError(
            f"{path} is not a checkpoint folder (no readable {files.MANIFEST}). Name a folder like output/<run>/checkpoint-500, "
            "a name like checkpoint-500, or latest. To start from weights alone use --pretrained_model_path."
        )
    return path


def _holds_weights_alone(path: Path) -> bool:
    """As best_model does, whose manifest knows no task and which has no training state."""
    stateless = not (path / checkpoint.STATE).is_dir() and "fingerprint" not in (files.read_manifest(path) or {})
    return stateless and any(path.glob(f"*{WEIGHTS}"))


def _holds_a_run(folder: Path, begins_from: Path | None) -> bool:
    """A folder in which a start failed before the first step is free; so is one whose run began from the same checkpoint and
    ended before it had one of its own: it begins again."""
    if checkpoint.listing(folder):
        return True
    journal = folder / JOURNAL
    events = read_lines(journal)[0] if journal.exists() else []
    starts = [event for event in events if event["event"] == "start"]
    again = begins_from is not None and bool(starts) and starts[-1].get("resumed_from") == str(begins_from)
    return not again and any(event["event"] == "step" for event in events)


def _fresh_name(output: Path, name: str) -> Path:
    return _unused(output / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def _unused(folder: Path) -> Path:
    """The folder, or with -2, -3, … behind its name when two are wanted within one second."""
    found, count = folder, 1
    while found.exists():
        count += 1
        found = folder.with_name(f"{folder.name}-{count}")
    return found


def _newest_run(output: Path, name: str) -> Path | None:
    pattern = re.compile(re.escape(name) + r"-\d{8}-\d{6}(-\d+)?")
    runs = [path.parent for path in output.glob(f"*/{JOURNAL}") if pattern.fullmatch(path.parent.name)]
    return max(runs, key=lambda run: (run / JOURNAL).stat().st_mtime, default=None)


def lock(folder: Path) -> IO[str]:
    """Hold the run folder for this process; the lock goes with the process, however it ends.

    A record lock (fcntl), which forked loader processes do not inherit: they outlive a killed trainer for a moment.
    Raises ConfigError while another process holds the folder.
    """
    file = (folder / ".lock").open("w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(
            f"{folder} is in use by another training process. Wait for it, stop it, or use another --run_name."
        ) from error
    return file
