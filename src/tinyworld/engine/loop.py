"""From a task and a recipe to a finished run: folder, lock, journal, signals, and a last word however it ends."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from tinyworld.config.dump import to_yaml
from tinyworld.config.schema import Recipe
from tinyworld.core import dist, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, Interrupted, UserError
from tinyworld.core.version import __version__
from tinyworld.engine import accelerate_setup
from tinyworld.engine.journal import Journal, log_to
from tinyworld.engine.run import (
    JOURNAL,
    RunPlan,
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
    """Train `task` as `recipe` says.

    Raises Interrupted after a signal, once everything is saved, and UserError kinds for what the user can mend. The
    journal's last line says how the run ended in every case but a kill.
    """
    accelerator = accelerate_setup.build(recipe)
    try:
        folder = dist.on_main(lambda: run_folder(recipe))
        with contextlib.ExitStack() as held:
            if dist.is_main():
                held.enter_context(lock(folder))
            plan = dist.on_main(lambda: prepare_run(recipe, folder))
            journal = held.enter_context(_logged(folder))
            return _run(task, recipe, accelerator, plan, journal)
    finally:
        accelerate_setup.close(accelerator)


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


def _run(task: Task, recipe: Recipe, accelerator: Accelerator, plan: RunPlan, journal: Journal) -> Outcome:
    LOGGER.info("run folder: %s", plan.folder)
    trainer: Trainer | None = None
    stop = StopRequest()
    try:
        with stop.installed():
            rng.seed_all(rng.derive_seed(recipe.run.seed, "train", dist.rank()))
            trainer = Trainer(task, recipe, accelerator, plan, journal)
            trainer.tracker = accelerate_setup.build_tracker(recipe, plan.folder, trainer.state.step)
            dist.on_main(lambda: start_from(plan, to_yaml(recipe.anchored()), journal))
            _announce(task, recipe, trainer, plan, journal)
            reason = trainer.fit(stop)
    except Interrupted as end:
        _last_word(trainer, journal, "signal", str(end), EXIT_INTERRUPTED)
        raise
    except BaseException as error:
        code = EXIT_USER_ERROR if isinstance(error, UserError | OSError) else 1
        _last_word(trainer, journal, "error", f"{type(error).__name__}: {error}", code)
        LOGGER.error("stopped by %s", type(error).__name__)
        raise
    finally:
        if trainer is not None and trainer.tracker is not None:
            trainer.tracker.finish()
    _last_word(trainer, journal, reason, "", 0)
    LOGGER.info("%s at step %d; weights: %s", reason, trainer.state.step, plan.folder / "final_model.safetensors")
    return Outcome(plan.folder, reason, trainer.state.step, trainer.state.history)


def _last_word(trainer: Trainer | None, journal: Journal, reason: str, message: str, code: int) -> None:
    journal.write("stop", trainer.state.step if trainer else 0, reason=reason, message=message, exit_code=code)


def _announce(task: Task, recipe: Recipe, trainer: Trainer, plan: RunPlan, journal: Journal) -> None:
    parameters = sum(p.numel() for p in trainer.parameters)
    facts = task.describe()
    journal.write(
        "start",
        trainer.state.step,
        run=plan.folder.name,
        recipe=recipe.name,
        version=__version__,
        parameters=parameters,
        resumed_from=plan.checkpoint,
        device=accelerate_setup.device_name(trainer.device),
        world_size=dist.world_size(),
        dtype=recipe.training.mixed_precision,
        **facts,
    )
    if plan.checkpoint:
        LOGGER.info("resumed from %s: %d steps done", plan.checkpoint, trainer.state.step)
    shown = ", ".join(f"{name} {value}" for name, value in facts.items())
    LOGGER.info("%s: %s parameters, %s, device %s", recipe.name, f"{parameters:,}", shown, trainer.device)
