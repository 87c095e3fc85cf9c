"""TAEHV as ONNX files, for programs without Python: whole clips, and one latent at a time with the state in the open.

`description.json` beside them says what a program needs to drive them: tensors with names and shapes, the state, and which frames
belong to a clip.
"""

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, MissingExtraError
from tinyworld.core.files import write_atomic, write_json
from tinyworld.core.frames import H3_CHUNK, H3_CHUNK_LATENTS, H3_LAST_LATENTS, H3_LEAD
from tinyworld.core.variants import IMAGE_CHANNELS, STAGES, TaehvSpec
from tinyworld.models.taehv.folded import FoldedDecoder, FoldedEncoder
from tinyworld.models.taehv.model import Taehv
from tinyworld.models.taehv.onnx_graphs import DecodeClip, DecodeStep, EncodeClip, EncodeStep, exportable
from tinyworld.models.taehv.weights import description

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
DESCRIPTION_NAME = "description.json"
EXAMPLE = (3, 4)
"""Latent cells, height and width, with which a graph of free sizes is traced."""


Names = dict[int, str]
"""Dimension of a tensor → the name under which it stays free."""


@dataclass(frozen=True)
class Graph:
    """A module with example inputs and names. A step's state comes behind its first input, the next behind its first output."""

    module: nn.Module
    inputs: dict[str, tuple[Tensor, Names]]
    outputs: list[str]
    made: tuple[int, ...] | None = None
    """Of a step: the shape of the first output for these inputs."""


def export_onnx(
    model: Taehv,
    folder: Path,
    height: int | None = None,
    width: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write `encode.onnx`, `decode.onnx`, `encode_step.onnx`, `decode_step.onnx` and `description.json` into a folder.

    fp32, opset 20, weights inside. Clips N, frames T and latents L are free in every file; so are height and width (multiples of
    `spec.size_multiple`) unless both are given in pixels, for runtimes that want them fixed. Frames are N T C H W in [0, 1],
    and every decoded one is clamped to it. The clip files equal `model.encode` and `model.decode`, with memory that grows with
    T; the steps equal streaming. about: what is known of the model (`weights.ABOUT`), such as the form of its latents; every
    file says it. Returns the paths by the files' stems.

    Raises MissingExtraError without the libraries, ConfigError for a size that the model cannot take.
    """
    need("onnx", "onnxscript")
    spec, size = model.spec, _cells(model.spec, height, width)
    folder.mkdir(parents=True, exist_ok=True)
    stated = description(spec, {}, about)
    paths: dict[str, Path] = {}
    files: dict[str, dict[str, Any]] = {}
    for name, graph in _graphs(model, size):
        proto = to_proto(graph)
        for key, value in stated.items():
            proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
        paths[name] = folder / f"{name}.onnx"
        write_atomic(paths[name], proto.SerializeToString())
        files[name] = {"file": paths[name].name, **_tensors(proto), **_state(graph, size)}
    paths["description"] = folder / DESCRIPTION_NAME
    write_json(paths["description"], {**stated, "opset": OPSET, "files": files, **how_to_drive(spec)})
    return paths


def need(*libraries: str) -> None:
    """Raise MissingExtraError when one of the libraries is not installed."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"ONNX needs {' and '.join(missing)}, which cannot be found here: pip install 'tinyworld[onnx]'."
        )


def decode_step_graph(
    decoder: FoldedDecoder, channels: int, patch: int = 1, clamp: bool = False, size: tuple[int, int] | None = None
) -> Graph:
    """`DecodeStep` for latents with so many channels; `size` in latent cells, free without."""
    latent = torch.zeros(2, channels, *(size or EXAMPLE))
    return _step(DecodeStep(exportable(decoder), patch, clamp), "latent", latent, "frames", size)


def encode_step_graph(
    encoder: FoldedEncoder, channels: int, patch: int = 1, size: tuple[int, int] | None = None
) -> Graph:
    """`EncodeStep` for frames with so many channels (before `patch` folds them); `size` in latent cells, free without."""
    pixels = [cells * 2**STAGES * patch for cells in size or EXAMPLE]
    frames = torch.zeros(2, encoder.group, channels, *pixels)
    return _step(EncodeStep(copy.deepcopy(encoder).cpu(), patch), "frames", frames, "latent", size)


@torch.no_grad()
def to_proto(graph: Graph) -> "ModelProto":
    """The graph as a checked ONNX model."""
    import onnx

    examples = [example for example, _ in graph.inputs.values()]
    free = [names for _, names in graph.inputs.values()]
    with _quiet():
        program = torch.onnx.export(
            graph.module.eval(),
            (examples[0], examples[1:]) if examples[1:] else (examples[0],),
            input_names=list(graph.inputs),
            output_names=graph.outputs,
            opset_version=OPSET,
            dynamic_shapes=(free[0], free[1:]) if examples[1:] else (free[0],),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _graphs(model: Taehv, size: tuple[int, int] | None) -> Iterator[tuple[str, Graph]]:
    """What `export_onnx` writes, by the name of the file."""
    spec = model.spec
    encoder = FoldedEncoder(model.encoder, torch.float32).cpu()
    decoder = exportable(FoldedDecoder(model.decoder, torch.float32))
    cells = size or EXAMPLE
    count = 2 * H3_CHUNK_LATENTS if spec.flavour == "h3" else 3
    frames = torch.zeros(2, 2 * H3_CHUNK + 1, IMAGE_CHANNELS, *(side * spec.spatial_compression for side in cells))
    latents = torch.zeros(2, count, spec.latent_channels, *cells)
    large = {} if size else {3: "height", 4: "width"}
    small = {} if size else {3: "h", 4: "w"}
    taken = {"frames": (frames, {0: "n", 1: "t", **large})}
    yield "encode", Graph(EncodeClip(encoder, spec), taken, ["latents"])
    taken = {"latents": (latents, {0: "n", 1: "l", **small})}
    yield "decode", Graph(DecodeClip(decoder, spec), taken, ["frames"])
    yield "encode_step", encode_step_graph(encoder, IMAGE_CHANNELS, spec.patch_size, size)
    yield "decode_step", decode_step_graph(decoder, spec.latent_channels, spec.patch_size, True, size)


@torch.no_grad()
def _step(
    module: DecodeStep | EncodeStep, taken: str, example: Tensor, made: str, size: tuple[int, int] | None
) -> Graph:
    """A step with its state: `past_0`, `past_1`, … go in, `next_0`, … come out."""
    network = module.decoder if isinstance(module, DecodeStep) else module.encoder
    first, state = module(example, [None] * network.memory_blocks)
    inputs: dict[str, tuple[Tensor, Names]] = {taken: (example, _free(example, size, "height", "width"))}
    for place, past in enumerate(state):
        inputs[f"past_{place}"] = (torch.zeros(past.shape), _free(past, size, f"height_{place}", f"width_{place}"))
    return Graph(module, inputs, [made, *(f"next_{place}" for place in range(len(state)))], tuple(first.shape))


def _free(example: Tensor, size: tuple[int, int] | None, height: str, width: str) -> Names:
    return {0: "n"} if size else {0: "n", example.ndim - 2: height, example.ndim - 1: width}


def _tensors(proto: "ModelProto") -> dict[str, list[dict[str, Any]]]:
    """Names and shapes of a file's inputs and outputs; free dimensions by name or formula."""
    return {
        kind: [
            {
                "name": value.name,
                "shape": [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]
        for kind, values in (("inputs", proto.graph.input), ("outputs", proto.graph.output))
    }


def _state(graph: Graph, size: tuple[int, int] | None) -> dict[str, list[dict[str, Any]]]:
    """Of a step: the names, channels and size (pixels per latent cell, along each side) of its state."""
    entries = [
        {
            "in": past,
            "out": after,
            "channels": example.shape[1],
            "pixels_per_cell": example.shape[-1] // (size or EXAMPLE)[1],
        }
        for (past, (example, _)), after in zip(list(graph.inputs.items())[1:], graph.outputs[1:], strict=True)
    ]
    return {"state": entries} if entries else {}


def how_to_drive(spec: TaehvSpec) -> dict[str, Any]:
    """The part of the description that holds for the architecture: the state, and which frames belong to a clip."""
    h3, late = spec.flavour == "h3", spec.t_up - 1
    return {
        "frames": "RGB, fp32 in [0, 1], N T C H W; height and width are multiples of pixels_per_cell",
        "pixels_per_cell": spec.spatial_compression,
        "state": {
            "first": "zeros",
            "rule": "What a step gives as `out` the next one takes as `in`; N, channels, cells high and cells wide times "
            "pixels_per_cell. A clip begins with zeros.",
        },
        "encoder": {
            "frames_per_latent": spec.t_down,
            "fill": "repeat the last frame until the last latent is full",
            "chunk_frames": H3_CHUNK if h3 else None,
            "black_frames_before_each_chunk": H3_LEAD if h3 else 0,
            "latents_of_the_last_chunk": H3_LAST_LATENTS if h3 else None,
            "rule": (
                f"The clip is cut into chunks of {H3_CHUNK} frames; each begins with state zeros and {H3_LEAD} black frames and "
                f"makes {H3_CHUNK_LATENTS} latents; of the last chunk the first {H3_LAST_LATENTS} are used."
                if h3
                else "One state for the whole clip."
            ),
        },
        "decoder": {
            "frames_per_latent": spec.t_up,
            "drop_first": late,
            "drop_again_every": H3_CHUNK_LATENTS * spec.t_up if h3 else None,
            "drop_only_if_latents_are_odd": spec.flavour == "cogvideox",
            "rule": {
                "plain": f"Drop the first {late} frames of the clip.",
                "cogvideox": f"Drop the first {late} frames of the clip if its number of latents is odd, else none.",
                "h3": f"Drop the first {late} of every {H3_CHUNK_LATENTS * spec.t_up} frames.",
            }[spec.flavour],
        },
    }


def _cells(spec: TaehvSpec, height: int | None, width: int | None) -> tuple[int, int] | None:
    """The picture's size in latent cells, None where it stays free."""
    if height is None and width is None:
        return None
    multiple = spec.size_multiple
    if height is None or width is None or any(side < multiple or side % multiple for side in (height, width)):
        raise ConfigError(
            f"height={height}, width={width}: a fixed picture size for ONNX needs both, as multiples of {multiple} pixels for "
            "this model. Give both, or neither: then the size stays free."
        )
    return height // multiple, width // multiple


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's lines about itself: optional operators of a library that nothing here uses, its deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
