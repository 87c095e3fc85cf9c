"""fsdp2: every process holds its share of weights, gradients, AdamW's moments and the average (torch's fully_shard).

A unit is a part of the module whose weights are gathered when its forward is called and let go afterwards. Which parts are
called as modules only the model knows: it names them in an attribute `sharded_blocks` (names as in named_modules; the
blocks of a transformer). A model without it is one unit, gathered for the whole of a step; that is right for any model,
also for one that uses parts without calling them, and saves on gradients, moments and the average alone.

Gradients are exchanged during the backward pass, and weights during the forward pass: all processes must run the same
parts of the module in the same order, and one that fails there keeps the others waiting.
"""

import contextlib
import copy
import gc
from collections.abc import Iterator

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_only

from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.core.errors import ConfigError
from tinyworld.engine import schedule
from tinyworld.engine.averaging import follow_shares
from tinyworld.engine.parallel import group, tensors
from tinyworld.engine.parallel.flat import broadcast
from tinyworld.engine.parallel.precision import Forward
from tinyworld.engine.parallel.strategy import Snapshot, Strategy


class FullySharded(Strategy):
    """Weights, gradients, moments and average in equal shares over the processes of the default group."""

    retries = False

    def __init__(self, recipe: Recipe, module: nn.Module, device: torch.device) -> None:
        _check(module)
        broadcast(module)
        self.hollow = hollow(module)
        module.register_forward_hook(_own_outputs)  # before fully_shard's, which has to see what it returns
        self.mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        self.device = device
        offload = CPUOffloadPolicy() if recipe.parallel.cpu_offload and device.type == "cuda" else OffloadPolicy()
        for part in [*units(module), module]:
            fully_shard(part, mesh=self.mesh, offload_policy=offload)
        self.module = module
        self.parameters = tensors.trained(module)
        self.everything = dict(module.named_parameters())
        self.decay = recipe.training.ema_decay
        self.average = {name: p.detach().clone() for name, p in self.everything.items()} if self.decay > 0 else None
        self.averaged_updates = 0
        self.optimizer = schedule.build_optimizer(self.parameters.values(), recipe.optimizer)
        self.model = Forward(module, recipe, device)
        self.updates = 0

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def reduce(self) -> float:
        """The gradients are reduced already; the norm is summed over the shares."""
        squares = torch.zeros((), device=self.device)
        for gradient in self._gradients():
            squares += torch.linalg.vector_norm(gradient).square().to(self.device)
        torch.distributed.all_reduce(squares)
        return float(squares.sqrt())

    def _gradients(self) -> list[Tensor]:
        """This process's shares of the gradients."""
        return [local(p.grad) for p in self.parameters.values() if p.grad is not None]

    def update(self, rate: float, norm: float, max_norm: float) -> None:
        gradients = self._gradients()
        if gradients:
            torch._foreach_mul_(gradients, min(max_norm / (norm + 1e-6), 1.0))
        schedule.set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.updates += 1
        self._follow()
        self.drop()

    def _follow(self) -> None:
        if self.average is not None:
            average = [local(value) for value in self.average.values()]
            current = [local(p) for p in self.everything.values()]
            follow_shares(average, current, self.averaged_updates, self.decay)
            self.averaged_updates += 1

    def drop(self) -> None:
        self.optimizer.zero_grad()
        self._reshard()

    def _reshard(self) -> None:
        """Let go of weights that a forward pass without a backward pass left gathered."""
        for part in self.module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()

    def snapshot(self) -> Snapshot | None:
        self._reshard()
        weights = self._gathered(self.module.state_dict())
        average = None
        if self.average is not None:
            average = {**weights, **self._gathered(self._named(self.average))}
        states = {name: self.optimizer.state[p] for name, p in self.parameters.items() if p in self.optimizer.state}
        moments = {key: self._gathered({name: s[key] for name, s in states.items()}) for key in tensors.MOMENTS}
        moments |= tensors.counted({name: int(state["step"]) for name, state in states.items()}, self.updates)
        if not dist.is_main():
            return None
        return Snapshot(weights, average, moments if states else {}, self.updates, self.averaged_updates)

    def _named(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """`values` of the parameters under every name that the state dict has for them: a shared weight has several."""
        names = {id(p): name for name, p in self.everything.items()}
        every = self.module.named_parameters(remove_duplicate=False)
        return {name: values[names[id(p)]] for name, p in every}

    def _gathered(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the whole tensors on rank 0's CPU, one at a time; nothing on the others."""
        found: dict[str, Tensor] = {}
        for name, value in values.items():
            whole = self._whole(value)
            if dist.is_main():
                found |= tensors.copied({name: whole})
        return found

    def _whole(self, value: Tensor) -> Tensor:
        """The whole tensor on the device, on every rank."""
        value = value.to(self.device)  # with cpu_offload it is in main memory, where a GPU's collectives do not reach
        return value.full_tensor() if isinstance(value, DTensor) else value

    @torch.no_grad()
    def load(self, snapshot: Snapshot) -> None:
        self._reshard()
        tensors.checked(snapshot, self.average is not None, self.parameters)
        tensors.check_fit(snapshot.weights, {name: value.shape for name, value in self.module.state_dict().items()})
        for name, value in self.module.state_dict().items():
            self._set(value, snapshot.weights[name])
        if self.average is not None and snapshot.average is not None:
            for name, value in self.average.items():
                self._set(value, snapshot.average[name])
            self.averaged_updates = snapshot.averaged_updates
        self.optimizer.state.clear()
        for name in snapshot.moments.get("exp_avg", {}):
            parameter = self.parameters[name]
            state = tensors.adamw_state(parameter.detach(), tensors.updates_of(snapshot, name))
            for key in tensors.MOMENTS:
                self._set(state[key], snapshot.moments[key][name])
            self.optimizer.state[parameter] = state
        self.updates = snapshot.updates
        self.drop()

    def _set(self, target: Tensor, whole: Tensor) -> None:
        """Copy this process's share of `whole` into `target`."""
        if not isinstance(target, DTensor):
            target.copy_(whole)
            return
        shares = whole.chunk(self.mesh.size())
        if self.mesh.get_local_rank() < len(shares):
            local(target).copy_(shares[self.mesh.get_local_rank()])

    @contextlib.contextmanager
    def whole(self) -> Iterator[nn.Module]:
        self._reshard()
        plain = copy.deepcopy(self.hollow)
        values = self.everything if self.average is None else self.average
        buffers = dict(self.module.named_buffers())
        filled = {name: self._whole(value.detach()) for name, value in values.items()}
        filled |= {name: value.detach().clone() for name, value in buffers.items()}
        for name, value in [*plain.named_parameters(), *plain.named_buffers()]:
            whole = filled.pop(name)
            new = nn.Parameter(whole, requires_grad=False) if isinstance(value, nn.Parameter) else whole
            torch.utils.swap_tensors(value, new)
        yield plain.eval()

    def close(self) -> None:
        self.drop()
        del self.model, self.module, self.hollow, self.average, self.parameters, self.everything, self.optimizer
        del self.mesh
        gc.collect()  # units and their hooks hold on to each other
        if group.is_own():
            torch.distributed.destroy_process_group()


def local(value: Tensor) -> Tensor:
    """This process's share, without a copy."""
    value = value.detach()
    return value.to_local() if isinstance(value, DTensor) else value


def _own_outputs(module: nn.Module, inputs: object, outputs: object) -> object:
    """Outputs that are views, copied: fully_shard hangs its backward pass on them, and an in-place operation on a view
    would shake it off."""
    return tree_map_only(Tensor, lambda value: value.clone() if value._is_view() else value, outputs)


def hollow(module: nn.Module) -> nn.Module:
    """A copy of the module whose parameters and buffers have a shape and no content."""
    empty: dict[int, object] = {}
    for parameter in module.parameters():
        empty[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        empty[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, empty)


def units(module: nn.Module) -> list[nn.Module]:
    """The parts that become units, inner ones first."""
    parts = dict(module.named_modules())
    names = list(getattr(module, "sharded_blocks", ()))
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise ValueError(f"sharded_blocks of {type(module).__name__} names {unknown}, which it does not have")
    return [parts[name] for name in sorted(names, key=lambda name: -name.count("."))]


def _check(module: nn.Module) -> None:
    scalars = [name for name, p in module.named_parameters() if p.ndim == 0]
    if scalars:
        raise ConfigError(
            f"parallel.strategy is fsdp2, but {', '.join(scalars)} of the model have no dimension to share out. Use "
            "--strategy zero2 or ddp."
        )
