"""From parallel.strategy to the strategy in force."""

import torch
from torch import nn

from tinyworld.config.schema import Recipe
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import ConfigError
from tinyworld.engine.parallel import group
from tinyworld.engine.parallel.ddp import DataParallel
from tinyworld.engine.parallel.fsdp2 import FullySharded
from tinyworld.engine.parallel.strategy import Strategy
from tinyworld.engine.parallel.zero2 import ZeroTwo
from tinyworld.engine.parallel.zero3 import ZeroThree

KINDS: dict[str, type[DataParallel | FullySharded | ZeroTwo | ZeroThree]] = {
    "ddp": DataParallel,
    "zero2": ZeroTwo,
    "zero3": ZeroThree,
    "fsdp2": FullySharded,
}


def build(recipe: Recipe, module: nn.Module, device: torch.device) -> Strategy:
    """The strategy that the recipe asks for, around `module`: fp32, on `device`, with requires_grad set. All processes then
    have rank 0's weights. What `module` is afterwards is the strategy's business: call `model`, or `whole`.

    Raises ConfigError when the strategy would not be in force as it is asked for, MissingExtraError without DeepSpeed.
    """
    strategy, offload = recipe.parallel.strategy, recipe.parallel.cpu_offload
    wrong = [name for name, p in module.named_parameters() if p.dtype != torch.float32 or p.device.type != device.type]
    if wrong:
        raise ValueError(f"weights must be fp32 on {device}, and {', '.join(wrong[:4])} are not")
    if offload and strategy == "ddp":
        raise ConfigError(
            "parallel.cpu_offload has no meaning with parallel.strategy ddp, which keeps everything on the device. Use "
            "--strategy zero2, zero3 or fsdp2, or --cpu_offload false."
        )
    if offload and device.type == "cpu":
        LOGGER.info("cpu_offload changes nothing here: a run on the CPU has everything in main memory")
    group.check(recipe, device)
    return KINDS[strategy](recipe, module, device)
