"""A skipped step taken once more from its capsule, on one process: the same samples, weights and random state."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tinyworld.config.schema import Recipe
from tinyworld.core import rng
from tinyworld.core.errors import CheckpointError
from tinyworld.engine import capsule
from tinyworld.engine.auxiliaries import Auxiliaries
from tinyworld.engine.parallel.precision import Forward
from tinyworld.engine.task import Batch, Task

TOLERANCE = 1e-3
"""Relative difference of a loss that still counts as the same: another device or number of threads rounds differently."""


@dataclass(frozen=True)
class SampleResult:
    """One sample taken alone. broken_at: the first part of the model whose output is not finite, with its kind."""

    id: str
    loss: float
    broken_at: str | None


@dataclass(frozen=True)
class RankResult:
    """What one rank's share of the step gives now. norms: of its gradient, by part of the model."""

    rank: int
    recorded: dict[str, float]
    means: dict[str, float]
    norms: dict[str, float]
    samples: list[SampleResult]

    @property
    def reproduced(self) -> bool:
        """Whether the total loss is the recorded one."""
        return same(self.means["losses/total"], self.recorded.get("losses/total"))


def same(now: float, then: float | None) -> bool:
    """Equal within TOLERANCE; any number that is not finite (None in JSON) equals any other."""
    if then is None or not math.isfinite(then):
        return not math.isfinite(now)
    return math.isclose(now, then, rel_tol=TOLERANCE, abs_tol=1e-12)


class Replay:
    """A capsule opened: the model as it was. `ranks()` takes each rank's share of the step."""

    def __init__(self, task: Task, recipe: Recipe, folder: Path, device: torch.device) -> None:
        """Raises MissingFileError or CheckpointError for a folder that is no complete capsule, or one of another task."""
        self.about, self.folder = capsule.read(folder), folder
        if self.about["task"] != task.name:
            raise CheckpointError(f"{folder} is of the task {self.about['task']}, not of {task.name}.")
        self.task, self.device = task, device
        roles = task.roles()
        for frozen in roles.frozen.values():
            frozen.requires_grad_(False).eval().to(device)
        self.module = roles.trainable.to(device)
        self.module.load_state_dict(task.read_weights(folder / "model.safetensors"))
        self.model = Forward(self.module, recipe, device)
        self.auxiliaries = Auxiliaries(roles.auxiliary, device)
        self.auxiliaries.load_states(folder)

    def ranks(self) -> Iterator[RankResult]:
        about = self.about
        world = len(about["ranks"])
        for rank, seen in enumerate(about["ranks"]):
            (batches,) = self.task.batches(about["step"], about["step"] + 1, rank, world, about["left_out"])
            draws = [draw for batch in batches for draw in batch.draws]
            if draws != seen["draws"]:
                raise CheckpointError(
                    f"{self.folder} was made of other samples than its settings give now ({seen['draws'][:2]} against "
                    f"{draws[:2]}): the videos of the training folder have changed since."
                )
            state = torch.load(self.folder / "state" / f"rng-rank{rank}.pt", weights_only=True)
            rng.restore(state)
            pieces = [piece for batch in batches for piece in batch.split(about["pieces"])]
            means = self._step(pieces)
            norms = self._norms()
            rng.restore(state)
            singles = [sample for batch in batches for sample in batch.split(len(batch.ids))]
            yield RankResult(rank, seen["means"], means, norms, [self._alone(sample) for sample in singles])

    def _step(self, pieces: list[Batch]) -> dict[str, float]:
        """Means over the rank's pieces as the trainer makes them; leaves the gradient."""
        self.module.zero_grad()
        sums: dict[str, Tensor] = {}
        samples = sum(len(piece.ids) for piece in pieces)
        for piece in pieces:
            share = len(piece.ids) / samples
            losses = self.task.step(self.model, piece, self.device, self.about["step"])
            (losses.total * share).backward()
            for name, value in {"total": losses.total, **losses.terms}.items():
                part = value.detach().float() * share
                sums[f"losses/{name}"] = sums.get(f"losses/{name}", torch.zeros_like(part)) + part
        self.auxiliaries.forget()
        return {name: float(value) for name, value in sums.items()}

    def _norms(self) -> dict[str, float]:
        norms = {}
        for name, part in self.module.named_children():
            gradients = [p.grad for p in part.parameters() if p.grad is not None]
            if gradients:
                norms[name] = float(nn.utils.get_total_norm(gradients))
        return norms

    def _alone(self, sample: Batch) -> SampleResult:
        with torch.no_grad(), first_broken(self.module) as found:
            loss = float(self.task.step(self.model, sample, self.device, self.about["step"]).total)
        self.auxiliaries.forget()
        return SampleResult(sample.ids[0], loss, found[0] if found else None)


@contextmanager
def first_broken(module: nn.Module) -> Iterator[list[str]]:
    """While it runs, collects the names of the leaves of `module` whose output is not finite, in the order of execution.

    A leaf whose input is not finite already is listed as its input.
    """
    found: list[str] = []

    def hook(name: str) -> Any:
        def look(part: nn.Module, inputs: Any, outputs: Any) -> None:
            if _broken(inputs):
                found.append(f"the input of {name}")
            elif _broken(outputs):
                found.append(f"the output of {name} ({type(part).__name__})")

        return look

    handles = [
        part.register_forward_hook(hook(name or "the model"))
        for name, part in module.named_modules()
        if not list(part.children())
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _broken(values: Any) -> bool:
    return any(isinstance(leaf, Tensor) and not bool(leaf.isfinite().all()) for leaf in tree_leaves(values))
