"""Weight files of the geometry branch: safetensors with the trained tensors alone, which say what they are.

Keys are the branch's own (`latent_bridge.…`, `geo_blocks.N.…`, `head_depth.…`, …), the names of the public training guide without
its `pipe.dit.`; when reading, that prefix and `module.` are taken off. The metadata name architecture, stage, sizes, and the
backbone beside which the branch was trained.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tinyworld.core.errors import WeightsError
from tinyworld.core.files import find, json_ready, write_atomic
from tinyworld.core.version import __version__
from tinyworld.core.world_sizes import WorldSpec
from tinyworld.models.fantasy.branch import GeometryBranch, Stage
from tinyworld.models.fantasy.tensor_files import compared, counted, told

ARCHITECTURE = "fantasyworld"
WEIGHTS_NAME = "model.safetensors"
"""Of the one in a folder."""
PREFIXES = ("pipe.dit.", "module.")
STAGE_TWO_GROUPS = ("camera_adapters", "irg_cross_attns")
SHOWN_DIGEST = 12

Fate = Literal["loaded", "frozen", "new", "unused"]


@dataclass(frozen=True)
class BranchInfo:
    """What a weight file says of itself. spec and base_digest are None when it says nothing; meta: step and the like."""

    file: Path
    stage: Stage
    spec: WorldSpec | None = None
    base_digest: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LineageRow:
    """Tensors of one part (`group`: latent_bridge, geo_blocks, …) that share a fate.

    loaded: from the parent, trained further. frozen: from the parent, or the backbone; not trained. new: not in the parent.
    unused: in the parent alone.
    """

    group: str
    tensors: int
    parameters: int
    fate: Fate


def save_branch(
    tensors: nn.Module | Mapping[str, Tensor],
    file: Path,
    spec: WorldSpec,
    stage: Stage,
    base_digest: str,
    meta: Mapping[str, Any],
) -> None:
    """One safetensors file, complete or absent. tensors: a branch, or its state dict.

    base_digest: what `read_branch` gives back and `load_into` compares. meta: plain values such as {"step": 1000}.
    Raises WeightsError for tensors that are not exactly those of `spec` and `stage`.
    """
    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    _refuse_misfits(state, expected_shapes(spec, stage), file, "this branch", exact=True)
    stated = {
        "format": "pt",
        "architecture": ARCHITECTURE,
        "stage": stage,
        "spec": json.dumps(spec.to_dict()),
        "base_digest": base_digest,
        "meta": json.dumps(json_ready(dict(meta))),
        "tinyworld_version": __version__,
    }
    content = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    write_atomic(file, save(content, metadata=stated))


def read_branch(file: str | Path) -> tuple[dict[str, Tensor], BranchInfo]:
    """Tensors by key without prefixes, on the CPU and of the file's number type, and what the file says of itself.

    file: a weight file, or a folder with a model.safetensors.
    A file that states its sizes is compared with them; one without metadata is of stage 2 when it has tensors of stage 2's
    parts. Raises MissingFileError, and WeightsError for what is no safetensors file, is of another architecture, or incomplete.
    """
    place = find(file, what="Weights of a geometry branch", key="model.stage1_checkpoint")
    if place.is_dir():
        place = place / WEIGHTS_NAME
        if not place.is_file():
            raise WeightsError(
                f"{place.parent} is a folder without {WEIGHTS_NAME}. Give a weight file of a run, such as its "
                "latest.safetensors, or its best_model folder."
            )
    stored, metadata = _read(place)
    state = {_bare(key): tensor for key, tensor in stored.items()}
    if len(state) != len(stored):
        raise WeightsError(f"{place.name} holds a tensor twice, with a prefix of {', '.join(PREFIXES)} and without.")
    info = _stated(place, metadata, state)
    if info.spec is not None:
        _refuse_misfits(state, expected_shapes(info.spec, info.stage), place, "what the file itself states")
    return state, info


def load_into(
    branch: GeometryBranch, state: Mapping[str, Tensor], info: BranchInfo, base_digest: str | None = None
) -> list[LineageRow]:
    """Set the branch's weights to those of a file read by `read_branch`; the table of what came from where.

    A stage 1 file sets the parts that both stages have, a stage 2 file all; either fits a branch of either stage. base_digest:
    of the backbone at hand; None to not compare.

    Raises WeightsError, with the branch as it was: another backbone, other sizes, missing tensors, numbers that are not finite.
    """
    if base_digest is not None and info.base_digest not in (None, base_digest):
        raise WeightsError(
            f"{info.file.name} was trained beside the video transformer {_short(info.base_digest)}, and the one given is "
            f"{_short(base_digest)} (digests of their weights). A geometry branch reads the features of the transformer that it "
            "was trained with: give that one (key: model.backbone_path, or --base)."
        )
    if info.spec not in (None, branch.spec):
        assert info.spec is not None
        raise WeightsError(
            f"{info.file.name} is of another size than the branch: {_difference(info.spec, branch.spec)} (key: model.size)."
        )
    shared = {key: shape for key, shape in _shapes(branch.state_dict()).items() if _has(info.stage, key)}
    _refuse_misfits(state, shared, info.file, "this branch")
    broken = [key for key in shared if not torch.isfinite(state[key]).all()]
    if broken:
        raise WeightsError(
            f"{info.file.name} cannot be used: {counted(broken, 'not finite')}. Give an earlier file of that run."
        )
    with torch.no_grad():
        own = branch.state_dict()
        for key in shared:
            own[key].copy_(state[key])
    return lineage(state, branch)


def lineage(state: Mapping[str, Tensor], branch: GeometryBranch, backbone: nn.Module | None = None) -> list[LineageRow]:
    """What becomes of a parent's tensors in a branch, and where the branch's come from; the backbone as a last row."""
    sizes: dict[tuple[str, Fate], list[int]] = {}
    for key, parameter in branch.named_parameters():
        loaded: Fate = "loaded" if parameter.requires_grad else "frozen"
        sizes.setdefault((_group(key), loaded if key in state else "new"), []).append(parameter.numel())
    own = dict(branch.named_parameters())
    for key, tensor in state.items():
        if key not in own:
            sizes.setdefault((_group(key), "unused"), []).append(tensor.numel())
    rows = [LineageRow(group, len(counts), sum(counts), fate) for (group, fate), counts in sizes.items()]
    if backbone is not None:
        counts = [parameter.numel() for parameter in backbone.parameters()]
        rows.append(LineageRow("backbone", len(counts), sum(counts), "frozen"))
    return rows


def expected_shapes(spec: WorldSpec, stage: Stage) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a branch."""
    with torch.device("meta"):
        return _shapes(GeometryBranch(spec, stage).state_dict())


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if file.suffix != ".safetensors":
        raise WeightsError(
            f"{file.name} is no safetensors file. Weights of a geometry branch are read from .safetensors alone: other formats "
            "can run code when they are loaded."
        )
    try:
        with safe_open(str(file), framework="pt") as content:
            return {key: content.get_tensor(key) for key in content.keys()}, content.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file.name} is not a complete safetensors file ({error}). Copy it again.") from error


def _stated(file: Path, metadata: Mapping[str, str], state: Iterable[str]) -> BranchInfo:
    architecture = metadata.get("architecture")
    if architecture is None:
        second = any(_group(key) in STAGE_TWO_GROUPS for key in state)
        return BranchInfo(file, "stage2" if second else "stage1")
    if architecture != ARCHITECTURE:
        raise WeightsError(f"{file.name} holds a model of architecture {architecture!r}, not {ARCHITECTURE!r}.")
    try:
        stage: Stage = {"stage1": "stage1", "stage2": "stage2"}[metadata["stage"]]  # type: ignore[assignment]
        spec, meta = WorldSpec.from_dict(json.loads(metadata["spec"])), dict(json.loads(metadata["meta"]))
        return BranchInfo(file, stage, spec, metadata["base_digest"], meta)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"The description inside {file.name} cannot be read ({error!r}). Copy it again.") from error


def _refuse_misfits(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], file: Path, what: str, exact: bool = False
) -> None:
    """Raise WeightsError unless the state has all these tensors (`exact`: and no others) as floating point numbers."""
    found = compared(state, shapes)
    integers = [f"{key} ({state[key].dtype})" for key in found.shared if not state[key].is_floating_point()]
    problems = {
        "missing": found.missing,
        "unexpected": found.extra if exact else [],
        "of another shape": [
            f"{key} is {_size(tuple(state[key].shape))} instead of {_size(shapes[key])}" for key in found.reshaped
        ],
        "not floating point": integers,
    }
    if said := told(problems):
        raise WeightsError(f"{file.name} does not fit {what}: {said}.")


def _bare(key: str) -> str:
    while key.startswith(PREFIXES):
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
    return key


def _group(key: str) -> str:
    return key.split(".", 1)[0]


def _has(stage: Stage, key: str) -> bool:
    return stage == "stage2" or _group(key) not in STAGE_TWO_GROUPS


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _short(digest: str | None) -> str:
    return str(digest)[:SHOWN_DIGEST]


def _difference(stated: WorldSpec, wanted: WorldSpec) -> str:
    pairs = [
        (f"{part}.{key}", value, wanted.to_dict()[part][key])
        for part, values in stated.to_dict().items()
        for key, value in values.items()
    ]
    return ", ".join(f"{name} is {value}, not {other}" for name, value, other in pairs if value != other)
