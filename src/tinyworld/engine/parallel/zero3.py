"""zero3: every process holds its share of weights, gradients, AdamW's moments and the average (DeepSpeed).

DeepSpeed gathers the weights of a part when its forward is called, also of a part whose weights are used without calling
it, and lets go of them at the latest when the step ends. As in zero2 the engine runs in fp32, with torch's AdamW; autocast
is ours; it computes nothing on its own before the verdict. With cpu_offload the shares lie in main memory, and only the
gathered weights and their gradients on the device.

Weights are exchanged during the forward pass, and gradients during the backward pass: all processes must run the same
parts of the module in the same order, and one that fails there keeps the others waiting. A parameter without gradient
counts as one with gradient zero.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.engine.averaging import follow_shares
from tinyworld.engine.parallel import deepspeed_setup, tensors
from tinyworld.engine.parallel.flat import broadcast
from tinyworld.engine.parallel.fsdp2 import hollow
from tinyworld.engine.parallel.strategy import Snapshot
from tinyworld.engine.parallel.zero import Zero


class ZeroThree(Zero):
    """DeepSpeed's ZeRO stage 3 behind Accelerate. A share is a flat part of a tensor, filled up with zeros to equal size."""

    def __init__(self, recipe: Recipe, module: nn.Module, device: torch.device) -> None:
        broadcast(module)
        self.hollow = hollow(module)
        self.device = device
        self.everything: dict[str, Any] = dict(module.named_parameters())
        self.shapes = {name: value.shape for name, value in module.state_dict().items()}
        super().__init__(recipe, module, device)
        self.decay = recipe.training.ema_decay
        self.average: dict[str, Tensor] | None = None
        if self.decay > 0:
            self.average = {name: p.ds_tensor.detach().clone() for name, p in self.everything.items()}
        self.averaged_updates = 0
        self._set_state()

    def _set_state(self) -> None:
        """AdamW's state for this process's shares, with moments of zero (a snapshot may be loaded before the first update)."""
        for share in self.zero.fp32_partitioned_groups_flat:
            self.adamw.state[share] = tensors.adamw_state(share.detach(), self.updates)

    def reduce(self) -> float:
        """The gradients are reduced already; the norm is summed over the shares."""
        squares = torch.zeros((), device=self.device)
        for parameter in self.parameters.values():
            squares += torch.linalg.vector_norm(deepspeed_setup.utilities().safe_get_local_grad(parameter)).square()
        torch.distributed.all_reduce(squares)
        return float(squares.sqrt())

    def _follow(self) -> None:
        if self.average is not None:
            current = [p.ds_tensor for p in self.everything.values()]
            follow_shares(list(self.average.values()), current, self.averaged_updates, self.decay)
            self.averaged_updates += 1

    def drop(self) -> None:
        """What DeepSpeed's own skipped step clears, and what it leaves for a parameter that has no gradient in a later step."""
        self._release()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # gradients may still be on their way to buffers in main memory
        self.zero.zero_grad(set_to_none=True)
        self.zero.averaged_gradients = {}
        self.zero.grad_partitions_flat_buffer.zero_()
        for bucket in self.zero.ipg_buckets.values():
            bucket.clear_params()
        if self.zero.offload_optimizer:
            self.zero.reset_cpu_buffers()
            for share in self.zero.fp32_partitioned_groups_flat:
                share.grad.zero_()

    def _release(self) -> None:
        """Let go of weights that a forward pass without a backward pass left gathered."""
        self.zero.empty_partition_cache()

    def snapshot(self) -> Snapshot | None:
        self._release()
        weights, average = self._gathered({name: p.ds_tensor for name, p in self.everything.items()}), None
        if self.average is not None:
            average = self._gathered(self.average)
        moments = self._moments()
        if not dist.is_main():
            return None
        return Snapshot(weights, average, moments, self.updates, self.averaged_updates)

    def _gathered(self, shares: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of copies on rank 0's CPU, one tensor at a time; nothing on the others."""
        names = {id(p): name for name, p in self.everything.items()}  # a shared weight has several in the state dict
        found: dict[str, Tensor] = {}
        for name, value in self.module.state_dict(keep_vars=True).items():
            whole = self._whole(names[id(value)], shares) if id(value) in names else value
            if dist.is_main():
                found |= tensors.copied({name: whole})
        return found

    def _whole(self, name: str, shares: dict[str, Tensor]) -> Tensor:
        """The whole parameter on the device, on every rank, out of all processes' shares."""
        share, shape = shares[name].detach().to(self.device), self.everything[name].ds_shape
        every = share.new_empty(share.numel() * torch.distributed.get_world_size())
        torch.distributed.all_gather_into_tensor(every, share)
        return every[: shape.numel()].view(shape)

    @torch.no_grad()
    def load(self, snapshot: Snapshot) -> None:
        self._release()
        self._checked(snapshot, self.average is not None)
        tensors.check_fit(snapshot.weights, self.shapes)
        for name, value in self.module.state_dict(keep_vars=True).items():
            if not isinstance(value, nn.Parameter):
                value.copy_(snapshot.weights[name])
        self.updates = snapshot.updates
        self._set_state()
        fragments = deepspeed_setup.utilities()
        for name, parameter in self.everything.items():
            share = _share(parameter, snapshot.weights[name])
            parameter.ds_tensor.copy_(share)
            if self.average is not None and snapshot.average is not None:
                self.average[name].copy_(_share(parameter, snapshot.average[name]))
            if name in self.parameters:
                fragments.safe_set_local_fp32_param(parameter, share)
            for key in tensors.MOMENTS:
                if name in snapshot.moments.get(key, {}):
                    moment = _share(parameter, snapshot.moments[key][name])
                    fragments.safe_set_local_optimizer_state(parameter, moment, key)
        if self.average is not None:
            self.averaged_updates = snapshot.averaged_updates
        self.drop()

    @contextlib.contextmanager
    def whole(self) -> Iterator[nn.Module]:
        self._release()
        plain = copy.deepcopy(self.hollow)
        shares = self.average or {name: p.ds_tensor for name, p in self.everything.items()}
        for name, parameter in plain.named_parameters():
            torch.utils.swap_tensors(parameter, nn.Parameter(self._whole(name, shares), requires_grad=False))
        buffers = dict(self.module.named_buffers())
        for name, buffer in plain.named_buffers():
            torch.utils.swap_tensors(buffer, buffers[name].detach().clone())
        yield plain.eval()


def _share(parameter: Any, whole: Tensor) -> Tensor:
    """This process's share of a tensor of the parameter's shape."""
    size = parameter.ds_tensor.numel()
    part = whole.flatten()[torch.distributed.get_rank() * size :][:size]
    return nn.functional.pad(part, (0, size - part.numel()))
