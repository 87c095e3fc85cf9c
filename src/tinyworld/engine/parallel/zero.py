"""What ZeRO's stages have in common under DeepSpeed's engine: passes, the step after the verdict, whole moments."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import TrainingError
from tinyworld.engine import schedule
from tinyworld.engine.parallel import deepspeed_setup, tensors
from tinyworld.engine.parallel.precision import Forward
from tinyworld.engine.parallel.strategy import Snapshot, Strategy


class Zero(Strategy):
    """An fp32 engine with torch's AdamW, which never decides on its own. Updates are counted once for all parameters."""

    retries = False

    def __init__(self, recipe: Recipe, module: nn.Module, device: torch.device) -> None:
        """Whatever has to be taken from the whole module is taken before this."""
        self.module = module
        self.parameters = tensors.trained(module)
        optimizer = schedule.build_optimizer(self.parameters.values(), recipe.optimizer)
        self.accelerator, self.engine = deepspeed_setup.prepared(recipe, module, optimizer, device)
        self.zero: Any = self.engine.optimizer
        self.adamw: torch.optim.AdamW = self.zero.optimizer
        self.updates = 0
        self.model = Forward(self.engine, recipe, device)

    def backward(self, loss: Tensor, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss, scale_wrt_gas=False)

    def update(self, rate: float, norm: float, max_norm: float) -> None:
        schedule.set_learning_rate(self.adamw, rate)
        self.zero.clip_grad = max_norm
        self.engine.step()
        if not self.engine.was_step_applied():
            raise TrainingError(f"DeepSpeed refused an update whose gradient norm is {norm}.")
        self.updates += 1
        self._follow()
        self.drop()

    @abstractmethod
    def _follow(self) -> None:
        """The average takes in the weights of this update."""

    def _moments(self) -> dict[str, dict[str, Tensor]]:
        """Whole moments for a snapshot, on rank 0; every rank takes part."""
        found: dict[str, dict[str, Tensor]] = {key: {} for key in tensors.MOMENTS if self.updates}
        for key, moments in found.items():
            for name, parameter in self.parameters.items():
                whole = deepspeed_setup.utilities().safe_get_full_optimizer_state(parameter, key)
                if dist.is_main():
                    moments |= tensors.copied({name: whole})
        return found

    def _checked(self, snapshot: Snapshot, averages: bool) -> Snapshot:
        """As `tensors.checked`; says what DeepSpeed cannot take over."""
        if "step" in snapshot.moments:
            LOGGER.warning(
                "ZeRO counts updates once for all parameters: those that took part in fewer now count as many"
            )
        return tensors.checked(snapshot, averages, self.parameters)

    def close(self) -> None:
        self.engine.destroy()
        accelerator = self.accelerator
        self.__dict__.clear()
        accelerator.free_memory()  # collects the engine, which is full of cycles
        deepspeed_setup.forget()
