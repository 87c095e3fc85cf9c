"""Hugging Face Accelerate, set up from a recipe: device, processes, trackers."""

import contextlib
import importlib.util
import logging
import os
import platform
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from accelerate.utils import InitProcessGroupKwargs

from tinyworld.config.dump import flatten
from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import ConfigError, MissingExtraError
from tinyworld.engine import parallel


def require(recipe: Recipe) -> None:
    """Raise ConfigError when a GPU is demanded and none is there, MissingExtraError when the tracker is not installed."""
    if recipe.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is cuda, but PyTorch sees no CUDA device here. Use --device cpu, or auto.")
    if recipe.run.tracker_name == "wandb" and importlib.util.find_spec("wandb") is None:
        raise MissingExtraError(
            "tracker_name is wandb, but wandb is not installed: pip install 'tinyworld[wandb]', or use "
            "--tracker_name tensorboard."
        )


def training_device(recipe: Recipe) -> torch.device:
    """The device that `build` will train on, for what has to run before."""
    if recipe.run.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def processes(recipe: Recipe) -> Iterator[None]:
    """The processes that were started together, joined for one run; with one process nothing but its threads are set.

    Only the main one says what all of them know; the others speak of errors. What joins them lasts as long as they do: see
    `cli.main`. Raises as `require`.
    """
    require(recipe)
    if recipe.run.cpu_threads > 0:
        torch.set_num_threads(recipe.run.cpu_threads)
    limits, device = recipe.parallel, training_device(recipe)
    options = parallel.accelerator_options(recipe) or {"cpu": device.type == "cpu"}
    if dist.world_size() > 1:
        # Beyond both time-outs: a rank that is late is to be named by the others before its absence ends them.
        timeout = timedelta(seconds=limits.startup_timeout + 2 * limits.step_timeout)
        backend = "gloo" if device.type == "cpu" else "nccl"
        options["kwargs_handlers"] = [InitProcessGroupKwargs(backend=backend, timeout=timeout)]
    accelerator = Accelerator(**options)
    level = LOGGER.level
    if not dist.is_main():
        LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        accelerator.free_memory()
        if accelerator.num_processes == 1:  # so that a second run in this process starts clean
            AcceleratorState._reset_state(reset_partial_state=True)


def build_tracker(recipe: Recipe, folder: Path, step: int) -> GeneralTracker | None:
    """TensorBoard in `folder`/tensorboard, W&B, or none. Every setting is stored as a scalar or a string, which all
    trackers take. After a resume, TensorBoard drops what the earlier process wrote beyond `step`.
    """
    name = recipe.run.tracker_name
    if name == "none" or not dist.is_main():
        return None
    tracker: GeneralTracker
    if name == "wandb":
        tracker = WandBTracker("tinyworld", name=folder.name, id=folder.name, resume="allow", dir=str(folder))
    else:
        tracker = TensorBoardTracker("tensorboard", logging_dir=str(folder), purge_step=step + 1 if step else None)
    tracker.start()
    tracker.store_init_configuration(flatten(recipe))
    return tracker


def device_name(device: torch.device) -> str:
    """What a person calls the device: the GPU's name, or the processor and the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
