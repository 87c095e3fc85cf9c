"""Evaluation that cannot hurt training: even share over ranks, isolated random state, model mode put back."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinyworld.config.sections import ValidationConfig
from tinyworld.core import dist, files, rng
from tinyworld.core.console import LOGGER
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.state import TrainingState
from tinyworld.engine.task import Evaluated, Task

LOWER_IS_BETTER = ("lpips", "flicker")


def evaluate(
    task: Task,
    model: nn.Module,
    samples: Sequence[Any],
    batch: int,
    device: torch.device,
    stop: StopRequest | None = None,
) -> list[Evaluated] | None:
    """Metrics of every sample, in sample order on every rank; None when a signal asked to stop half-way.

    Each rank takes every world-th sample. Ranks with fewer batches still take part in each poll for a stop request.
    """
    rank, world = dist.rank(), dist.world_size()
    mine = list(range(rank, len(samples), world))
    rounds = -(-len(range(0, len(samples), world)) // batch)
    was_training = model.training
    model.eval()
    rows: list[tuple[int, Evaluated]] = []
    try:
        with rng.isolated(rng.derive_seed("evaluate", rank)), torch.no_grad():
            for round_index in range(rounds):
                if stop is not None and stop.agreed():
                    return None
                share = mine[round_index * batch : (round_index + 1) * batch]
                if share:
                    rows += zip(share, task.evaluate(model, [samples[i] for i in share], device), strict=True)
    finally:
        model.train(was_training)
    return [row for _, row in sorted((pair for part in dist.gather(rows) for pair in part), key=lambda pair: pair[0])]


def mean_metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean of each metric over clips; lists position by position; None (not available) is left out of the mean."""
    result: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows if row[name] is not None]
        if not values:
            result[name] = None
        elif isinstance(values[0], list):
            columns = zip(*values, strict=True)
            result[name] = [_mean([v for v in column if v is not None]) for column in columns]
        else:
            result[name] = _mean(values)
    return result


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


class Validator:
    """Runs validation, keeps the history, the best model and the patience."""

    def __init__(self, task: Task, config: ValidationConfig, run: Path, device: torch.device) -> None:
        self.task, self.config, self.run, self.device = task, config, run, device
        self.samples = list(task.held_out())

    def validate(self, model: nn.Module, state: TrainingState, stop: StopRequest) -> dict[str, Any] | None:
        """One validation: entry of the history (also appended to `state`), or None when a signal cut it short."""
        began = time.monotonic()
        rows = evaluate(self.task, model, self.samples, self.config.validation_batch_size, self.device, stop)
        if rows is None:
            return None
        metrics = files.json_ready(mean_metrics([row.metrics for row in rows]))
        entry = {
            "step": state.step,
            "time": round(time.time(), 3),
            **metrics,
            "baseline": files.json_ready(mean_metrics([row.baseline for row in rows])),
            "clips": [{"id": row.id, **files.json_ready(row.metrics)} for row in rows],
        }
        self._begin_anew(state)
        state.history.append(entry)
        best = self._improves(entry, state)
        if dist.is_main():
            files.write_json(self.run / "validation_history.json", state.history)
            if best:
                self._save_best(model, entry)
            self._previews(model, state)
        return {
            "seconds": round(time.monotonic() - began, 3),
            "metrics": metrics,
            "baseline": entry["baseline"],
            "best": best,
        }

    def _begin_anew(self, state: TrainingState) -> None:
        """Forget the best model when a milestone lies between the last validation and this one."""
        last = state.history[-1]["step"] if state.history else 0
        passed = [mark for mark in self.task.milestones() if last < mark <= state.step]
        if passed and state.best_value is not None:
            LOGGER.info("from step %d on the best model is looked for anew: training has changed", passed[-1])
            state.best_value = state.best_step = None
            state.validations_without_improvement = 0

    def _improves(self, entry: dict[str, Any], state: TrainingState) -> bool:
        name = self.config.metric_for_best_model
        value = entry.get(name)
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        if value is None or (state.best_value is not None and sign * value <= sign * state.best_value):
            state.validations_without_improvement += 1
            return False
        state.best_value, state.best_step, state.validations_without_improvement = value, state.step, 0
        return True

    def should_stop(self, state: TrainingState) -> bool:
        """Early stopping; the same on all ranks, since all hold the same history."""
        patience = self.config.early_stopping_patience
        return 0 < patience <= state.validations_without_improvement

    def _save_best(self, model: nn.Module, entry: dict[str, Any]) -> None:
        info = {key: value for key, value in entry.items() if key != "clips"}
        with files.staged_folder(self.run / "best_model", {"step": entry["step"]}) as folder:
            self.task.export(model, folder)
            files.write_json(
                folder / "model_info.json", {"metric_for_best_model": self.config.metric_for_best_model, **info}
            )
        LOGGER.info(
            "best model so far: %s %.4g at step %d",
            self.config.metric_for_best_model,
            entry[self.config.metric_for_best_model],
            entry["step"],
        )

    def _previews(self, model: nn.Module, state: TrainingState) -> None:
        """Previews of this validation; those of earlier ones go, but for the best one's."""
        keep = {f"step-{state.best_step}", f"step-{state.step}"}
        for old in (self.run / "previews").glob("step-*"):
            if old.name not in keep:
                shutil.rmtree(old)
        folder = self.run / "previews" / f"step-{state.step}"
        folder.mkdir(parents=True, exist_ok=True)
        was_training = model.training
        model.eval()
        with rng.isolated(rng.derive_seed("preview")), torch.no_grad():
            for sample in self.samples[: self.config.num_preview_clips]:
                self.task.preview(model, sample, self.device, folder)
        model.train(was_training)
