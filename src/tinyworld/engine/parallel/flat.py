"""Collectives over many tensors of any size, packed into few flat messages."""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed
from torch import Tensor, nn

from tinyworld.core import dist

BUCKET = 2**24
"""Numbers per message: 64 MiB of fp32. Small tensors share one; a larger tensor has one of its own."""


def buckets(tensors: Sequence[Tensor], size: int = BUCKET) -> Iterator[list[Tensor]]:
    """The tensors in order, in groups of one dtype and at most `size` elements."""
    group: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if group and (held + tensor.numel() > size or tensor.dtype != group[0].dtype):
            yield group
            group, held = [], 0
        group.append(tensor)
        held += tensor.numel()
    if group:
        yield group


@torch.no_grad()
def broadcast(module: nn.Module) -> None:
    """Rank 0's parameters and buffers on every rank."""
    if not dist.active():
        return
    for group in buckets([*module.parameters(), *module.buffers()]):
        packed = torch.cat([tensor.detach().flatten() for tensor in group])
        torch.distributed.broadcast(packed, src=0)
        _unpack(packed, group)


@torch.no_grad()
def mean_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Each parameter's gradient becomes its mean over ranks, equal bit for bit on all of them. No gradient on some ranks
    counts as zero there; on all ranks it stays None."""
    if not dist.active():
        return
    device = parameters[0].device
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=device)
    torch.distributed.all_reduce(present, op=torch.distributed.ReduceOp.MAX)
    gradients = []
    for parameter, anywhere in zip(parameters, present.tolist(), strict=True):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for group in buckets(gradients):
        packed = torch.cat([gradient.flatten() for gradient in group])
        torch.distributed.all_reduce(packed)
        _unpack(packed.div_(dist.world_size()), group)


def _unpack(packed: Tensor, group: list[Tensor]) -> None:
    sizes = [tensor.numel() for tensor in group]
    for tensor, part in zip(group, packed.split(sizes), strict=True):
        tensor.copy_(part.view(tensor.shape))
