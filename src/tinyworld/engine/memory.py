"""Memory of a training step, counted before anything runs: the real step on the meta device, where tensors have a size
and no content."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MASTER_BYTES = 4 + 4 + 8
"""Bytes per trained parameter: fp32 weight, gradient, and AdamW's two moments."""
AVERAGE_BYTES = 4
HALF_BYTES = 2
"""The bf16 copy of the weights that autocast keeps during a step."""
KERNEL_COPIES = 2
"""Largest tensors that a convolution copies for itself: its input and its output in the layout that it computes in."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process needs on its device in a training step (without the framework's own few hundred MiB)."""

    weights: int
    activations: int
    """What waits for the backward pass."""
    working: int
    """What comes on top at the dearest moment: gradients on their way back, values that checkpointing computes again,
    copies inside convolutions."""

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.working

    def __str__(self) -> str:
        parts = {
            "weights, gradients, optimizer": self.weights,
            "activations": self.activations,
            "working set": self.working,
        }
        return f"{gib(self.total)} per process ({', '.join(f'{name} {gib(size)}' for name, size in parts.items())})"


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def estimate(model: nn.Module, forward: Callable[[nn.Module], Tensor], half: bool, average: bool) -> MemoryEstimate:
    """Estimate for one micro-batch. `model` is on the meta device; `forward` makes the input there, runs the model and
    returns the loss.

    Activations are what autograd holds until the backward pass, each storage counted once. The working set is how far
    the live tensors of the forward and backward pass exceed them, plus KERNEL_COPIES of the largest tensor.
    """
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if half:
        model = model.to(torch.bfloat16)
    live = _LiveBytes(model)
    held: dict[int, torch.UntypedStorage] = {}

    def hold(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not live.is_own(storage):
            held[storage._cdata] = storage
        return tensor

    with live:
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = forward(model)
        activations = sum(storage.nbytes() for storage in held.values())
        held.clear()
        loss.backward()
    per_parameter = MASTER_BYTES + (AVERAGE_BYTES if average else 0) + (HALF_BYTES if half else 0)
    working = max(live.peak - activations, 0) + KERNEL_COPIES * live.largest
    return MemoryEstimate(per_parameter * parameters, activations, working)


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that exist at a time, without the model's parameters and their gradients."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
        self._sizes: dict[int, int] = {}
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._drop_gradient)

    def is_own(self, storage: torch.UntypedStorage) -> bool:
        return storage._cdata in self._own

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._own or key in self._sizes:
            return
        self._sizes[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        self.largest = max(self.largest, size)
        weakref.finalize(storage, self._forget, key).atexit = False

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    @staticmethod
    def _drop_gradient(parameter: Tensor) -> None:
        """The gradient is counted with the weights."""
        parameter.grad = None
