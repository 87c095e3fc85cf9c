"""Weights of a video transformer that is trained from scratch."""

import torch
from torch import Tensor, nn

from tinyworld.core.rng import derive_seed

STD = 0.02
ZERO = ("transformer.proj_out.weight", "control_adapter.residual_blocks.0.conv2.weight")
"""The velocity starts at zero; so does what the adapter's residual block adds to its first convolution."""


@torch.no_grad()
def initialise(backbone: nn.Module, seed: int) -> None:
    """Normal (0.02, cut at two deviations) weights, zero biases, norms of one, tables of normal / sqrt(D).

    Every tensor has a generator of its own, seeded with its name: no draw depends on the order or on other tensors.
    """
    for name, parameter in backbone.named_parameters():
        generator = torch.Generator().manual_seed(derive_seed("video transformer", seed, name))
        parameter.copy_(_drawn(name, parameter, generator))


def _drawn(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    value = torch.zeros(parameter.shape)
    if name.endswith("scale_shift_table"):
        return nn.init.normal_(value, std=parameter.shape[-1] ** -0.5, generator=generator)
    if name.endswith(".bias") or name in ZERO:
        return value
    if parameter.ndim == 1:  # the weight of a norm
        return nn.init.ones_(value)
    return nn.init.trunc_normal_(value, std=STD, a=-2 * STD, b=2 * STD, generator=generator)
