"""Memory of a training step, counted before anything runs: the real step on the meta device, where tensors have a size
and no content."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MASTER_BYTES = 4 + 4 + 8
"""Bytes per trained parameter: fp32 weight, gradient, and AdamW's two moments."""
AVERAGE_BYTES = 4
HALF_BYTES = 2
"""The bf16 copy of the weights that autocast keeps during a step."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process needs on its device in a training step (without the framework's own few hundred MiB)."""

    weights: int
    activations: int
    working: int

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
    """Estimate for one micro-batch. `model` is on the meta device; `forward` runs it and returns the loss.

    Activations are what autograd would hold until the backward pass, each storage counted once. The working set is three
    times the largest of them: input, output and gradient of the dearest layer.
    """
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if half:
        model = model.to(torch.bfloat16)
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    held: dict[int, torch.UntypedStorage] = {}

    def hold(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        forward(model)
    sizes = [storage.nbytes() for storage in held.values()]
    per_parameter = MASTER_BYTES + (AVERAGE_BYTES if average else 0) + (HALF_BYTES if half else 0)
    return MemoryEstimate(per_parameter * parameters, sum(sizes), 3 * max(sizes, default=0))
