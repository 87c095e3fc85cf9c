"""From a task and a recipe to a finished run: folder, lock, journal, signals, and a last word however it ends."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from tinyworld.config.dump import to_yaml
from tinyworld.config.schema import Recipe
from tinyworld.core import dist, files, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, Interrupted, UserError
from tinyworld.core.version import __version__
from tinyworld.engine import accelerate_setup
from tinyworld.engine.journal import Journal, log_to
from tinyworld.engine.run import JOURNAL, RunPlan, lock, plan_run
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


def run_training(task: Task, recipe: Recipe) -> Outcome:
    """Train `task` as `recipe` says.

    Raises Interrupted after a signal, once everything is saved, and UserError kinds for what the user can mend. The
    journal's last line says how the run ended in every case but a kill.
    """
    accelerator = accelerate_setup.build(recipe)
    try:
        plan = dist.from_main(plan_run(recipe))
        plan.folder.mkdir(parents=True, exist_ok=True)
        with lock(plan.folder) if dist.is_main() else contextlib.nullcontext(), _logged(plan.folder) as journal:
            if dist.is_main():
                files.remove_staging(plan.folder)
                files.write_atomic(plan.folder / "config.yaml", to_yaml(recipe))
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
    if plan.note:
        LOGGER.warning(plan.note)
    rng.seed_all(rng.derive_seed(recipe.run.seed, "train", dist.rank()))
    trainer = Trainer(task, recipe, accelerator, plan, journal)
    trainer.tracker = accelerate_setup.build_tracker(recipe, plan.folder, trainer.state.step)
    _announce(task, recipe, trainer, plan, journal)
    stop = StopRequest()
    try:
        with stop.installed():
            reason = trainer.fit(stop)
    except Interrupted as end:
        journal.write("stop", trainer.state.step, reason="signal", message=str(end), exit_code=EXIT_INTERRUPTED)
        raise
    except BaseException as error:
        code = EXIT_USER_ERROR if isinstance(error, UserError) else 1
        journal.write(
            "stop", trainer.state.step, reason="error", message=f"{type(error).__name__}: {error}", exit_code=code
        )
        LOGGER.error("stopped at step %d by %s", trainer.state.step, type(error).__name__)
        raise
    finally:
        if trainer.tracker is not None:
            trainer.tracker.finish()
    journal.write("stop", trainer.state.step, reason=reason, message="", exit_code=0)
    LOGGER.info("%s at step %d; weights: %s", reason, trainer.state.step, plan.folder / "final_model.safetensors")
    return Outcome(plan.folder, reason, trainer.state.step, trainer.state.history)


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
