"""Memory of a training step, counted before anything runs: the real step on the meta device, where tensors have a size
and no content."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHT_BYTES = 4
GRADIENT_BYTES = 4
MOMENT_BYTES = 4 + 4
"""AdamW's two running means, fp32 as weight and gradient."""
AVERAGE_BYTES = 4
HALF_BYTES = 2
"""The bf16 copy of the weights that autocast keeps during a step."""
KERNEL_COPIES = 2
"""Largest tensors that a convolution copies for itself: its input and its output in the layout that it computes in."""


@dataclass(frozen=True)
class Sharing:
    """How the processes share what belongs to the weights: `parallel.strategy`, their number, `parallel.cpu_offload`."""

    strategy: str = "ddp"
    processes: int = 1
    offload: bool = False


ALONE = Sharing()


@dataclass(frozen=True)
class Counted:
    """Bytes of tensors beside the networks' own. held: what waits for the backward pass. peak: of all that exist at one
    time, `held` included. largest: of one tensor."""

    held: int
    peak: int
    largest: int

    @property
    def working(self) -> int:
        return max(self.peak - self.held, 0) + KERNEL_COPIES * self.largest

    @property
    def total(self) -> int:
        return self.held + self.working


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


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def estimate(
    model: nn.Module,
    forward: Callable[[nn.Module], Tensor],
    half: bool,
    average: bool,
    sharing: Sharing = ALONE,
    others: Iterable[nn.Module] = (),
) -> MemoryEstimate:
    """Estimate for one micro-batch. `model` is on the meta device; `forward` makes the input there, runs the model and
    returns the loss. others: further networks that it runs, whose weights are not counted here.

    Activations are what autograd holds until the backward pass, each storage counted once. The working set is how far
    the live tensors of the forward and backward pass exceed them, plus KERNEL_COPIES of the largest tensor.
    """
    weights = standing(model, half, average, sharing)
    if half:
        model = model.to(torch.bfloat16)
    counted = count([model, *others], lambda: forward(model))
    return MemoryEstimate(weights, counted.held, counted.working)


def standing(model: nn.Module, half: bool, average: bool, sharing: Sharing = ALONE) -> int:
    """Bytes that training a model takes on each device, the bf16 copy of its weights within a pass included.

    zero2 divides gradients and moments by the processes, and works on its share of the weights in a copy; cpu_offload moves
    moments and copy away. fsdp2 and zero3 divide the weights and their average too; cpu_offload moves all of that away. All
    hold whole gradients until they are exchanged, and fsdp2 and zero3 gather whole weights for a pass: counted as all of
    them, which is an upper bound for zero3; fsdp2 gathers a model that names its `sharded_blocks` two blocks at a time, the
    rest for the whole of a step.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    weights = everything * (WEIGHT_BYTES + (AVERAGE_BYTES if average else 0))
    gradients, moments = trained * GRADIENT_BYTES, trained * MOMENT_BYTES
    used = everything * (HALF_BYTES if half else 0)
    if sharing.strategy == "zero2":
        used += gradients
        gradients = _share(gradients, sharing)
        moments = 0 if sharing.offload else _share(moments + trained * WEIGHT_BYTES, sharing)
    elif sharing.strategy in ("fsdp2", "zero3"):
        gathered = _gathered(model) if sharing.strategy == "fsdp2" else everything
        used += min(gradients, gathered * GRADIENT_BYTES) + gathered * WEIGHT_BYTES
        parts = (weights, gradients, moments)
        weights, gradients, moments = (0 if sharing.offload else _share(size, sharing) for size in parts)
    return weights + gradients + moments + used


def _gathered(model: nn.Module) -> int:
    """Parameters that fsdp2 has whole on a device at one time."""
    blocks = [
        sum(p.numel() for p in model.get_submodule(name).parameters()) for name in getattr(model, "sharded_blocks", ())
    ]
    everything = sum(p.numel() for p in model.parameters())
    return everything - sum(blocks) + sum(sorted(blocks)[-2:])


def _share(size: int, sharing: Sharing) -> int:
    return -(-size // sharing.processes)


def weight_bytes(model: nn.Module) -> int:
    """Parameters and buffers as they are."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def count(models: Iterable[nn.Module], run: Callable[[], Tensor | None]) -> Counted:
    """What `run` needs on the meta device besides the models' own tensors. A loss that it returns is taken backwards."""
    live = _LiveBytes(models)
    with live:
        with torch.autograd.graph.saved_tensors_hooks(live.hold, lambda tensor: tensor):
            loss = run()
        held = live.held
        if loss is not None:
            loss.backward()
    return Counted(held if loss is not None else 0, live.peak, live.largest)


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that exist at a time, without the models' parameters and their gradients."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        models = list(models)
        self._own = {t.untyped_storage()._cdata for model in models for t in [*model.parameters(), *model.buffers()]}
        self._sizes: dict[int, int] = {}
        self._held: set[int] = set()
        for parameter in (p for model in models for p in model.parameters() if p.requires_grad):
            parameter.register_post_accumulate_grad_hook(self._drop_gradient)

    @property
    def held(self) -> int:
        """Bytes that autograd keeps, of what still exists: a pass within the pass has given its own back."""
        return sum(self._sizes[key] for key in self._held)

    def hold(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._count(storage)
            self._held.add(storage._cdata)
        return tensor

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
        self._held.discard(key)

    @staticmethod
    def _drop_gradient(parameter: Tensor) -> None:
        """The gradient is counted with the weights."""
        parameter.grad = None
