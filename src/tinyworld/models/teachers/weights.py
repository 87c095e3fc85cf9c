"""Loading a teacher's weights so that every tensor comes from the file, and the digest that says which teacher it was.

diffusers' own loading only warns about tensors that are missing and leaves them random; here they are compared name by
name and shape by shape, and any difference is an error.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.core.files import sha256
from tinyworld.models.teachers.facts import TeacherFacts
from tinyworld.models.teachers.place import INDEX_NAME, KEY, WEIGHTS_NAME

SHOWN = 3
"""How many tensors of each kind a message names."""


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: the shards that the index names, or the single file.

    Raises MissingFileError when one is absent, WeightsError for an unreadable index.
    """
    index = folder / INDEX_NAME
    names = [WEIGHTS_NAME]
    if index.is_file():
        try:
            names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{index} is no readable index of weight files ({error!r}). Copy it again.") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise MissingFileError(
            f"{folder} has no {', '.join(absent)}; it holds {there}. A teacher is loaded from safetensors under their "
            f"standard name: save it with save_pretrained, or download it again (key: {KEY})."
        )
    return [folder / name for name in names]


def load_vae(facts: TeacherFacts, config: dict[str, Any], files: list[Path]) -> Any:
    """The diffusers model with the files' tensors, on the CPU, in the precision of the files.

    Raises WeightsError for a config that makes no model, unreadable files, and tensors that do not fit.
    """
    import diffusers
    from accelerate import init_empty_weights

    cls = getattr(diffusers, facts.class_name, None)
    if cls is None:
        raise WeightsError(
            f"The installed diffusers {diffusers.__version__} has no {facts.class_name}. Upgrade it: pip install -U diffusers."
        )
    try:
        with init_empty_weights(
            include_buffers=False
        ):  # nothing to fill in: weights exist only once the file gave them
            vae = cls.from_config(config)
    except Exception as error:  # whatever the class's constructor meets in a damaged config
        raise WeightsError(
            f"{facts.path} has a config.json that makes no {facts.class_name} ({error!r}). Copy it again (key: {KEY})."
        ) from error
    tensors = _read(files)
    problems = _misfits(tensors, {name: tuple(value.shape) for name, value in vae.state_dict().items()})
    if problems:
        raise WeightsError(
            f"The weights in {facts.path} are not those of the {facts.class_name} that its config.json describes: "
            f"{'; '.join(problems)}. Download the teacher again (key: {KEY}); nothing is filled in."
        )
    vae.load_state_dict(tensors, strict=True, assign=True)
    return vae


def _read(files: list[Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is not a complete safetensors file ({error}). Copy it again.") from error
    return tensors


def _misfits(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> list[str]:
    kinds = {
        "missing": [name for name in shapes if name not in tensors],
        "unexpected": [name for name in tensors if name not in shapes],
        "of another shape": [name for name in shapes if name in tensors and tuple(tensors[name].shape) != shapes[name]],
        "not floating point": [name for name in tensors if name in shapes and not tensors[name].is_floating_point()],
    }
    return [
        f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {kind} "
        f"({', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    ]


def digest(facts: TeacherFacts, config: dict[str, Any], files: list[Path], dtype: torch.dtype, tiling: bool) -> str:
    """Hex SHA-256 over all that decides the latents: class, config, content of the weight files, precision, convention and
    tiling. Not over slicing, which changes no more than another batch size does; not over where the teacher lies, nor
    the diffusers version that saved it.
    """
    stated = {
        "class": facts.class_name,
        "config": {key: value for key, value in config.items() if not key.startswith("_")},
        "weights": [sha256(file) for file in files],
        "dtype": str(dtype),
        "convention": facts.convention,
        "tiling": tiling,
    }
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
