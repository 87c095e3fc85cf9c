"""Starting weights of the geometry branch, drawn from a given generator: torch's global one has no say in them."""

import torch
from torch import nn

from tinyworld.models.fantasy.temporal import LINEAR_STD, draw_normal


@torch.no_grad()
def init_layers(module: nn.Module, generator: torch.Generator) -> None:
    """All linear layers and convolutions inside: truncated normal, bias 0; all layer norms: the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            draw_normal(layer.weight, LINEAR_STD, generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()


def zero(layer: nn.Linear | nn.Conv2d) -> None:
    """Have a layer start by saying nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
