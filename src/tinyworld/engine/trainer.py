"""One run's state and its loop. A step is: batches → losses → gradients → one verdict → update → average; then what is due."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.tracking import GeneralTracker

from tinyworld.config.schema import Recipe
from tinyworld.core import dist, files, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError, Interrupted
from tinyworld.engine import capsule, checkpoint, fit_memory, parallel, preflight, saving, verdict
from tinyworld.engine.auxiliaries import Auxiliaries
from tinyworld.engine.evaluate import Validator
from tinyworld.engine.journal import Journal
from tinyworld.engine.live_numbers import LiveNumbers, Took
from tinyworld.engine.liveness import Liveness
from tinyworld.engine.meters import Window, memory_mb, quotients
from tinyworld.engine.progress import TrainingProgress
from tinyworld.engine.run import RunPlan, refused_settings
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.state import TrainingState
from tinyworld.engine.step import Stepper, Taken, lacks_memory
from tinyworld.engine.task import Batch, Task
from tinyworld.engine.writer import Writer


class Trainer:
    """State of one run: modules, optimizer, counters. `fit` is the loop."""

    def __init__(
        self, task: Task, recipe: Recipe, device: torch.device, plan: RunPlan, journal: Journal, liveness: Liveness
    ) -> None:
        self.task, self.recipe, self.device, self.folder = task, recipe, device, plan.folder
        self.journal, self.liveness = journal, liveness
        roles = task.roles()
        for frozen in roles.frozen.values():
            frozen.requires_grad_(False).eval().to(device)
        self.auxiliaries = Auxiliaries(roles.auxiliary, device)
        self.raw = roles.trainable.to(device)
        # Before the strategy: under some of them a process sees only its share of a weight.
        self.trained = sum(p.numel() for p in self.raw.parameters() if p.requires_grad)
        self.weight_bytes = sum(p.nbytes for p in self.raw.parameters())
        self.strategy = parallel.build(recipe, self.raw, device)
        self.state = TrainingState()
        if plan.checkpoint:
            asked = plan.checkpoint
            dist.on_main(
                lambda: checkpoint.check(
                    asked, task.fingerprint, plan.verified, lambda: refused_settings(asked, recipe)
                )
            )
            self._restore(asked)
            if plan.is_branch:  # the best model so far stays in the run that made it; this run finds its own
                self.state.best_value = self.state.best_step = None
                self.state.validations_without_improvement = 0
        self.validator = Validator(task, recipe.validation, self.folder, device)
        saves = recipe.checkpoint
        self.writer = Writer(
            self.folder, saves.checkpoints_total_limit, saves.background_save, recipe.parallel.step_timeout
        )
        dist.on_main(self._require_space)
        self.stepper = Stepper(task, recipe, self.strategy, self.auxiliaries, device, journal, liveness)
        self.window = Window()
        self.tracker: GeneralTracker | None = None
        self._stalls: dict[int, float] = {}
        self._warned_of_notice = False
        self._said: set[str] = set()

    def _require_space(self) -> None:
        """Raise CheckpointError when the run's checkpoints will not fit on the disk."""
        need = checkpoint.bytes_of(self.weight_bytes, self._averages, self.auxiliaries.most_bytes() * dist.world_size())
        keep, every = self.recipe.checkpoint.checkpoints_total_limit, self.recipe.checkpoint.checkpointing_steps
        left = -(-(self.recipe.training.max_train_steps - self.state.step) // every)
        problem = checkpoint.space_problem(self.folder, need, min(keep or left, left))
        if problem is not None:
            raise CheckpointError(problem)

    def _measure_memory(self) -> None:
        """Run the dearest micro-batch once and forget it. Raises TrainingError on all ranks when it does not fit."""
        found = self.task.dearest() if self.state.step == 0 else None  # a run that has come so far has fitted
        if found is None:
            return
        batch, done = found

        def run() -> None:
            losses = self.task.step(self.strategy.model, batch, self.device, done)
            self.strategy.backward(losses.total, last=True)

        measured = fit_memory.measure(run, self.device, self.raw, self.auxiliaries.members, self.task.memory_advice)
        self.strategy.drop()
        LOGGER.info("memory: a micro-batch of the largest clips took %s", measured)
        self.journal.write("memory", self.state.step, bytes=measured.size, on_gpu=measured.on_gpu)

    @property
    def _averages(self) -> bool:
        return self.recipe.training.ema_decay > 0

    def _restore(self, path: Path) -> None:
        self.state = saving.restore(path, self.task, self.strategy, self.auxiliaries, self._averages)

    def fit(self, stop: StopRequest) -> str:
        """Train until max_train_steps, early stopping or a signal; returns the reason. Everything is saved on return."""
        self.liveness.phase("set up", self.state.step, startup=True)
        self._measure_memory()
        recipe, validation = self.recipe, self.recipe.validation
        numbers = LiveNumbers(
            recipe.name,
            self.state.step,
            recipe.training.max_train_steps,
            validation.validation_steps,
            recipe.checkpoint.checkpointing_steps,
            validation.metric_for_best_model,
        )
        with TrainingProgress(numbers, lambda: memory_mb(self.device), stop) as self.progress:
            self.progress.validated(self.state)
            return self._fit(stop)

    def _fit(self, stop: StopRequest) -> str:
        if self._due(self.recipe.validation.validation_steps) and self.state.step and not self._validated():
            self._validate(stop)  # a signal cut this validation short in the run that is resumed
            self._end_if_asked(stop, stop.agreed())
        if self.validator.should_stop(self.state):
            return self._finish("early_stopping")
        while (reason := self._course(stop)) is None:
            self._rewind()
        return self._finish(reason)

    def close(self) -> None:
        """Let go of everything. After an error a checkpoint may still be on its way: it is waited for as long as anything of it
        moves."""
        if self.tracker is not None:
            self.tracker.finish()
        self.writer.close()
        self.strategy.close()

    def _course(self, stop: StopRequest) -> str | None:
        """Train from where the state stands; None when it has to be taken back to a checkpoint."""
        state, last = self.state, self.recipe.training.max_train_steps
        batches = self.task.batches(state.step, last, dist.rank(), dist.world_size(), state.left_out)
        milestones = {0, *self.task.milestones()}
        waited = time.monotonic()
        with contextlib.closing(batches):  # type: ignore[type-var]
            while state.step < last:
                fetched = self.stepper.fetch(batches, state, self.writer.failed() or self.validator.background.error)
                loaded = time.monotonic()
                if state.step in milestones and fetched.error is None:
                    fetched = replace(fetched, error=self._preflight(fetched.micro_batches[0]))
                taken = self.stepper.take(fetched, state, stop.is_set)
                self._count(taken)
                took = Took(time.monotonic() - waited, loaded - waited, taken.verdict.samples)
                self.window.add({"seconds_per_step": took.seconds, "data_seconds": took.waited})
                self.progress.stepped(state, took, None if taken.skipped else taken.verdict.loss, taken.means)
                self._log()
                if taken.skipped and self._must_rewind():
                    return None
                if self._due(self.recipe.validation.validation_steps):
                    self._validate(stop)
                    if self.validator.should_stop(state):
                        return "early_stopping"
                    self._end_if_asked(stop, stop.agreed())
                self._end_if_asked(stop, taken.verdict.stop)
                self._note_saved()
                if self._due(self.recipe.checkpoint.checkpointing_steps) and state.step < last:
                    self._save()
                waited = time.monotonic()
        if not self._validated():
            self._validate(stop)
            self._end_if_asked(stop, stop.agreed())
        return "finished"

    def _end_if_asked(self, stop: StopRequest, asked: bool) -> None:
        """Save and leave when any rank got a signal."""
        if asked:
            name = stop.signal_name or "a signal on another rank"
            LOGGER.info("%s: saving before the end; Ctrl-C again ends at once", name)
            raise Interrupted(name, self.folder, self._save(wait=True))

    def _due(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def _validated(self) -> bool:
        state = self.state
        return state.given_up == state.step or (bool(state.history) and state.history[-1]["step"] == state.step)

    def _preflight(self, batch: Batch) -> Exception | None:
        """Log what each loss term weighs in this batch's gradient; leaves no trace in the training. Returns what it failed
        of, for all ranks to hear. Too little memory is no failure: this needs more than a step does."""
        if not self.strategy.retries:  # a backward pass of theirs is one of all ranks, and changes the gradients
            LOGGER.info("the loss terms' shares of the gradient are measured with parallel.strategy=ddp only")
            return None
        self.liveness.phase("set up", self.state.step, batch.ids, startup=True)
        try:
            with rng.isolated(rng.derive_seed("preflight", dist.rank())):
                piece = batch.split(self.state.pieces)[0]
                losses = self.task.step(self.strategy.model, piece, self.device, self.state.step)
                rows = preflight.measure(self.raw, losses)
        except Exception as error:
            if lacks_memory(error):
                LOGGER.warning("the loss terms' shares of the gradient could not be measured: too little memory")
                return None
            if not dist.active():
                raise
            return error
        finally:
            self.auxiliaries.forget()
        self.journal.write("preflight", self.state.step, terms=[asdict(row) for row in rows])
        if dist.is_main():
            LOGGER.info("shares of the gradient in step %d:\n%s", self.state.step + 1, preflight.table(rows))
            for warning in preflight.warnings(rows):
                LOGGER.warning("warning: %s", warning)
        return None

    def _count(self, taken: Taken) -> None:
        """Take a step into the state: its samples, and its update or why there was none."""
        state = self.state
        if taken.verdict.faults:
            self._note_faults(taken)
        state.draws = verdict.chained(state.draws, taken.verdict.draws)
        state.samples_seen += taken.verdict.samples
        if taken.skipped is None:
            self.window.add(taken.means)
            state.skipped_in_a_row = 0
            state.recent_losses = [*state.recent_losses, taken.verdict.loss][-verdict.HISTORY :]
            state.step += 1
            self._pass_milestone()
            return
        state.skipped_total += 1
        state.skipped_in_a_row += 1
        ids = [name for part in dist.gather(taken.ids) for name in part]
        shown = ", ".join(ids[:8])
        LOGGER.warning("step %d skipped on all ranks: %s; samples %s", state.step + 1, taken.skipped, shown)
        kept = capsule.write(self.folder, self.task, self.recipe, self.strategy, self.auxiliaries, taken, state)
        self.journal.write("skip", state.step + 1, reason=taken.skipped, ids=ids, capsule=kept and kept.name)
        limit = self.recipe.training.max_skipped_steps
        with dist.alike():
            verdict.check_limit(state.skipped_in_a_row, limit, state.step + 1, ids)
        state.step += 1
        self._pass_milestone()

    def _pass_milestone(self) -> None:
        """From a milestone on a loss means something else: spikes are measured against what comes."""
        if self.state.step in self.task.milestones():
            self.state.recent_losses = []

    def _must_rewind(self) -> bool:
        """Whether the run goes back to its newest checkpoint, which every rank decides alike."""
        state, training = self.state, self.recipe.training
        if not training.rewind_after or state.skipped_in_a_row % training.rewind_after:
            return False
        dist.together(self.writer.wait)
        return state.rewinds < training.max_rewinds and dist.on_main(lambda: bool(checkpoint.listing(self.folder)))

    def _rewind(self) -> None:
        """Back to the newest good checkpoint, without the samples since then; the way there is saved at once."""
        before = self.state
        path = dist.on_main(lambda: checkpoint.newest_good(self.folder))
        with dist.alike():
            if path is None:
                raise CheckpointError(
                    f"{self.folder} has no checkpoint left that verifies; the run cannot be taken back."
                )
        self._restore(path)
        state = self.state
        state.left_out = before.step + before.left_out - state.step
        state.rewinds, state.capsules, state.pieces = before.rewinds + 1, before.capsules, before.pieces
        state.skipped_total, state.faults, state.skipped_in_a_row = before.skipped_total, before.faults, 0
        if not any(state.step < mark <= before.step for mark in self.task.milestones()):
            state.best_value, state.best_step = before.best_value, before.best_step  # its folder is still there
        LOGGER.warning(
            "after %d skipped steps in a row the run goes back from step %d to %s and leaves out the samples since then",
            before.skipped_in_a_row,
            before.step,
            path.name,
        )
        self.journal.write("rewind", state.step, from_step=before.step, checkpoint=path.name, left_out=state.left_out)
        self._save(wait=True)

    def _note_faults(self, taken: Taken) -> None:
        mine = [fault for batch in taken.micro_batches for fault in batch.faults]
        for path, reason in [fault for part in dist.gather(mine) for fault in part]:
            if path not in self.state.faults:
                self.state.faults[path] = reason
                LOGGER.warning("clip set aside: %s: %s", path, reason)
                self.journal.write("quarantine", self.state.step, path=path, reason=reason)
        with dist.alike():
            self.task.check_faults(self.state.faults)

    def _log(self) -> None:
        state, training = self.state, self.recipe.training
        due = self._due(training.log_steps) or self._due(training.memory_log_steps)
        if not (due or state.step == training.max_train_steps or self._due(self.recipe.validation.validation_steps)):
            return
        self.liveness.phase("agree", state.step)
        means = quotients(dist.mean_over_ranks(self.window.means()))
        self.liveness.phase("log", state.step)
        facts: dict[str, Any] = {
            "losses": {k.removeprefix("losses/"): v for k, v in means.items() if k.startswith("losses/")}
        }
        facts |= {k: v for k, v in means.items() if not k.startswith("losses/")}
        facts |= {"samples_seen": state.samples_seen, "draws": state.draws}
        if self._due(training.memory_log_steps) or state.step == training.max_train_steps:
            facts["memory_mb"] = round(memory_mb(self.device), 1)
        self.journal.write("step", state.step, **facts)
        if self.tracker is not None:
            memory = "gpu_memory" if self.device.type == "cuda" else "memory"
            self.tracker.log(means | ({memory: facts["memory_mb"]} if "memory_mb" in facts else {}), step=state.step)
        self._remark(means)
        shown = {
            "loss": means.get("losses/total", float("nan")),
            "lr": means.get("learning_rate", 0.0),
            "s/step": means["seconds_per_step"],
        }
        self.progress.line(state.step, shown | ({"MiB": facts["memory_mb"]} if "memory_mb" in facts else {}))

    def _remark(self, means: dict[str, float]) -> None:
        for remark in self.task.remarks(self.state.step, means):
            if remark not in self._said:
                self._said.add(remark)
                LOGGER.warning("warning: %s", remark)

    def _validate(self, stop: StopRequest) -> None:
        self.liveness.phase("validate", self.state.step)
        with self.progress.doing("validating"), self.strategy.whole() as model:
            result = self.validator.validate(model, self.state, stop, self.liveness)
        if result is None:
            return
        self.progress.validated(self.state, result["seconds"])
        self.journal.write("validation", self.state.step, **result)
        numbers = {k: v for k, v in result["metrics"].items() if isinstance(v, float)}
        if self.tracker is not None:
            self.tracker.log({f"validation/{k}": v for k, v in numbers.items()}, step=self.state.step)
        shown, baseline = _headline(numbers), _headline(result["baseline"])
        LOGGER.info("validation at step %d: %s  (baseline: %s)", self.state.step, shown, baseline)

    def _save(self, wait: bool = False) -> Path:
        """Checkpoint of everything; every rank adds what only it knows. It is written beside the training unless `wait`."""
        began = time.monotonic()
        self.liveness.phase("save", self.state.step)
        dist.together(self.validator.background.wait)  # a checkpoint that knows of a best model comes after it
        held = saving.contents(self.task, self.strategy, self.auxiliaries, self.state)
        dist.together(lambda: self.writer.save(self.state.step, held, self.task.fingerprint(self.state.step)))
        if dist.is_main():
            self._stalls[self.state.step] = round(time.monotonic() - began, 3)
        if wait:
            with self.progress.doing("writing a checkpoint"):
                dist.together(self.writer.wait)
            self._note_saved()
        return self.folder / f"checkpoint-{self.state.step}"

    def _note_saved(self) -> None:
        """Journal the checkpoints that have been published since the last look, and what they cost."""
        notice = self.recipe.checkpoint.preemption_notice
        for saved in self.writer.finished():
            facts = {"path": saved.path.name, "seconds": saved.seconds, "stall": self._stalls.pop(saved.step, 0.0)}
            self.journal.write("checkpoint", saved.step, **facts, bytes=saved.bytes)
            if saved.seconds > notice and not self._warned_of_notice:
                self._warned_of_notice = True
                LOGGER.warning(
                    "warning: %s took %.0f s to write, but a scheduler that gives %d s (checkpoint.preemption_notice) would kill "
                    "the run in the middle, and it would go on from the checkpoint before. Ask for a longer notice, or use a "
                    "faster disk or a smaller seraena_buffer_mb.",
                    saved.path.name,
                    saved.seconds,
                    notice,
                )

    def _finish(self, reason: str) -> str:
        """Last checkpoint and final_model.safetensors, which is the same file by hard link."""
        self._save(wait=True)
        if dist.is_main():
            files.hard_link(
                self.folder / f"step-{self.state.step}.safetensors", self.folder / "final_model.safetensors"
            )
        return reason


def _headline(numbers: Mapping[str, float | None]) -> str:
    """Numbers in a line of the log; those of further conditions (name@condition) are in the journal alone."""
    return "  ".join(f"{k} {v:.4g}" for k, v in numbers.items() if v is not None and "@" not in k)
