"""Evaluation that cannot hurt training: even share over ranks, isolated random state, model mode put back."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.config.sections import ValidationConfig
from tinyworld.core import dist, files, rng
from tinyworld.core.console import LOGGER
from tinyworld.engine.background import Background
from tinyworld.engine.liveness import Liveness
from tinyworld.engine.saving import copied
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.state import TrainingState
from tinyworld.engine.task import Evaluated, Task

LOWER_IS_BETTER = ("lpips", "flicker", "abs_rel", "ate", "point_error", "diffusion")


@dataclass
class Measured:
    """Rows by sample number. `complete` when all samples have one; else `why_not` says what ended it."""

    rows: dict[int, Evaluated]
    complete: bool = True
    why_not: str = ""


def evaluate(
    task: Task,
    model: nn.Module,
    samples: Sequence[Any],
    batch: int,
    device: torch.device,
    stop: StopRequest | None = None,
    known: Mapping[int, Evaluated] | None = None,
    limit: float = 0,
    say: Callable[[str, list[str]], None] = lambda phase, samples: None,
) -> Measured:
    """Metrics of every sample, the same on every rank. say: told what this rank does, and with which samples.

    Each rank takes every world-th of the samples that are not `known` yet. Ranks with fewer batches still take part in
    each poll for a stop request. It ends early after a signal, and after `limit` seconds (0: never). What one rank fails of,
    all raise.
    """
    rank, world = dist.rank(), dist.world_size()
    rows = dict(known or {})
    left = [number for number in range(len(samples)) if number not in rows]
    mine = left[rank::world]
    rounds = -(-len(left[::world]) // batch)
    began, why_not, error = time.monotonic(), "", None
    with _measuring(model, "evaluate"):
        for round_index in range(rounds):
            say("agree", [])
            late = 0 < limit < time.monotonic() - began
            stopped, too_late, failed = dist.total([stop is not None and stop.is_set, late, error is not None])
            if failed:
                break
            if stopped or too_late:
                why_not = "a signal" if stopped else f"the time limit of {limit:g} s"
                break
            share = mine[round_index * batch : (round_index + 1) * batch]
            say("validate", [str(number) for number in share])
            try:
                if share:
                    rows |= zip(share, task.evaluate(model, [samples[i] for i in share], device), strict=True)
            except Exception as problem:
                if not dist.active():
                    raise
                error = problem
    say("agree", [])
    dist.raise_together(error)
    everything = {number: row for part in dist.gather(rows) for number, row in part.items()}
    return Measured(dict(sorted(everything.items())), not why_not, why_not)


@contextmanager
def _measuring(model: nn.Module, purpose: str) -> Iterator[None]:
    """In evaluation mode, without gradients, with random state of its own for each purpose and rank; all is put back."""
    was_training = model.training
    model.eval()
    try:
        with rng.isolated(rng.derive_seed(purpose, dist.rank())), torch.no_grad():
            yield
    finally:
        model.train(was_training)


def mean_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
        self.background = Background("best model")

    def validate(
        self, model: nn.Module, state: TrainingState, stop: StopRequest, liveness: Liveness
    ) -> dict[str, Any] | None:
        """One validation: entry of the history (also appended to `state`), or None when it was cut short. What a signal cut
        short is kept in `state` and made up for after the resume; what took too long does not count."""
        began = time.monotonic()
        measured = evaluate(
            self.task,
            model,
            self.samples,
            self.config.validation_batch_size,
            self.device,
            stop,
            _known(state),
            self.config.validation_time_limit,
            lambda phase, numbers: liveness.phase(phase, state.step, numbers),
        )
        if not measured.complete:
            done = f"{len(measured.rows)} of {len(self.samples)} clips"
            LOGGER.warning("validation at step %d ended by %s after %s", state.step, measured.why_not, done)
            kept = {str(number): asdict(row) for number, row in measured.rows.items()}
            by_signal = measured.why_not == "a signal"
            state.unfinished = {"step": state.step, "rows": kept} if by_signal else {}
            state.given_up = None if by_signal else state.step
            return None
        rows = list(measured.rows.values())
        state.unfinished = {}
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
        dist.on_main(lambda: files.write_json(self.run / "validation_history.json", state.history))
        if best and dist.is_main():
            weights = copied(dict(model.state_dict()))
            self.background.submit(lambda: self._save_best(weights, entry))
        dist.together(lambda: self._previews(model, state, liveness))
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

    def _save_best(self, weights: Mapping[str, Tensor], entry: dict[str, Any]) -> None:
        info = {key: value for key, value in entry.items() if key != "clips"}
        with files.staged_folder(self.run / "best_model", {"step": entry["step"]}) as folder:
            self.task.export(weights, folder)
            files.write_json(
                folder / "model_info.json", {"metric_for_best_model": self.config.metric_for_best_model, **info}
            )
        LOGGER.info(
            "best model so far: %s %.4g at step %d",
            self.config.metric_for_best_model,
            entry[self.config.metric_for_best_model],
            entry["step"],
        )

    def _previews(self, model: nn.Module, state: TrainingState, liveness: Liveness) -> None:
        """Previews of this validation, each made by one rank; those of earlier ones go, but for the best one's."""
        liveness.phase("preview", state.step)
        folder = self.run / "previews" / f"step-{state.step}"
        if dist.is_main():
            keep = {f"step-{state.best_step}", folder.name}
            for old in (self.run / "previews").glob("step-*"):
                if old.name not in keep:
                    shutil.rmtree(old)
        folder.mkdir(parents=True, exist_ok=True)
        with _measuring(model, "preview"):
            for sample in self.samples[: self.config.num_preview_clips][dist.rank() :: dist.world_size()]:
                self.task.preview(model, sample, self.device, folder)
        liveness.phase("agree", state.step)


def _known(state: TrainingState) -> dict[int, Evaluated]:
    """Rows of a validation of this very step that a signal cut short before the resume."""
    if state.unfinished.get("step") != state.step:
        return {}
    return {int(number): Evaluated(**row) for number, row in state.unfinished["rows"].items()}
