"""DeepSpeed, set up from a recipe through Accelerate's plugin. The only module that knows its configuration.

DeepSpeed is imported when it is asked for: it is an extra, and its import alone takes seconds.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import is_initialized
from accelerate.utils import DeepSpeedPlugin, DistributedType
from torch import nn

from tinyworld.config.schema import Recipe
from tinyworld.core.errors import ConfigError, MissingExtraError
from tinyworld.engine.parallel import group
from tinyworld.engine.parallel.flat import BUCKET

STAGES = {"zero2": 2, "zero3": 3}
"""DeepSpeed's stage of ZeRO by parallel.strategy."""


class Plugin(DeepSpeedPlugin):
    """Accelerate's plugin without its one step that demands transformers, for the loading of transformers' own models."""

    def set_deepspeed_weakref(self) -> None:
        pass


def require(recipe: Recipe) -> None:
    """Raise MissingExtraError when DeepSpeed is not installed, ConfigError when it would not train on run.device."""
    strategy = recipe.parallel.strategy
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingExtraError(
            f"parallel.strategy is {strategy}, but DeepSpeed is not installed: pip install 'tinyworld[deepspeed]', or use "
            "--strategy fsdp2, which needs PyTorch alone."
        )
    if recipe.run.device == "cpu" and torch.cuda.is_available():
        raise ConfigError(
            f"parallel.strategy is {strategy}, which takes the GPUs that it sees, but run.device is cpu. Hide them "
            "(CUDA_VISIBLE_DEVICES=), or use --strategy fsdp2 or ddp."
        )


def accelerator_options(recipe: Recipe) -> dict[str, Any]:
    """What the first Accelerator of a process must be given for parallel.strategy: DeepSpeed's plugin for zero2 and
    zero3, else nothing.

    Accelerate ignores the plugin without a word where it is given cpu=True, or where an Accelerator was made before.
    Raises as `require`.
    """
    if recipe.parallel.strategy not in STAGES:
        return {}
    require(recipe)
    _import_quietly()
    return {"deepspeed_plugin": Plugin(hf_ds_config=configuration(recipe))}


def configuration(recipe: Recipe) -> dict[str, Any]:
    """ZeRO in fp32 with an optimizer of ours. Batch size and accumulation are not DeepSpeed's business: 1 each."""
    stage = STAGES[recipe.parallel.strategy]
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": False,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    }
    in_main_memory = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if recipe.parallel.cpu_offload:
        zero["offload_optimizer"] = in_main_memory
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = 0  # small parameters too are shared out, so that all lie alike
        if recipe.parallel.cpu_offload:
            zero["offload_param"] = in_main_memory
    return {
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW also in main memory: one law, and nothing to compile
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.training.max_grad_norm,
        "steps_per_print": None,
    }


def _import_quietly() -> None:
    """Import DeepSpeed without its chatter, and without the extension for shared memory that it compiles on a CPU (a minute
    at the first use, and a killed build leaves a lock at which later runs wait forever). gloo does without it."""
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    deepspeed = importlib.import_module("deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)  # its import sets INFO
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\..* is deprecated", category=FutureWarning)
    if on_cpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def prepared(
    recipe: Recipe, module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Accelerator, Any]:
    """The accelerator and DeepSpeed's engine around `module`. Raises ConfigError when something else is in force."""
    strategy, offload = recipe.parallel.strategy, recipe.parallel.cpu_offload
    accelerator = Accelerator() if is_initialized() else Accelerator(**accelerator_options(recipe))
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise ConfigError(
            f"parallel.strategy is {strategy}, but Accelerate was set up without it ({accelerator.distributed_type.value}): its "
            "first Accelerator in this process lacked parallel.accelerator_options(recipe)."
        )
    if accelerator.device.type != device.type:
        raise ConfigError(
            f"parallel.strategy is {strategy}, which trains on {accelerator.device.type} here, but the model is on {device.type}."
        )
    with _local_rank():
        engine, _ = accelerator.prepare(module, optimizer)
    stage, offloads = int(engine.zero_optimization_stage()), bool(engine.zero_cpu_offload())
    if (stage, offloads) != (STAGES[strategy], offload):  # as the first Accelerator of this process had it
        raise ConfigError(
            f"parallel.strategy is {strategy} with cpu_offload {offload}, but DeepSpeed runs stage {stage} with cpu_offload "
            f"{offloads}."
        )
    if stage == 3:
        os.environ.setdefault("LOCAL_RANK", "0")  # demanded in every pass; `forget` takes it away again
    return accelerator, engine


@contextlib.contextmanager
def _local_rank() -> Iterator[None]:
    """DeepSpeed demands it of a single process too; left in the environment, it would tell Accelerate of several."""
    given = "LOCAL_RANK" in os.environ
    os.environ.setdefault("LOCAL_RANK", "0")
    try:
        yield
    finally:
        if not given:
            del os.environ["LOCAL_RANK"]


def utilities() -> Any:
    """deepspeed.utils: its public access to whole tensors of a sharded optimizer."""
    return importlib.import_module("deepspeed.utils")


def forget() -> None:
    """Let a later Accelerator of this process be made without DeepSpeed (the plugin leaves word in the environment), and
    let go of a group of our own, to which DeepSpeed holds on."""
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    if group.is_own():
        os.environ.pop("LOCAL_RANK", None)
        importlib.import_module("deepspeed.comm").destroy_process_group()
