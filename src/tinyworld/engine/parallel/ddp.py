"""ddp: every process holds everything, and works alone until its gradient is complete.

Gradients are accumulated locally and exchanged once per step, outside of the backward pass. That gives up the overlap of
torch's DistributedDataParallel; it gains that a process whose numbers are not finite, or whose memory is short, has said
so before any other waits for its gradient.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.engine import schedule
from tinyworld.engine.averaging import averaged
from tinyworld.engine.parallel import tensors
from tinyworld.engine.parallel.flat import broadcast, mean_gradients
from tinyworld.engine.parallel.precision import Forward
from tinyworld.engine.parallel.strategy import Snapshot, Strategy


class DataParallel(Strategy):
    """Equal copies of weights, gradients, AdamW's moments and the average in every process. Also runs alone."""

    retries = True

    def __init__(self, recipe: Recipe, module: nn.Module, device: torch.device) -> None:
        broadcast(module)
        decay = recipe.training.ema_decay
        self.average = averaged(module, decay) if decay > 0 else None
        self.module = module
        self.parameters = tensors.trained(module)
        self.optimizer = schedule.build_optimizer(self.parameters.values(), recipe.optimizer)
        self.model = Forward(module, recipe, device)
        self.updates = 0

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def reduce(self) -> float:
        parameters = list(self.parameters.values())
        mean_gradients(parameters)
        return float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))

    def update(self, rate: float, norm: float, max_norm: float) -> None:
        nn.utils.clip_grads_with_norm_(list(self.parameters.values()), max_norm, torch.tensor(norm))
        schedule.set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.updates += 1
        if self.average is not None:
            self.average.update_parameters(self.module)
        self.drop()

    def drop(self) -> None:
        self.optimizer.zero_grad()

    def snapshot(self) -> Snapshot | None:
        if not dist.is_main():
            return None
        states = {name: self.optimizer.state[p] for name, p in self.parameters.items() if p in self.optimizer.state}
        moments = {key: tensors.copied({name: state[key] for name, state in states.items()}) for key in tensors.MOMENTS}
        moments |= tensors.counted({name: int(state["step"]) for name, state in states.items()}, self.updates)
        average = self.average
        return Snapshot(
            tensors.copied(self.module.state_dict()),
            None if average is None else tensors.copied(average.module.state_dict()),
            moments if states else {},
            self.updates,
            0 if average is None else int(average.n_averaged),
        )

    def load(self, snapshot: Snapshot) -> None:
        tensors.checked(snapshot, self.average is not None, self.parameters)
        tensors.load_weights(self.module, snapshot.weights)
        if self.average is not None and snapshot.average is not None:
            tensors.load_weights(self.average.module, snapshot.average)
            self.average.n_averaged.fill_(snapshot.averaged_updates)
        self.optimizer.state.clear()
        for name in snapshot.moments.get("exp_avg", {}):
            parameter = self.parameters[name]
            state = tensors.adamw_state(parameter.detach(), tensors.updates_of(snapshot, name))
            for key in tensors.MOMENTS:
                state[key].copy_(snapshot.moments[key][name])
            self.optimizer.state[parameter] = state
        self.updates = snapshot.updates
        self.drop()

    def whole(self) -> AbstractContextManager[nn.Module]:
        return tensors.evaluating(self.module if self.average is None else self.average.module)

    def close(self) -> None:
        self.drop()
        del self.model, self.module, self.average, self.parameters, self.optimizer
