"""zero2: every process holds all weights and the average, and its share of gradients and AdamW's moments (DeepSpeed).

The engine runs in fp32, with torch's AdamW; autocast is ours. It is told which micro-batch is a step's last, and never
decides on its own: it computes the norm when asked, and steps after the verdict.

Gradients are exchanged during the backward pass: all processes must run the same parts of the module, and one that fails
there keeps the others waiting. A parameter without gradient counts as one with gradient zero.
"""

from contextlib import AbstractContextManager

import torch
from torch import nn

from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.engine.averaging import averaged
from tinyworld.engine.parallel import deepspeed_setup, tensors
from tinyworld.engine.parallel.flat import broadcast
from tinyworld.engine.parallel.strategy import Snapshot
from tinyworld.engine.parallel.zero import Zero


class ZeroTwo(Zero):
    """DeepSpeed's ZeRO stage 2 behind Accelerate, with or without the optimizer's state in main memory."""

    def __init__(self, recipe: Recipe, module: nn.Module, device: torch.device) -> None:
        broadcast(module)
        decay = recipe.training.ema_decay
        self.average = averaged(module, decay) if decay > 0 else None
        super().__init__(recipe, module, device)
        self._set_state()

    def _set_state(self) -> None:
        """AdamW's state for this process's share, with moments of zero, linked to the parameters that lie in it (DeepSpeed
        does so in the first update; a snapshot may be taken or loaded before)."""
        for group, share in zip(self.zero.bit16_groups, self.zero.single_partition_of_fp32_groups, strict=True):
            self.adamw.state[share] = tensors.adamw_state(share.detach(), self.updates)
            deepspeed_setup.utilities().lazy_init_hp_params_optimizer_state(group, share, self.adamw.state)

    def reduce(self) -> float:
        """The gradients are reduced already. DeepSpeed's word for a norm that is not finite is -1."""
        norm = float(self.zero.scaled_global_norm())
        return norm if norm >= 0 else float("nan")

    def _follow(self) -> None:
        if self.average is not None:
            self.average.update_parameters(self.module)

    def drop(self) -> None:
        """What DeepSpeed's own skipped step clears, and the count of micro-batches that its CPU buffers go by."""
        self.zero.zero_grad(set_to_none=True)
        self.zero.micro_step_id = -1
        for kept in (self.zero.averaged_gradients, self.zero.all_grad_tensors):
            for group in kept:
                kept[group] = None
        if self.zero.cpu_offload:
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # gradients on their way to main memory would arrive after they are cleared
            self.zero.reset_cpu_buffers()
            stale = [share.grad for share in self.zero.single_partition_of_fp32_groups]
            for buffer in [*stale, *self.zero.accumulated_grads_in_cpu.values()]:
                buffer.zero_()  # else a parameter without gradient in a later step would find this one's

    def snapshot(self) -> Snapshot | None:
        moments = self._moments()
        if not dist.is_main():
            return None
        average = self.average
        return Snapshot(
            tensors.copied(self.module.state_dict()),
            None if average is None else tensors.copied(average.module.state_dict()),
            moments,
            self.updates,
            0 if average is None else int(average.n_averaged),
        )

    @torch.no_grad()
    def load(self, snapshot: Snapshot) -> None:
        self._checked(snapshot, self.average is not None)
        tensors.load_weights(self.module, snapshot.weights)
        if self.average is not None and snapshot.average is not None:
            tensors.load_weights(self.average.module, snapshot.average)
            self.average.n_averaged.fill_(snapshot.averaged_updates)
        self.updates = snapshot.updates
        self._set_state()
        fragments = deepspeed_setup.utilities()
        for name, parameter in self.parameters.items():
            fragments.safe_set_full_fp32_param(parameter, parameter.detach())
            for key in tensors.MOMENTS:
                if name in snapshot.moments.get(key, {}):
                    fragments.safe_set_full_optimizer_state(parameter, snapshot.moments[key][name], key)
        self.drop()

    def whole(self) -> AbstractContextManager[nn.Module]:
        return tensors.evaluating(self.module if self.average is None else self.average.module)
