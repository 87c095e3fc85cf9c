"""The one place where training is put under bf16 autocast. Weights stay fp32; so do the outputs that losses see."""

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from tinyworld.config.schema import Recipe


class Forward(nn.Module):
    """Calls `module` as training.mixed_precision says: "no" as it is; "bf16" under autocast, with fp32 outputs."""

    def __init__(self, module: nn.Module, recipe: Recipe, device: torch.device) -> None:
        super().__init__()
        self.module = module
        self.autocast = recipe.training.mixed_precision == "bf16"
        self.device_type = device.type

    def forward(self, *args: object, **kwargs: object) -> object:
        """Outputs may be nested tuples, lists and dictionaries; what is not a tensor in half precision is left alone."""
        if not self.autocast:
            return self.module(*args, **kwargs)
        with torch.autocast(self.device_type, torch.bfloat16):
            outputs = self.module(*args, **kwargs)
        return tree_map_only(Tensor, _full, outputs)


def _full(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
