"""Reading and writing the weights of a video transformer with camera control.

Read: (a) the original files of Wan2.1-Fun Control-Camera, a folder or one file, in shards or not; (b) a diffusers folder
(`transformer/`) with `control_adapter.safetensors` beside it; (c) what is written here: a folder like (b) with a
`world.json` that states the sizes, or one file with the names of `WanBackbone`. Every tensor comes from the files and every
tensor of the files is used, or nothing is loaded.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.core.files import STAGING_PREFIX, find, fsync_file, write_json
from tinyworld.core.version import __version__
from tinyworld.core.world_sizes import BackboneSpec
from tinyworld.models.fantasy.backbone import WanBackbone, kept_dtype
from tinyworld.models.fantasy.backbone_names import ADAPTER, TRANSFORMER, stored_names
from tinyworld.models.fantasy.backbone_sizes import KEY, WANTED, layout_of, read_spec
from tinyworld.models.fantasy.tensor_files import compared, told

ARCHITECTURE = "wan_backbone"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
CONFIG_NAME = "config.json"
ADAPTER_NAME = "control_adapter.safetensors"
WORLD_NAME = "world.json"
RUN_NAMES = ("ema.safetensors", "model.safetensors")
"""Weights in a checkpoint of a run, the average first."""
NUMBERS = (torch.float32, torch.bfloat16, torch.float16)


def open_backbone(
    path: str | Path, dtype: torch.dtype = torch.bfloat16, expected: BackboneSpec | None = None
) -> WanBackbone:
    """The transformer at `path`, frozen, on the CPU, in `dtype` as `WanBackbone.cast` makes it.

    Tensors that need no conversion stay in the mapped file. Raises MissingFileError when it is not there, WeightsError for
    damaged files, another kind of transformer, missing or unused tensors, and sizes other than `expected`.
    """
    spec, tensors = read_weights(path, expected)
    backbone = WanBackbone.hollow(spec)
    ready = {name: tensors.pop(name).to(kept_dtype(name, dtype)) for name in list(tensors)}
    backbone.load_state_dict(ready, strict=True, assign=True)
    return backbone.requires_grad_(False).eval()


def read_weights(path: str | Path, expected: BackboneSpec | None = None) -> tuple[BackboneSpec, dict[str, Tensor]]:
    """Sizes and tensors by their names in `WanBackbone`, in the files' number type. Raises as `open_backbone`."""
    place = find(path, what="video transformer", key=KEY)
    tensors, config, stated = _stored(place)
    spec = stated or read_spec(tensors, config)
    if not (stated or spec.camera):
        raise WeightsError(_no_adapter(place))
    if expected not in (None, spec):
        raise WeightsError(
            f"The transformer at {place} has other sizes than asked for: {_difference(spec, expected)}. Choose the size that "
            f"belongs to it (key: model.size), or other weights (key: {KEY})."
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in WanBackbone.hollow(spec).state_dict().items()}
    names = stored_names(shapes, layout_of(tensors))
    problems = _misfits(tensors, {stored: shapes[name] for stored, name in names.items()})
    if problems:
        raise WeightsError(f"The weights at {place} do not make a video transformer: {problems}. {WANTED}")
    return spec, {name: tensors[stored] for stored, name in names.items()}


def save_backbone(backbone: WanBackbone, folder: str | Path) -> None:
    """Write a folder that `open_backbone` reads and whose `transformer/` diffusers reads; other files in it stay."""
    write_folder(Path(folder), backbone.state_dict(), backbone.spec)


def write_folder(folder: Path, tensors: Mapping[str, Tensor], spec: BackboneSpec) -> None:
    """`save_backbone` of plain tensors by their names in `WanBackbone`."""
    inner = folder / "transformer"
    inner.mkdir(parents=True, exist_ok=True)
    parts = {
        prefix: {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in (TRANSFORMER, ADAPTER)
    }
    plain = {name.removeprefix(TRANSFORMER): tensor for name, tensor in parts[TRANSFORMER].items()}
    _save(inner / WEIGHTS_NAME, plain, {})
    WanBackbone.hollow(spec).transformer.save_config(inner)
    if parts[ADAPTER]:
        _save(folder / ADAPTER_NAME, parts[ADAPTER], {})
    write_json(folder / WORLD_NAME, _description(spec))


def write_weights(file: Path, tensors: Mapping[str, Tensor], spec: BackboneSpec) -> None:
    """One safetensors file, complete or absent, that states its sizes and that `open_backbone` reads."""
    stated = {key: value if isinstance(value, str) else json.dumps(value) for key, value in _description(spec).items()}
    _save(file, tensors, stated)


def _description(spec: BackboneSpec) -> dict[str, Any]:
    return {"architecture": ARCHITECTURE, "backbone": asdict(spec), "tinyworld_version": __version__}


def _save(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    staging = file.with_name(f"{STAGING_PREFIX}{os.getpid()}-{file.name}")
    try:
        save_file(content, staging, metadata={"format": "pt", **metadata})
        fsync_file(staging)
        staging.replace(file)
    finally:
        staging.unlink(missing_ok=True)


def _stored(place: Path) -> tuple[dict[str, Tensor], dict[str, Any], BackboneSpec | None]:
    """Tensors as the files name them, the config beside them, and the sizes that files of ours state."""
    if place.is_file():
        tensors, metadata = _read([place])
        stated = _stated(place, metadata) if metadata.get("architecture") == ARCHITECTURE else None
        return tensors, _json(place.with_name(CONFIG_NAME)), stated
    for name in RUN_NAMES:
        if (place / name).is_file():
            return _stored(place / name)
    folder = place / "transformer" if (place / "transformer").is_dir() else place
    adapter = [place / ADAPTER_NAME] if (place / ADAPTER_NAME).is_file() else []
    tensors, _ = _read([*_shards(folder), *adapter])
    world = _json(place / WORLD_NAME)
    return tensors, _json(folder / CONFIG_NAME), _stated(place / WORLD_NAME, world) if world else None


def _stated(file: Path, values: Mapping[str, Any]) -> BackboneSpec:
    try:
        sizes = values["backbone"]
        return BackboneSpec(**(json.loads(sizes) if isinstance(sizes, str) else sizes))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{file} does not state the sizes of a video transformer ({error!r}). Copy it again."
        ) from error


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_NAME
    names = [WEIGHTS_NAME]
    if index.is_file():
        weights = _json(index).get("weight_map")
        if not isinstance(weights, dict):
            raise WeightsError(f"{index} names no weight files (weight_map). Copy it again.")
        names = sorted({str(name) for name in weights.values()})
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise MissingFileError(f"{folder} has no {', '.join(absent)}; it holds {there}. {WANTED}")
    return [folder / name for name in names]


def _read(files: list[Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, in mapped memory, and the last file's metadata. What diffusers ignores is left out."""
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as content:
                metadata = content.metadata() or {}
                tensors |= {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is not a complete safetensors file ({error}). Copy it again.") from error
    return {name: tensor for name, tensor in tensors.items() if "norm_added_q" not in name}, metadata


def _json(file: Path) -> dict[str, Any]:
    """A JSON object, {} when there is no such file. Raises WeightsError for anything else."""
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not readable JSON ({error}). Copy it again.") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{file} holds no JSON object. Copy it again.")
    return values


def _misfits(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str:
    found = compared(tensors, shapes)
    return told(
        {
            "missing": found.missing,
            "unused": found.extra,
            "of another shape": [
                f"{name}: {tuple(tensors[name].shape)} instead of {shapes[name]}" for name in found.reshaped
            ],
            "not float32, bfloat16 or float16": [
                f"{name}: {tensors[name].dtype}" for name in found.shared if tensors[name].dtype not in NUMBERS
            ],
        }
    )


def _no_adapter(place: Path) -> str:
    return (
        f"{place} holds a Wan transformer without the camera adapter of Wan2.1-Fun Control-Camera. diffusers has no place for "
        f"it, so a diffusers folder needs it in a file beside transformer/: {ADAPTER_NAME} with the six tensors "
        f"{ADAPTER}conv.*, {ADAPTER}residual_blocks.0.conv1.* and .conv2.* of the original file. {WANTED}"
    )


def _difference(spec: BackboneSpec, expected: BackboneSpec | None) -> str:
    stated, wanted = asdict(spec), asdict(expected) if expected else {}
    return ", ".join(f"{key} is {stated[key]}, not {wanted[key]}" for key in wanted if stated[key] != wanted[key])
