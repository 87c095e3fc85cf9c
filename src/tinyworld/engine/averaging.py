"""Exponential moving average of the weights, counted in optimizer steps.

(The public TAEHV notebook averages at most every two seconds of wall clock, so its horizon depends on the machine.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def warmed_decay(updates: int, decay: float) -> float:
    """The decay for the `updates`-th update (0-based): short memory at first, so early averages are not mostly the
    random start."""
    return min(decay, (1 + updates) / (10 + updates))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it; call `update_parameters(model)` after every optimizer step."""

    @torch.no_grad()
    def follow(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        torch._foreach_lerp_(list(average), list(current), 1 - warmed_decay(int(updates), decay))

    copy = AveragedModel(model, multi_avg_fn=follow, use_buffers=False)
    copy.module.requires_grad_(False)
    copy.module.eval()
    return copy


@torch.no_grad()
def follow_shares(average: Sequence[Tensor], current: Sequence[Tensor], updates: int, decay: float) -> None:
    """As `averaged`, on one process's shares of the weights; `updates` were followed before."""
    weight = 1 - warmed_decay(updates, decay) if updates else 1.0
    torch._foreach_lerp_(list(average), list(current), weight)
