"""One optimizer step: forward and backward on this rank, one verdict of all, then gradients, update and helpers.

Every rank takes the same way through it. What one rank meets (an error, a broken number, no memory left) is said in the
verdict, and all of them raise, skip or try again.
"""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tinyworld.config.schema import Recipe
from tinyworld.core import dist, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import TrainingError
from tinyworld.engine import schedule, verdict
from tinyworld.engine.auxiliaries import Auxiliaries
from tinyworld.engine.journal import Journal
from tinyworld.engine.liveness import Liveness
from tinyworld.engine.meters import COUNT, SUM
from tinyworld.engine.parallel import Strategy
from tinyworld.engine.state import TrainingState
from tinyworld.engine.task import Batch, Task
from tinyworld.engine.verdict import Verdict, Vote


@dataclass(frozen=True)
class Fetched:
    """The micro-batches of one rank for a step, or the error that loading met."""

    micro_batches: Sequence[Batch]
    error: Exception | None = None


@dataclass
class Attempt:
    """What this rank made of its micro-batches: sums of the logged numbers, or why there are none."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None
    out_of_memory: bool = False


@dataclass(frozen=True)
class Taken:
    """A step as all ranks took it. norm: of the gradient, None where the loss alone decided. skipped: why there was no
    update. generators: the random state at its start."""

    micro_batches: Sequence[Batch]
    means: dict[str, float]
    norm: float | None
    verdict: Verdict
    generators: dict[str, Any]
    skipped: str | None = None

    @property
    def ids(self) -> list[str]:
        return [name for batch in self.micro_batches for name in batch.ids]


class Stepper:
    """Takes the steps of one run; `state` is the trainer's."""

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        strategy: Strategy,
        auxiliaries: Auxiliaries,
        device: torch.device,
        journal: Journal,
        liveness: Liveness,
    ) -> None:
        self.task, self.recipe, self.strategy, self.auxiliaries = task, recipe, strategy, auxiliaries
        self.device, self.journal, self.liveness = device, journal, liveness

    def fetch(
        self, batches: Iterator[Sequence[Batch]], state: TrainingState, trouble: Exception | None = None
    ) -> Fetched:
        """The next micro-batches of this rank, or why there are none: `take` tells all ranks. trouble: what something that
        runs beside the training failed of."""
        self.liveness.phase("data", state.step + 1)
        try:
            if trouble is not None:
                raise trouble
            return Fetched(next(batches))
        except StopIteration:
            raise
        except Exception as error:
            if not dist.active():
                raise
            return Fetched((), error)

    def take(self, fetched: Fetched, state: TrainingState, wants_stop: bool) -> Taken:
        """One step on these micro-batches. Changes nothing in `state` but the pieces that fit into memory. Raises on every
        rank when one met an error."""
        micro_batches = fetched.micro_batches
        rate = schedule.learning_rate(state.step, self.recipe.training.max_train_steps, self.recipe.optimizer)
        generators = rng.capture()
        if not self.strategy.retries:  # its passes communicate: who has no batch has to say so before them
            self._phase("agree", state, micro_batches)
            dist.raise_together(fetched.error)
        while True:
            attempt = Attempt(error=fetched.error) if fetched.error else self._attempt(micro_batches, state)
            vote = Vote(
                float(attempt.sums["losses/total"]) if attempt.sums else 0.0,
                sum(len(batch.ids) for batch in micro_batches),
                verdict.digest_of(draw for batch in micro_batches for draw in batch.draws),
                sum(len(batch.faults) for batch in micro_batches),
                wants_stop,
                attempt.error is not None,
                attempt.out_of_memory,
            )
            self._phase("agree", state, micro_batches)
            agreed = verdict.agree(vote)
            if agreed.failed:
                dist.raise_together(attempt.error)
            if not agreed.out_of_memory:
                break
            with dist.alike():
                self._shrink(micro_batches, state)
            rng.restore(generators)
        names = list(attempt.sums)
        means = dict(zip(names, torch.stack([attempt.sums[name] for name in names]).tolist(), strict=True))
        taken = Taken(micro_batches, means, None, agreed, generators)
        reason = verdict.fault_in(agreed.loss, state.recent_losses, self.recipe.training.spike_factor)
        if reason is None:
            self._phase("reduce", state, micro_batches)
            norm = self.strategy.reduce()
            taken = replace(taken, norm=norm)
            if not math.isfinite(norm):
                reason = f"loss {agreed.loss:.4g}, gradient norm {norm}"
        if reason is not None:
            self.strategy.drop()
            self.auxiliaries.forget()
            return replace(taken, skipped=reason)
        self._phase("update", state, micro_batches)
        self.strategy.update(rate, norm, self.recipe.training.max_grad_norm)
        self._phase("learn", state, micro_batches)
        numbers = {**means, **self.auxiliaries.learn(), "gradient_norm": norm, "learning_rate": rate}
        return replace(taken, means=numbers)

    def _phase(self, name: str, state: TrainingState, micro_batches: Sequence[Batch]) -> None:
        self.liveness.phase(name, state.step + 1, [name for batch in micro_batches for name in batch.ids])

    def _attempt(self, micro_batches: Sequence[Batch], state: TrainingState) -> Attempt:
        self._phase("forward and backward", state, micro_batches)
        attempt = Attempt()
        try:
            attempt.sums = self._forward_backward(micro_batches, state)
        except Exception as error:
            if not self.strategy.retries:
                raise
            attempt.out_of_memory = lacks_memory(error)
            if attempt.out_of_memory:  # at the level of an error: other ranks than the main one say nothing below it
                LOGGER.error("rank %d: %s", dist.rank(), str(error).split(". ")[0])
            elif dist.active():
                attempt.error = error
            else:
                raise
        return attempt

    def _forward_backward(self, micro_batches: Sequence[Batch], state: TrainingState) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        pieces = [piece for batch in micro_batches for piece in batch.split(state.pieces)]
        samples = sum(len(piece.ids) for piece in pieces)
        for number, piece in enumerate(pieces):
            share = len(piece.ids) / samples
            losses = self.task.step(self.strategy.model, piece, self.device, state.step)
            total = losses.total
            self.strategy.backward(total * share, last=number == len(pieces) - 1)
            values: Mapping[str, Tensor] = {f"losses/{name}": term for name, term in losses.terms.items()}
            levels = {
                f"{name}{part}": pair[i] for name, pair in losses.levels.items() for i, part in enumerate((SUM, COUNT))
            }
            shares = {"losses/total": total, **values, **losses.monitors}
            parts = {name: value.detach().float() * share for name, value in shares.items()}
            for name, part in {**parts, **{name: value.detach().float() for name, value in levels.items()}}.items():
                sums[name] = sums[name] + part if name in sums else part
        return sums

    def _shrink(self, micro_batches: Sequence[Batch], state: TrainingState) -> None:
        """All ranks go on with micro-batches of half the size, or raise when one clip is too much for one of them."""
        self.strategy.drop()
        self.auxiliaries.forget()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        largest = max(len(batch.ids) for batch in micro_batches)
        if state.pieces >= largest:
            raise TrainingError(
                f"step {state.step + 1} does not fit into memory even with one clip per forward pass. Use gradient_checkpointing="
                "true, smaller or shorter clips, or a strategy that shares out what a process holds (key: parallel.strategy); "
                "`tinyworld check` with --gpu_memory says what fits."
            )
        state.pieces = min(2 * state.pieces, largest)
        size = -(-largest // state.pieces)
        LOGGER.warning(
            "step %d did not fit into memory on at least one process: from now on all take each micro-batch of %d clips in "
            "parts of %d. The gradient is the mean of theirs; what looks at a whole batch (Seraena) sees the parts",
            state.step + 1,
            largest,
            size,
        )
        self.journal.write("shrink", state.step + 1, clips=largest, clips_at_once=size)


def lacks_memory(error: Exception) -> bool:
    """Whether a pass failed because the device has no memory left; cuBLAS and cuDNN say so in words of their own."""
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)
