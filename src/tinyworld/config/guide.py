"""Names of keys as the guides write them, and what they are here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyworld.core.errors import ConfigError

DATA = ("data_root", "dataset_base_path")
NAMES = {
    "cogvideox_model_path": "ref_vae_path",
    "num_steps": "max_train_steps",
    "batch_size_per_gpu": "train_batch_size",
    "gradient_accumulation": "gradient_accumulation_steps",
    "save_every": "checkpointing_steps",
}
"""Guide → key: the VAE need not be CogVideoX's any more, and a process need not have a GPU."""

ELSEWHERE = {
    "batch_size": ("train_batch_size",),
    "lr": ("learning_rate",),
    "wd": ("weight_decay",),
    "warmup_steps": ("lr_warmup_steps",),
    "steps": ("max_train_steps",),
    "max_steps": ("max_train_steps",),
    "epochs": ("max_train_steps",),
    "num_epochs": ("max_train_steps",),
    "num_train_epochs": ("max_train_steps",),
    "accumulate": ("gradient_accumulation_steps",),
    "accumulation_steps": ("gradient_accumulation_steps",),
    "precision": ("mixed_precision",),
    "eval_steps": ("validation_steps",),
    "save_steps": ("checkpointing_steps",),
    "resume": ("resume_from_checkpoint",),
    "resume_from": ("resume_from_checkpoint",),
    "pretrained": ("pretrained_model_path",),
    "resolution": ("height", "width"),
    "image_size": ("height", "width"),
    "size": ("height", "width"),
    "frames": ("n_frames", "num_frames"),
    "num_frames": ("n_frames",),
    "n_frames": ("num_frames",),
    "data": DATA,
    "dataset": DATA,
    "dataset_path": DATA,
    "data_dir": DATA,
    "data_path": DATA,
    "output": ("output_dir",),
    "out": ("output_dir",),
    "out_dir": ("output_dir",),
    "workers": ("num_workers",),
    "random_seed": ("seed",),
    "log_every": ("log_steps",),
}
"""Names that other trainers have for a key, of which the family has one or all: what an unknown key is told, and nothing else."""

TRAINABLE = "dit"


def elsewhere(name: str) -> tuple[str, ...]:
    """Keys that a name of another trainer may stand for; empty for a name that is in no table."""
    return ELSEWHERE.get(name.replace("-", "_").lower(), ())


def translated(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of the FantasyWorld guide that stand for several keys, or for none, as keys of a recipe.

    output_path is the run folder itself: output_dir and run_name. trainable_models has one value, dit: what is trained
    follows from the task. find_unused_parameters is not needed: every trained part takes part in every step.
    Raises ConfigError.
    """
    found = dict(flags)
    if "output_path" in found:
        path = Path(str(found.pop("output_path"))).expanduser()
        clashing = [name for name in ("output_dir", "run_name", "run.output_dir", "run.run_name") if name in found]
        if clashing:
            raise ConfigError(f"--output_path is the run folder, and so is --{clashing[0]}. Give one of them.")
        found |= {"run.output_dir": str(path.parent), "run.run_name": path.name}
    trained = found.pop("trainable_models", TRAINABLE)
    if trained != TRAINABLE:
        raise ConfigError(
            f"--trainable_models {trained}: the only value is {TRAINABLE}. What is trained follows from the task; text encoder, "
            "image encoder and VAE never are."
        )
    found.pop("find_unused_parameters", None)
    return found
