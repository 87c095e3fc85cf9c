"""One run's state and its loop. A step is: batches → losses → gradients → one verdict → update → average; then what is due."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import nn

from tinyworld.config.schema import Recipe
from tinyworld.core import dist, files, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError, Interrupted
from tinyworld.engine import checkpoint, preflight, schedule
from tinyworld.engine.auxiliaries import Auxiliaries
from tinyworld.engine.averaging import averaged
from tinyworld.engine.evaluate import Validator
from tinyworld.engine.guard import NonFiniteGuard
from tinyworld.engine.journal import Journal
from tinyworld.engine.meters import Window, memory_mb
from tinyworld.engine.progress import TrainingProgress
from tinyworld.engine.run import RunPlan
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.state import TrainingState
from tinyworld.engine.task import Batch, Task


class Trainer:
    """State of one run: modules, optimizer, counters. `fit` is the loop."""

    def __init__(self, task: Task, recipe: Recipe, accelerator: Accelerator, plan: RunPlan, journal: Journal) -> None:
        self.task, self.recipe, self.accelerator, self.folder, self.journal = (
            task,
            recipe,
            accelerator,
            plan.folder,
            journal,
        )
        self.device = accelerator.device
        roles = task.roles()
        for frozen in roles.frozen.values():
            frozen.requires_grad_(False).eval().to(self.device)
        self.raw = roles.trainable.to(self.device)
        self.auxiliaries = Auxiliaries(roles.auxiliary, self.device)
        self.state = TrainingState()
        saved: dict[str, Any] | None = None
        if plan.checkpoint:
            asked = plan.checkpoint
            dist.on_main(lambda: checkpoint.check(asked, task.fingerprint))
            saved = checkpoint.read_state(asked, "trainer")
        if plan.checkpoint and saved:
            task.load_weights(self.raw, plan.checkpoint / "model.safetensors")
            self.state = TrainingState.from_dict(saved["state"])
            if plan.is_branch:  # the best model so far stays in the run that made it; this run finds its own
                self.state.best_value = self.state.best_step = None
                self.state.validations_without_improvement = 0
        decay = recipe.training.ema_decay
        self.average = averaged(self.raw, decay) if decay > 0 else None
        self.parameters = [p for p in self.raw.parameters() if p.requires_grad]
        optimizer = schedule.build_optimizer(self.parameters, recipe.optimizer)
        self.model, self.optimizer = accelerator.prepare(self.raw, optimizer)
        if plan.checkpoint and saved:
            self._restore(plan.checkpoint, saved)
        self.guard = NonFiniteGuard(recipe.training.max_skipped_steps, self.state.skipped_in_a_row)
        self.validator = Validator(task, recipe.validation, self.folder, self.device)
        self.window = Window()
        self.tracker: GeneralTracker | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The module that is validated, saved as step-N and exported: the moving average when there is one."""
        return self.average.module if self.average is not None else self.raw

    def _restore(self, path: Path, trainer: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(trainer["optimizer"])
        schedule.apply_settings(self.optimizer, self.recipe.optimizer)
        if self.average is not None:
            if not (path / "ema.safetensors").exists():
                raise CheckpointError(
                    f"{path} holds no averaged weights, but ema_decay is {self.recipe.training.ema_decay}: the run it comes from "
                    "had none. Use --ema_decay 0 to go on with it."
                )
            self.task.load_weights(self.average.module, path / "ema.safetensors")
            self.average.n_averaged.fill_(trainer["averaged_updates"])
        self.auxiliaries.restore(path)
        generators = checkpoint.read_rank_state(path, "rng")
        if generators is not None:
            rng.restore(generators)

    def fit(self, stop: StopRequest) -> str:
        """Train until max_train_steps, early stopping or a signal; returns the reason. Everything is saved on return."""
        config = self.recipe.training
        batches = self.task.batches(self.state.step, config.max_train_steps, dist.rank(), dist.world_size())
        if self._due(self.recipe.validation.validation_steps) and self.state.step and not self._validated():
            self._validate(stop)  # a signal cut this validation short in the run that is resumed
        if self.validator.should_stop(self.state):
            return self._finish("early_stopping")
        milestones = set(self.task.milestones())
        waited = time.monotonic()
        with TrainingProgress(self.state.step, config.max_train_steps) as progress:
            for micro_batches in batches:
                fetched = time.monotonic()
                if self.state.step == 0 or self.state.step in milestones:
                    self._preflight(micro_batches[0])
                self._step(micro_batches)
                self.window.add({"seconds_per_step": time.monotonic() - waited, "data_seconds": fetched - waited})
                self._log(progress)
                if self._due(self.recipe.validation.validation_steps):
                    self._validate(stop)
                    if self.validator.should_stop(self.state):
                        return self._finish("early_stopping")
                self._end_if_asked(stop)
                if self._due(self.recipe.checkpoint.checkpointing_steps) and self.state.step < config.max_train_steps:
                    self._save()
                waited = time.monotonic()
        if not self._validated():
            self._validate(stop)
            self._end_if_asked(stop)
        return self._finish("finished")

    def _end_if_asked(self, stop: StopRequest) -> None:
        """Save and leave when any rank got a signal."""
        if stop.agreed():
            raise Interrupted(stop.signal_name or "a signal on another rank", self.folder, self._save())

    def _due(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def _validated(self) -> bool:
        return bool(self.state.history) and self.state.history[-1]["step"] == self.state.step

    def _preflight(self, batch: Batch) -> None:
        """Log what each loss term weighs in this batch's gradient; leaves no trace in the training."""
        with rng.isolated(rng.derive_seed("preflight", dist.rank())):
            rows = preflight.measure(self.raw, self.task.step(self.raw, batch, self.device, self.state.step))
        self.auxiliaries.forget()
        self.journal.write("preflight", self.state.step, terms=[asdict(row) for row in rows])
        if dist.is_main():
            LOGGER.info("shares of the gradient in step %d:\n%s", self.state.step + 1, preflight.table(rows))
            for warning in preflight.warnings(rows):
                LOGGER.warning("warning: %s", warning)

    def _step(self, micro_batches: Sequence[Batch]) -> None:
        """One optimizer step over the accumulated micro-batches, or a skip that all ranks agree on."""
        state, training = self.state, self.recipe.training
        rate = schedule.learning_rate(state.step, training.max_train_steps, self.recipe.optimizer)
        schedule.set_learning_rate(self.optimizer, rate)
        sums: dict[str, torch.Tensor] = {}
        for batch in micro_batches:
            self._note_faults(batch)
            with self.accelerator.accumulate(self.model):
                losses = self.task.step(self.model, batch, self.device, state.step)
                total = losses.total
                self.accelerator.backward(total)
                values = {f"losses/{name}": term for name, term in losses.terms.items()}
                for name, value in {"losses/total": total, **values, **losses.monitors}.items():
                    share = value.detach().float() / len(micro_batches)
                    sums[name] = sums[name] + share if name in sums else share
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, training.max_grad_norm))
        means = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        if self.guard.must_skip(means["losses/total"], norm):
            self._skip([sample for batch in micro_batches for sample in batch.ids], means["losses/total"], norm)
        else:
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.raw)
            self.window.add({**means, **self.auxiliaries.learn(), "gradient_norm": norm, "learning_rate": rate})
        self.optimizer.zero_grad()
        state.skipped_in_a_row = self.guard.in_a_row
        state.step += 1
        state.samples_seen += sum(len(batch.ids) for batch in micro_batches) * dist.world_size()

    def _skip(self, ids: list[str], loss: float, norm: float) -> None:
        self.auxiliaries.forget()
        self.state.skipped_total += 1
        all_ids = [sample for part in dist.gather(ids) for sample in part]
        reason = f"loss {loss}, gradient norm {norm}"
        LOGGER.warning(
            "step %d skipped on all ranks: %s; samples %s", self.state.step + 1, reason, ", ".join(all_ids[:8])
        )
        self.journal.write("skip", self.state.step + 1, reason=reason, ids=all_ids)
        self.guard.check_limit(self.state.step + 1, all_ids)

    def _note_faults(self, batch: Batch) -> None:
        for path, reason in [fault for part in dist.gather(batch.faults) for fault in part]:
            if path not in self.state.faults:
                self.state.faults[path] = reason
                LOGGER.warning("clip set aside: %s: %s", path, reason)
                self.journal.write("quarantine", self.state.step, path=path, reason=reason)
        self.task.check_faults(self.state.faults)

    def _log(self, progress: TrainingProgress) -> None:
        state, training = self.state, self.recipe.training
        due = self._due(training.log_steps) or self._due(training.memory_log_steps)
        if not (due or state.step == training.max_train_steps or self._due(self.recipe.validation.validation_steps)):
            progress.update(state.step)
            return
        means = dist.mean_over_ranks(self.window.means())
        facts: dict[str, Any] = {
            "losses": {k.removeprefix("losses/"): v for k, v in means.items() if k.startswith("losses/")}
        }
        facts |= {k: v for k, v in means.items() if not k.startswith("losses/")}
        facts |= {"samples_seen": state.samples_seen}
        if self._due(training.memory_log_steps):
            facts["memory_mb"] = round(memory_mb(self.device), 1)
        self.journal.write("step", state.step, **facts)
        if self.tracker is not None:
            self.tracker.log(means, step=state.step)
        shown = {
            "loss": means.get("losses/total", float("nan")),
            "lr": means.get("learning_rate", 0.0),
            "s/step": means["seconds_per_step"],
        }
        progress.line(state.step, shown | ({"MiB": facts["memory_mb"]} if "memory_mb" in facts else {}))
        progress.update(state.step, f"loss {shown['loss']:.4g}")

    def _validate(self, stop: StopRequest) -> None:
        result = self.validator.validate(self.evaluated, self.state, stop)
        if result is None:
            return
        self.journal.write("validation", self.state.step, **result)
        numbers = {k: v for k, v in result["metrics"].items() if isinstance(v, float)}
        if self.tracker is not None:
            self.tracker.log({f"validation/{k}": v for k, v in numbers.items()}, step=self.state.step)
        shown = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
        baseline = "  ".join(f"{k} {v:.4g}" for k, v in result["baseline"].items())
        LOGGER.info("validation at step %d: %s  (baseline: %s)", self.state.step, shown, baseline)

    def _save(self) -> Path:
        """Checkpoint of everything; every rank adds what only it knows."""
        began = time.monotonic()
        writers = {"model": lambda file: self.task.save_weights(self.raw, file)}
        if self.average is not None:
            writers["ema"] = lambda file: self.task.save_weights(self.evaluated, file)
        trainer = {
            "optimizer": self.optimizer.state_dict(),
            "state": self.state.to_dict(),
            "averaged_updates": int(self.average.n_averaged) if self.average is not None else 0,
        }
        path = checkpoint.save(
            self.folder,
            self.state.step,
            writers,
            {"trainer": trainer, **self.auxiliaries.states()},
            {"rng": rng.capture(), **self.auxiliaries.rank_states()},
            self.task.fingerprint(self.state.step),
        )
        dist.on_main(lambda: checkpoint.prune(self.folder, self.recipe.checkpoint.checkpoints_total_limit))
        size = checkpoint.size_of(path) if dist.is_main() else 0
        seconds = round(time.monotonic() - began, 3)
        self.journal.write("checkpoint", self.state.step, path=path.name, seconds=seconds, bytes=size)
        return path

    def _finish(self, reason: str) -> str:
        """Last checkpoint and final_model.safetensors, which is the same file by hard link."""
        self._save()
        if dist.is_main():
            files.hard_link(
                self.folder / f"step-{self.state.step}.safetensors", self.folder / "final_model.safetensors"
            )
        return reason
