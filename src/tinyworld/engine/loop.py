"""From a task and a recipe to a finished run: folder, lock, journal, signals, and a last word however it ends."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed import DistError

from tinyworld.config.dump import to_yaml
from tinyworld.config.schema import Recipe
from tinyworld.core import dist, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import EXIT_HUNG, EXIT_INTERRUPTED, Interrupted, ProcessLost, UserError, exit_code_of
from tinyworld.core.journal_lines import JOURNAL
from tinyworld.core.version import __version__
from tinyworld.engine import accelerate_setup, checkpoint
from tinyworld.engine.journal import Journal, log_to
from tinyworld.engine.lateness import COLLECTIVE
from tinyworld.engine.liveness import Liveness
from tinyworld.engine.run import (
    RunPlan,
    changed_settings,
    lock,
    names_a_checkpoint,
    prepare_run,
    resumed_path,
    run_folder,
    start_from,
)
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.task import Task
from tinyworld.engine.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """How a run ended without an error. `reason` is finished or early_stopping."""

    folder: Path
    reason: str
    step: int
    history: list[dict[str, Any]]


def check_start(recipe: Recipe) -> None:
    """What is cheap to know before data is scanned and models are loaded: device, tracker, the checkpoint that is named.

    Raises ConfigError, MissingExtraError, MissingFileError or CheckpointError.
    """
    accelerate_setup.require(recipe)
    resumed = recipe.checkpoint.resume_from_checkpoint
    if resumed is not None and not names_a_checkpoint(resumed):
        resumed_path(recipe)


def run_training(task: Task, recipe: Recipe) -> Outcome:
    """Train `task` as `recipe` says. With several processes, inside `accelerate_setup.processes`.

    Raises Interrupted after a signal, once everything is saved; ProcessLost when another process died or hangs; UserError
    kinds for what the user can mend. The journal's last line says how the run ended in every case but a kill.
    """
    device = accelerate_setup.training_device(recipe)
    folder = dist.on_main(lambda: run_folder(recipe))
    with contextlib.ExitStack() as held:
        dist.on_main(lambda: _hold(held, folder))
        plan = dist.on_main(lambda: prepare_run(recipe, folder))
        journal = held.enter_context(_logged(folder))
        liveness = held.enter_context(_watched(recipe, folder, journal))
        return _run(task, recipe, device, plan, journal, liveness)


def _hold(held: contextlib.ExitStack, folder: Path) -> None:
    held.enter_context(lock(folder))


@contextlib.contextmanager
def _logged(folder: Path) -> Iterator[Journal]:
    handler = log_to(folder / "training.log") if dist.is_main() else None
    journal = Journal(folder / JOURNAL)
    try:
        yield journal
    finally:
        journal.close()
        if handler is not None:
            LOGGER.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def _watched(recipe: Recipe, folder: Path, journal: Journal) -> Iterator[Liveness]:
    limits = recipe.parallel

    def on_late(text: str) -> None:
        journal.write("stop", liveness.step, reason="hung", message=text, exit_code=EXIT_HUNG)

    # With shared-out weights a rank waits for the others in the middle of a pass.
    waiting = COLLECTIVE if limits.strategy == "ddp" else COLLECTIVE | {"forward and backward"}
    liveness = Liveness(
        folder, dist.rank(), dist.world_size(), limits.startup_timeout, limits.step_timeout, on_late, waiting
    )
    liveness.start()
    try:
        yield liveness
    finally:
        liveness.close()


def _run(
    task: Task, recipe: Recipe, device: torch.device, plan: RunPlan, journal: Journal, liveness: Liveness
) -> Outcome:
    LOGGER.info("run folder: %s", plan.folder)
    trainer: Trainer | None = None
    stop = StopRequest()
    try:
        with stop.installed():
            rng.seed_all(rng.derive_seed(recipe.run.seed, "train", dist.rank()))
            trainer = Trainer(task, recipe, device, plan, journal, liveness)
            trainer.tracker = accelerate_setup.build_tracker(recipe, plan.folder, trainer.state.step)
            dist.on_main(lambda: _say_changes(plan, recipe, journal))
            dist.on_main(lambda: start_from(plan, to_yaml(recipe.anchored()), journal))
            _announce(task, recipe, trainer, plan, journal)
            reason = trainer.fit(stop)
            liveness.phase("end", trainer.state.step)
    except Interrupted as end:
        _last_word(trainer, journal, "signal", str(end), EXIT_INTERRUPTED)
        raise
    except BaseException as error:
        lost = _lost(error, liveness)
        code = EXIT_HUNG if lost else exit_code_of(error)
        _last_word(trainer, journal, "error", lost or f"{type(error).__name__}: {error}", code)
        if lost:
            raise ProcessLost(lost) from error
        if not isinstance(error, UserError):  # which says itself what is to be done
            LOGGER.error("stopped by %s", type(error).__name__)
        raise
    finally:
        if trainer is not None:
            trainer.close()
    _last_word(trainer, journal, reason, "", 0)
    LOGGER.info("%s at step %d; weights: %s", reason, trainer.state.step, plan.folder / "final_model.safetensors")
    return Outcome(plan.folder, reason, trainer.state.step, trainer.state.history)


def _say_changes(plan: RunPlan, recipe: Recipe, journal: Journal) -> None:
    """Tell what is set otherwise than when the run's settings were written; what may not change was refused before."""
    if plan.checkpoint is None:
        return
    before = checkpoint.rank_count(plan.checkpoint, "rng")
    found = [
        change
        for change in changed_settings(plan.checkpoint, recipe, (before, dist.world_size()))
        if change.key != "checkpoint.resume_from_checkpoint"  # how this very start was asked for
    ]
    for change in found:
        level = logging.INFO if change.kind == "free" else logging.WARNING
        LOGGER.log(level, "changed since then: %s from %s to %s", change.key, change.before, change.after)
    if found:
        journal.write("changed", 0, changes=[asdict(change) for change in found])


def _lost(error: BaseException, liveness: Liveness) -> str | None:
    """Which process is gone, when `error` is what a collective raises for lack of an answer."""
    if not dist.active() or not isinstance(error, RuntimeError) or isinstance(error, UserError):
        return None
    return liveness.who_is_missing() if isinstance(error, DistError) or "peer" in str(error) else None


def _last_word(trainer: Trainer | None, journal: Journal, reason: str, message: str, code: int) -> None:
    journal.write("stop", trainer.state.step if trainer else 0, reason=reason, message=message, exit_code=code)


def _announce(task: Task, recipe: Recipe, trainer: Trainer, plan: RunPlan, journal: Journal) -> None:
    facts = task.describe()
    journal.write(
        "start",
        trainer.state.step,
        run=plan.folder.name,
        recipe=recipe.name,
        version=__version__,
        parameters=trainer.trained,
        resumed_from=plan.checkpoint,
        device=accelerate_setup.device_name(trainer.device),
        world_size=dist.world_size(),
        strategy=recipe.parallel.strategy,
        dtype=recipe.training.mixed_precision,
        **facts,
    )
    if plan.checkpoint:
        LOGGER.info("resumed from %s: %d steps done", plan.checkpoint, trainer.state.step)
    shown = ", ".join(f"{name} {value}" for name, value in facts.items() if not isinstance(value, list))
    processes = f" x {dist.world_size()} ({recipe.parallel.strategy})" if dist.active() else ""
    LOGGER.info(
        "%s: %s parameters, %s, device %s%s", recipe.name, f"{trainer.trained:,}", shown, trainer.device, processes
    )
