"""What the trainer asks of a strategy: how the processes of a run hold the trained module and learn as one.

Under every strategy the weights are fp32, and a snapshot is the same whichever strategy and however many processes made it.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """All of the trained state, on the CPU and copied: training may go on while it is written.

    weights: the module's state dict (fp32 parameters and its buffers by name); average: the same of the averaged weights.
    moments: AdamW's "exp_avg" and "exp_avg_sq" by parameter name, for the parameters that were updated; where a
        parameter took part in fewer than `updates` updates, "step" holds how many (a scalar).
    updates: AdamW updates done. averaged_updates: how many of them the average has followed.
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    moments: dict[str, dict[str, Tensor]]
    updates: int
    averaged_updates: int


class Strategy(ABC):
    """The trained module in the hands of all processes. Every method is called on every process, in the same order.

    One step: forward and `backward` of each micro-batch, `reduce`, then `update` or `drop`.
    """

    model: nn.Module
    """What training calls, and only its forward: autocast inside, fp32 outputs."""
    retries: bool
    """Whether forward and backward are free of collectives, so that a process that failed there keeps no other waiting."""

    @abstractmethod
    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of `loss`, a scalar already multiplied by its share of the step. `last`: of this step."""

    @abstractmethod
    def reduce(self) -> float:
        """After the last micro-batch: the mean of the gradients over processes. Returns its L2 norm, not clipped and equal
        on all processes; NaN or infinite when any element is."""

    @abstractmethod
    def update(self, rate: float, norm: float, max_norm: float) -> None:
        """One AdamW update at learning rate `rate` with gradients of L2 norm `norm` (from `reduce`) scaled down to
        `max_norm`; then the average follows and gradients are forgotten."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the gradients since the last update: the step is skipped. Safe at any moment between forward and update."""

    @abstractmethod
    def snapshot(self) -> Snapshot | None:
        """The trained state on rank 0, None on the others."""

    @abstractmethod
    def load(self, snapshot: Snapshot) -> None:
        """Go on from `snapshot`, of which every process is given all. Raises CheckpointError when it does not fit."""

    @abstractmethod
    def whole(self) -> AbstractContextManager[nn.Module]:
        """The plain module in evaluation mode, with averaged weights (current ones without an average), for each process
        to use on its own. It is valid, and must not be trained, inside the context."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Nothing else may be called afterwards.

        A process that has sharded must then end with os._exit: torch's caches of DTensor keep the process group and its
        threads alive beyond destroy_process_group, and these now and then abort the interpreter's own way out."""
