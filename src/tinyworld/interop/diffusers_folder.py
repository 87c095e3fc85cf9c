"""Folders that diffusers' `save_pretrained` wrote, read as strictly as every other weight file here.

diffusers itself leaves a tensor that is missing without values and goes on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor

from tinyworld.core.errors import ConfigError, MissingFileError, WeightsError
from tinyworld.models.taehv import weights

INDIFFERENT = ("max_memory", "offload_folder", "offload_state_dict", "low_cpu_mem_usage", "disable_mmap")
"""What pipelines give when they load their parts, and what a small model has no use for."""


@dataclass(frozen=True)
class Options:
    """subfolder: of the place that was named. device: where the weights go, None for the CPU. dtype: of `torch_dtype`'s newer
    name, which diffusers gives as well."""

    subfolder: str
    device: torch.device | None
    dtype: torch.dtype | None


def options_of(given: Mapping[str, Any]) -> Options:
    """What the arguments of diffusers' `from_pretrained` ask for. Raises ConfigError for those that cannot be followed."""
    rest = {key: value for key, value in given.items() if key not in INDIFFERENT}
    subfolder, device = rest.pop("subfolder", None), _device(rest.pop("device_map", None))
    dtype = rest.pop("dtype", None)
    if rest.pop("use_safetensors", None) is False:
        raise ConfigError("use_safetensors=False: the weights of a TAEHV are read from safetensors alone.")
    for key in ("quantization_config", "use_flashpack"):
        if rest.pop(key, None):
            raise ConfigError(f"{key} is not for a TAEHV: leave it out for this part of the pipeline.")
    if rest:
        raise ConfigError(
            f"TaehvVae.from_pretrained takes no {', '.join(rest)}; it takes variant, like, latents, revision, token, "
            "torch_dtype, dtype, subfolder and device_map."
        )
    return Options(str(subfolder or ""), device, dtype)


def config_of(folder: Path) -> dict[str, Any] | None:
    """The config.json of a folder, None when there is none that can be read: who reads its weights tells what is wrong."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def build(cls: Any, folder: Path, config: dict[str, Any]) -> Any:
    """The model that a config describes, without weights. Raises WeightsError for one that describes none."""
    try:
        with init_empty_weights():
            return cls.from_config(config)
    except (TypeError, KeyError) as error:
        raise WeightsError(f"{folder / 'config.json'} describes no {cls.__name__} ({error}). Copy it again.") from error


def read_tensors(folder: Path, part: str | None = None) -> dict[str, Tensor]:
    """The tensors of the folder's safetensors file, or of the files that its index names.

    part: what diffusers calls the variant of the files, such as fp16. Raises MissingFileError, WeightsError.
    """
    name = weights.DIFFUSERS_NAME if part is None else weights.DIFFUSERS_NAME.replace(".", f".{part}.", 1)
    index = folder / f"{weights.DIFFUSERS_NAME}.index{f'.{part}' if part else ''}.json"
    files = [folder / name]
    if not files[0].is_file() and index.is_file():
        files = [folder / shard for shard in _shards(index)]
    if missing := [file for file in files if not file.is_file()]:
        raise MissingFileError(
            f"{folder} has a config.json and no {', '.join(file.name for file in missing)}. Copy it again"
            f"{f', or leave out variant={part!r}' if part else ''}."
        )
    return {key: tensor for file in files for key, tensor in weights.read_tensors(file)[0].items()}


def _shards(index: Path) -> list[str]:
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is no index of weight files ({error!r}). Copy it again.") from error
    return sorted({Path(str(name)).name for name in named})


def _device(device_map: Any) -> torch.device | None:
    """One device for the whole model."""
    device = device_map[""] if isinstance(device_map, dict) and list(device_map) == [""] else device_map
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device_map={device_map!r}: a TAEHV lies on one device. Give its name, such as device_map='cuda'."
        ) from error
