"""Hugging Face Accelerate, set up from a recipe: device, precision, accumulation, trackers."""

import importlib.util
import os
import platform
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from tinyworld.config.dump import flatten
from tinyworld.config.schema import Recipe
from tinyworld.core import dist
from tinyworld.core.errors import ConfigError, MissingExtraError


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


def build(recipe: Recipe) -> Accelerator:
    """The accelerator for this recipe. Raises as `require`."""
    require(recipe)
    run, training = recipe.run, recipe.training
    if run.cpu_threads > 0:
        torch.set_num_threads(run.cpu_threads)
    return Accelerator(
        cpu=training_device(recipe).type == "cpu",
        mixed_precision=training.mixed_precision,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        step_scheduler_with_optimizer=False,
    )


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


def close(accelerator: Accelerator) -> None:
    """Forget Accelerate's process-wide state, so that a second run in this process starts clean."""
    accelerator.free_memory()
    if accelerator.num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)


def device_name(device: torch.device) -> str:
    """What a person calls the device: the GPU's name, or the processor and the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
