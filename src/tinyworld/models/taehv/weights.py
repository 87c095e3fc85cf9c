"""Reading and writing TAEHV weights.

Written: safetensors with the public keys (`encoder.N…`, `decoder.N…`), so that the public taehv code and ComfyUI load
them, and the architecture twice: in the file's metadata and in a JSON beside it. Read: those, and the published `.pth`
and `.safetensors`, which state no architecture. For them it is given by the caller or follows from the shapes of the
tensors; the file's name is never looked at.
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.core.files import find, write_atomic, write_json
from tinyworld.core.variants import VARIANTS, TaehvSpec
from tinyworld.core.version import __version__
from tinyworld.models.taehv.layout import expected_shapes, grow_keys
from tinyworld.models.taehv.quantise import QUANTISATION, SCALE, dequantise

ARCHITECTURE = "taehv"
WEIGHTS_NAME = "model.safetensors"
AVERAGE_NAME = "ema.safetensors"
CONFIG_NAME = "config.json"
DIFFUSERS_NAME = "diffusion_pytorch_model.safetensors"
ABOUT = ("variant", "latents", "teacher", "recipe", "step", "license")
"""What a file may say of itself beyond its architecture; `latents`: raw, scaled or normalised as in
`teachers.latents`, or own, for a model that no reference VAE taught; `teacher`: the class of the one that did."""
SHOWN = 5
"""How many keys of each kind a message names."""


def description(
    spec: TaehvSpec, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the JSON beside a weight file says; "quantisation" only of tensors that `quantise` made, then what is known `about`
    the model (keys: ABOUT). Raises ValueError for another key."""
    known = {key: value for key, value in (about or {}).items() if value is not None}
    if unknown := set(known) - set(ABOUT):
        raise ValueError(
            f"a weight file says nothing called {', '.join(sorted(unknown))}; it may say {', '.join(ABOUT)}"
        )
    quantised = {"quantisation": QUANTISATION} if any(key.endswith(SCALE) for key in tensors) else {}
    stated = {"architecture": ARCHITECTURE, "spec": spec.to_dict(), **quantised, "tinyworld_version": __version__}
    return {**stated, **{key: known[key] for key in ABOUT if key in known}}


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], spec: TaehvSpec, about: Mapping[str, Any] | None = None
) -> None:
    """One safetensors file, complete or absent, whose metadata names the architecture and what is known `about` the model."""
    stated = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in description(spec, tensors, about).items()
    }
    content = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write_atomic(path, save(content, metadata={"format": "pt", **stated}))


def write_folder(
    folder: Path, tensors: Mapping[str, Tensor], spec: TaehvSpec, about: Mapping[str, Any] | None = None
) -> None:
    """`model.safetensors` and `config.json`, which both say what is known `about` the model; other files of the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS_NAME, tensors, spec, about)
    write_json(folder / CONFIG_NAME, description(spec, tensors, about))


def read_about(path: str | Path) -> dict[str, str]:
    """What a weight file (or the one in a folder) says of itself, by the keys of ABOUT; {} for a published file.

    Metadata of files that state no architecture is somebody else's: "variant" means another thing there. Raises
    MissingFileError and WeightsError as `load`, but reads no tensor.
    """
    file = weight_file(path)
    metadata = _metadata(file) if file.suffix == ".safetensors" else {}
    if metadata.get("architecture") != ARCHITECTURE:
        return {}
    about = {key: metadata[key] for key in ABOUT if key in metadata}
    if about.get("variant") not in (None, *VARIANTS):
        del about["variant"]  # of another version of tinyworld
    return about


def load(
    path: str | Path, expected: TaehvSpec | None = None, any_law: bool = False
) -> tuple[TaehvSpec, dict[str, Tensor]]:
    """The architecture and the tensors of a weight file, of a folder written by `write_folder`, or of a checkpoint.

    `expected` is what a file that states no architecture is taken for, and what one that does must state. With `any_law`
    its temporal law may differ: training from an autoencoder's weights towards a teacher's latents changes it. Tensors are of
    the file's number type; quantised ones are multiplied out to fp32.

    Raises MissingFileError, ConfigError (no such variant) or WeightsError: unreadable or unsafe files, tensors that do
    not fit, an architecture that is neither stated nor unique.
    """
    file = weight_file(path)
    tensors, metadata = read_tensors(file)
    tensors = dequantise(tensors)
    spec = _stated_spec(file, metadata)
    if spec is not None and expected is not None and any_law:
        spec = replace(spec, flavour=expected.flavour)
    if spec is None:
        spec = expected or _spec_from_shapes(file, tensors)
    elif expected not in (None, spec):
        raise WeightsError(
            f"{file} states another architecture than the one asked for: {_difference(spec, expected)}. Ask for what the "
            "file states (keys: model.variant, model.latent_channels, model.time_compression, model.patch_size, "
            "model.encoder_width, model.decoder_widths), or for nothing in Python."
        )
    tensors = fit_rate(tensors, spec)
    problems = misfits(tensors, spec)
    if problems:
        fitting = [name for name, other in VARIANTS.items() if not misfits(fit_rate(tensors, other), other)]
        hint = f" It fits {', '.join(fitting)}." if fitting else ""
        raise WeightsError(f"{file.name} does not fit this architecture: {'; '.join(problems)}.{hint}")
    return spec, tensors


def weight_file(path: str | Path) -> Path:
    """The file that `load` reads. Raises MissingFileError, and WeightsError for a run folder."""
    place = find(path, what="TAEHV weights", key="model.pretrained_model_path")
    return _file_in(place) if place.is_dir() else place


def _file_in(folder: Path) -> Path:
    """The weight file of a folder: of a checkpoint that holds a moving average, the average."""
    if not (folder / CONFIG_NAME).is_file() and (folder / AVERAGE_NAME).is_file():
        return folder / AVERAGE_NAME
    if (folder / WEIGHTS_NAME).is_file():
        return folder / WEIGHTS_NAME
    if (folder / DIFFUSERS_NAME).is_file():
        raise WeightsError(
            f"{folder} is a folder for diffusers. If tinyworld wrote it: vae = tinyworld.interop.diffusers.TaehvVae."
            f'from_pretrained("{folder}"); vae.taehv is the TAEHV.'
        )
    for name, what in (("best_model", "best"), ("latest.safetensors", "newest")):
        if (folder / name).exists():
            raise WeightsError(f"{folder} is a run folder; its {what} weights are {folder / name}. Give that path.")
    raise MissingFileError(
        f"{folder} holds no {WEIGHTS_NAME}. Give a weight file, a checkpoint-N folder of a run, or a folder with "
        f"{WEIGHTS_NAME} and {CONFIG_NAME}, such as the best_model of a run."
    )


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by key, and the metadata of a safetensors file (empty for `.pth`). Runs no code of the file."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if file.suffix in (".pth", ".pt"):
        return _read_pickle(file), {}
    raise WeightsError(f"{file.name} is no weight file that can be read: use .safetensors, or .pth / .pt.")


def states_architecture(path: str | Path) -> bool:
    """Whether a weight file, or a JSON beside it, says what architecture it is. Published files do not."""
    file = weight_file(path)
    return _stated_spec(file, _metadata(file) if file.suffix == ".safetensors" else {}) is not None


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(str(file), framework="pt") as content:
            return content.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file.name} is not a complete safetensors file ({error}). Copy it again.") from error


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(str(file), framework="pt") as content:
            return {key: content.get_tensor(key) for key in content.keys()}, content.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file.name} is not a complete safetensors file ({error}). Copy it again.") from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{file.name} was refused: it holds more than tensors, or is no PyTorch file, and loading it could run "
            "code. Ask its author for a .safetensors file, or for a .pth of a plain state dict."
        ) from error
    except Exception as error:  # on damaged bytes the restricted unpickler fails in whatever way they lead it
        raise WeightsError(f"{file.name} is damaged or incomplete ({error!r}). Copy it again.") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{file.name} is no state dict: it must hold tensors by key (encoder.0.weight, …) only.")
    return {str(key): tensor for key, tensor in content.items()}


def _stated_spec(file: Path, metadata: dict[str, str]) -> TaehvSpec | None:
    """The architecture that the file's metadata or a JSON beside it names, or None when neither says anything."""
    if "architecture" in metadata:
        stated = dict(metadata)
        return _parse_description(stated.get("architecture"), _parse_json(stated.get("spec", ""), file.name), file.name)
    for beside in (file.with_suffix(".json"), file.with_name(CONFIG_NAME)):
        if beside.is_file():
            content = _parse_json(beside.read_bytes(), beside.name)
            if isinstance(content, dict) and "architecture" in content:
                return _parse_description(content["architecture"], content.get("spec"), beside.name)
    return None


def _parse_json(text: str | bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # text that is not UTF-8 is a ValueError too
        raise WeightsError(
            f"The architecture description in {name} is not valid JSON: {error}. Copy it again from where it was saved."
        ) from error


def _parse_description(architecture: object, spec: object, name: str) -> TaehvSpec:
    if architecture != ARCHITECTURE:
        raise WeightsError(f"{name} describes a model of architecture {architecture!r}, not {ARCHITECTURE!r}.")
    if not isinstance(spec, dict):
        raise WeightsError(f"{name} names the architecture {ARCHITECTURE!r} but has no 'spec' that describes it.")
    return TaehvSpec.from_dict(spec)


def _spec_from_shapes(file: Path, tensors: dict[str, Tensor]) -> TaehvSpec:
    """The one architecture among the public variants that the tensors fit."""
    fitting = {name: spec for name, spec in VARIANTS.items() if not misfits(fit_rate(tensors, spec), spec)}
    if not fitting:
        raise WeightsError(
            f"{file.name} states no architecture, and its tensors fit none of the public variants "
            f"({', '.join(VARIANTS)}). Put the {CONFIG_NAME} that was saved with it beside it; if it should be a "
            "public variant, give variant=… to see what does not fit."
        )
    specs = set(fitting.values())
    if len(specs) > 1:
        listed = ", ".join(f"{name} ({spec.flavour})" for name, spec in fitting.items())
        raise WeightsError(
            f"{file.name} states no architecture, and its tensors fit several variants that differ in how frames are "
            f"counted: {listed}. Say which one it is: variant=… (key: model.variant)."
        )
    return specs.pop()


def fit_rate(tensors: dict[str, Tensor], spec: TaehvSpec) -> dict[str, Tensor]:
    """Cut TGrow weights that make more frames than the architecture wants down to their last frames.

    Published files may have been made for a higher rate; the last output channels are the frame closest to the full
    decoder's last one (madebyollin/taehv keeps the same).
    """
    shapes = expected_shapes(spec)
    fitted = dict(tensors)
    for key in grow_keys(spec):
        rows = shapes.get(key, (0,))[0]
        if key in fitted and fitted[key].shape[1:] == shapes[key][1:] and fitted[key].shape[0] > rows:
            fitted[key] = fitted[key][-rows:]
    return fitted


def misfits(tensors: Mapping[str, Tensor], spec: TaehvSpec) -> list[str]:
    """Every way in which tensors differ from what the architecture needs; empty when they fit."""
    shapes = expected_shapes(spec)
    missing = [key for key in shapes if key not in tensors]
    unexpected = [key for key in tensors if key not in shapes]
    shared = [key for key in shapes if key in tensors]
    reshaped = [
        f"{key} is {_size(tensors[key].shape)} instead of {_size(shapes[key])}"
        for key in shared
        if tuple(tensors[key].shape) != shapes[key]
    ]
    whole = [f"{key} ({tensors[key].dtype})" for key in shared if not tensors[key].is_floating_point()]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped, "not floating point": whole}
    return [_count(keys, kind) for kind, keys in kinds.items() if keys]


def _count(keys: list[str], kind: str) -> str:
    more = ", …" if len(keys) > SHOWN else ""
    return f"{len(keys)} {'tensor is' if len(keys) == 1 else 'tensors are'} {kind} ({', '.join(keys[:SHOWN])}{more})"


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _difference(spec: TaehvSpec, expected: TaehvSpec) -> str:
    stated, wanted = spec.to_dict(), expected.to_dict()
    return ", ".join(f"{key} is {stated[key]}, not {wanted[key]}" for key in stated if stated[key] != wanted[key])
