"""The protocol a training task fulfils. A new model is a folder and a task; never a branch in the loop."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Auxiliary(Protocol):
    """A helper of the task that trains itself beside the model, such as a discriminator: networks, an optimizer and
    memory of its own. Never prepared by the engine; what keeps it equal on all ranks is its own business."""

    def to(self, device: torch.device) -> None:
        """Move networks and optimizer state to the training device."""

    def learn(self) -> dict[str, float]:
        """After each successful optimizer step, on every rank: its own update, from what the step's micro-batches showed
        it. Numbers to log, the same names on all ranks."""

    def forget(self) -> None:
        """The step was skipped on all ranks: drop what it showed."""

    def state_dict(self) -> dict[str, Any]:
        """What is equal on all ranks, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def rank_state(self) -> dict[str, Any]:
        """What only this rank knows (its share of a replay buffer, its generators), as copies and plain values: training goes on
        while they are written."""

    def load_rank_state(self, state: dict[str, Any]) -> None: ...

    def take_share(self, states: Iterable[dict[str, Any]], rank: int, world: int) -> None:
        """Go on from what the ranks of a run of another size knew: this rank's fair share of all, in rank order. What is
        drawn at random from now on is drawn as in a run of this size."""

    def most_bytes(self) -> int:
        """What `state_dict` and `rank_state` may come to take."""


@dataclass
class Roles:
    """Which module is what, so that each gets the treatment it needs and no other.

    trainable: prepared by the engine (device, strategy, autocast), optimised, averaged, saved. Only the forward of what the
        engine hands to `step` is called in training: anything else would bypass autocast and sharding.
    auxiliary: trains itself; moved to the device, told of each step, saved and restored.
    frozen: moved to the device and set to evaluation mode; never prepared, never saved.
    """

    trainable: nn.Module
    auxiliary: Mapping[str, Auxiliary] = field(default_factory=dict)
    frozen: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass
class Losses:
    """What a step adds up. `terms` are weighted scalars whose sum is minimised; `monitors` are logged only; `rising` names
    the terms whose weight is still on a ramp; `levels` are sums and counts of what only some samples tell, logged as their
    quotient."""

    terms: dict[str, Tensor]
    monitors: dict[str, Tensor] = field(default_factory=dict)
    rising: frozenset[str] = frozenset()
    levels: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


class Batch(Protocol):
    """What one rank sees of one micro-batch. `ids` name the samples; `faults` are (path, reason) met while loading."""

    ids: list[str]
    faults: list[tuple[str, str]]

    @property
    def draws(self) -> Sequence[str]:
        """What tells each sample from every other that the run will draw: its id and everything random in it."""

    def split(self, parts: int) -> Sequence["Batch"]:
        """The same samples in `parts` batches, for a device that is too small for one."""


@dataclass(frozen=True)
class Evaluated:
    """Result for one held-out sample: plain numbers (None where a metric could not be had), ready for JSON; the same names for
    all samples."""

    id: str
    metrics: dict[str, Any]
    baseline: Mapping[str, float | None]


class Task(Protocol):
    """A training task. Everything that depends on the model, the data or the losses is behind this."""

    name: str

    def roles(self) -> Roles:
        """The modules and what each is for."""

    def describe(self) -> dict[str, Any]:
        """Facts for the journal's start line: numbers of clips, held-out clips and so on."""

    def fingerprint(self, done: int) -> dict[str, Any]:
        """What must not change between the runs that share a checkpoint of `done` steps: architecture, data order, all
        that these steps have learned from; not what comes later."""

    def milestones(self) -> Sequence[int]:
        """Steps from which on metrics mean something else than before (a stage's start, the end of a ramp): the best model
        and the patience of early stopping begin anew there."""

    def batches(
        self, start_step: int, stop_step: int, rank: int, world: int, left_out: int = 0
    ) -> Iterator[Sequence[Batch]]:
        """The micro-batches of each optimizer step from `start_step` on; a pure function of the arguments. The global batch
        of a step does not depend on `world`. left_out: as many steps' worth of samples were passed over before."""

    def step(self, model: nn.Module, batch: Any, device: torch.device, done: int) -> Losses:
        """Losses of one micro-batch. `model` is the prepared trainable module; `done` optimizer steps came before."""

    def dearest(self) -> tuple[Batch, int] | None:
        """A made-up micro-batch that needs the most memory of all, and the number of a step in which everything takes part;
        None when there is no memory limit to try it against."""

    def memory_advice(self) -> str:
        """What would fit when `dearest` does not, as text that goes on after a sentence."""

    def remarks(self, step: int, means: Mapping[str, float]) -> list[str]:
        """What the logged numbers of a step are worth saying, as warnings; each is said once in a run."""

    def check_faults(self, faults: Mapping[str, str]) -> None:
        """Raise DataError when more clips failed (path → reason) than the budget allows."""

    def held_out(self) -> Sequence[Any]:
        """Samples to evaluate on, the same list on every rank."""

    def evaluate(self, model: nn.Module, samples: Sequence[Any], device: torch.device) -> list[Evaluated]:
        """Metrics of a few held-out samples (at most `validation_batch_size`)."""

    def preview(self, model: nn.Module, sample: Any, device: torch.device, folder: Path) -> None:
        """Write something to look at for one sample into `folder`, named after the sample."""

    def write_weights(self, weights: Mapping[str, Tensor], file: Path) -> None:
        """Write the trainable module's weights in the public format, self-describing. Runs beside the training."""

    def read_weights(self, file: Path) -> dict[str, Tensor]:
        """What `write_weights` wrote, checked against the task's architecture."""

    def export(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write a folder that `from_pretrained` opens. Runs beside the training."""
