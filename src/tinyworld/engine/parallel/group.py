"""The process group: that it is there, joins all processes, and reaches the device."""

import os

import torch
import torch.distributed

from tinyworld.config.schema import Recipe
from tinyworld.core.errors import ConfigError


def check(recipe: Recipe, device: torch.device) -> None:
    """Raise ConfigError when processes that were started together would train apart, or cannot exchange tensors.

    A run of several processes has its group already (Accelerate makes it, under torchrun). A run of one needs one to shard
    in, and gets one of its own here.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if not torch.distributed.is_initialized():
        if started > 1:
            raise ConfigError(
                f"{started} processes were started, but they are not joined, and each would train alone. Start them with "
                "`tinyworld supervise RECIPE --processes N`, or with torchrun."
            )
        if recipe.parallel.strategy == "ddp":
            return
        backend = "gloo" if device.type == "cpu" else "nccl"
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    joined, backend = torch.distributed.get_world_size(), torch.distributed.get_backend()
    if joined < started:
        raise ConfigError(
            f"{started} processes were started, but only {joined} are joined. Start them with "
            "`tinyworld supervise RECIPE --processes N`, or with torchrun."
        )
    if device.type == "cuda" and "nccl" not in backend:
        raise ConfigError(
            f"the processes are joined by {backend}, which does not reach tensors on a GPU. Use --device auto."
        )


def is_own() -> bool:
    """Whether the group is one that `check` made for a run of one process."""
    alone = torch.distributed.is_initialized() and torch.distributed.get_world_size() == 1
    return alone and "WORLD_SIZE" not in os.environ
