"""The ONNX files, run by ONNX Runtime, equal the model: every kind of architecture, every law, any length and size.

Tolerance 1e-5 on values of about 1: the same sums in another order.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError, MissingExtraError
from tinyworld.core.frames import kept_runs
from tinyworld.core.variants import VARIANTS, TaehvSpec
from tinyworld.core.version import __version__
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.folded import FoldedDecoder, FoldedEncoder, UpHead
from tinyworld.models.taehv.onnx_export import (
    Graph,
    decode_step_graph,
    encode_step_graph,
    export_onnx,
    how_to_drive,
    need,
    to_proto,
)
from tinyworld.models.taehv.onnx_graphs import DecodeClip, EncodeClip, PhasedUpHead, exportable, kept_outputs

onnx = pytest.importorskip("onnx", reason="pip install 'tinyworld[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'tinyworld[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'tinyworld[onnx]'")

KINDS = ["taew2_1", "taew2_2", "taeh3", "taecvx", "taew2_2_super", "taeltx_2"]
MODELS = {name: formula_model(small_spec(name)) for name in KINDS}


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-5, rtol=0)


def open_session(source: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def call(session: Any, *inputs: Tensor) -> list[Tensor]:
    names = [value.name for value in session.get_inputs()]
    feed = {name: x.detach().numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(np.array(x)) for x in session.run(None, feed)]


def latents_of(spec: TaehvSpec, count: int, height: int, width: int, clips: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(clips, count, spec.latent_channels, height, width, generator=generator)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The plain model with free sizes: the one full export of these tests."""
    folder = tmp_path_factory.mktemp("onnx") / "new"
    return export_onnx(MODELS["taew2_1"], folder, about={"variant": "taew2_1", "latents": "raw", "step": 7})


@pytest.mark.slow
def test_files_state_what_they_are(files: dict[str, Path]) -> None:
    spec = MODELS["taew2_1"].spec
    assert sorted(files) == ["decode", "decode_step", "description", "encode", "encode_step"]
    stated = json.loads(files["description"].read_text())
    assert TaehvSpec.from_dict(stated["spec"]) == spec
    assert (stated["variant"], stated["latents"], stated["step"]) == ("taew2_1", "raw", 7)
    for name in ("encode", "decode", "encode_step", "decode_step"):
        proto = onnx.load(files[name])
        onnx.checker.check_model(proto, full_check=True)
        properties = {entry.key: entry.value for entry in proto.metadata_props}
        assert properties["architecture"] == "taehv" and properties["tinyworld_version"] == __version__
        assert TaehvSpec.from_dict(json.loads(properties["spec"])) == spec
        assert (properties["variant"], properties["latents"], properties["step"]) == ("taew2_1", "raw", "7")
        assert [each["name"] for each in stated["files"][name]["inputs"]] == [each.name for each in proto.graph.input]
    shapes = {each["name"]: each["shape"] for each in stated["files"]["decode"]["outputs"]}
    assert shapes["frames"] == ["n", "4*l - 3", 3, "8*h", "8*w"]


@pytest.mark.slow
@torch.no_grad()
def test_whole_clips_of_any_number_length_and_size(files: dict[str, Path]) -> None:
    model = MODELS["taew2_1"]
    encoder, decoder = open_session(str(files["encode"])), open_session(str(files["decode"]))
    for clips, count, height, width in [(1, 1, 8, 8), (2, 6, 16, 40), (1, 13, 24, 8)]:
        frames = clip(count, height, width, clips)
        latents = model.encode(frames)
        close(call(encoder, frames)[0], latents)
        close(call(decoder, 3 * latents)[0], model.decode(3 * latents))


@pytest.mark.slow
@torch.no_grad()
def test_a_program_that_follows_the_description_streams(files: dict[str, Path]) -> None:
    """Nothing but the description and the files is used: what somebody in C++ would do."""
    stated = json.loads(files["description"].read_text())
    encoder, decoder = open_session(str(files["encode_step"])), open_session(str(files["decode_step"]))
    group, dropped = stated["encoder"]["frames_per_latent"], stated["decoder"]["drop_first"]
    frames = clip(12, 16, 24)

    def start(name: str) -> list[Tensor]:
        state = stated["files"][name]["state"]
        return [torch.zeros(1, x["channels"], 2 * x["pixels_per_cell"], 3 * x["pixels_per_cell"]) for x in state]

    encoding, decoding = start("encode_step"), start("decode_step")
    latents, decoded = [], []
    for piece in frames.split(group, 1):
        latent, *encoding = call(encoder, piece, *encoding)
        made, *decoding = call(decoder, latent, *decoding)
        latents.append(latent)
        decoded.append(made)
    model = MODELS["taew2_1"]
    close(torch.stack(latents, 1), model.encode(frames))
    close(torch.cat(decoded, 1)[:, dropped:], model.decode(model.encode(frames)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["taew2_2", "taeh3"])
@torch.no_grad()
def test_encoding_clips_of_other_kinds(name: str) -> None:
    """With fixed sizes, which export in a fraction of the time; the modules themselves are tested with all sizes below."""
    model = MODELS[name]
    frames = clip(20, model.spec.size_multiple, 2 * model.spec.size_multiple)
    encode = EncodeClip(FoldedEncoder(model.encoder, torch.float32), model.spec)
    session = open_session(to_proto(Graph(encode, {"frames": (frames, {})}, ["latents"])).SerializeToString())
    close(call(session, frames)[0], model.encode(frames))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["taew2_2", "taecvx", "taew2_2_super"])
@torch.no_grad()
def test_decoding_clips_of_other_kinds(name: str) -> None:
    model = MODELS[name]
    latents = latents_of(model.spec, 3, 1, 2)
    decode = DecodeClip(exportable(FoldedDecoder(model.decoder, torch.float32)), model.spec)
    session = open_session(to_proto(Graph(decode, {"latents": (latents, {})}, ["frames"])).SerializeToString())
    close(call(session, latents)[0], model.decode(latents))


@pytest.mark.slow
@torch.no_grad()
def test_a_step_of_the_super_decoder() -> None:
    model = MODELS["taew2_2_super"]
    decoder = FoldedDecoder(model.decoder, torch.float32)
    session = open_session(
        to_proto(decode_step_graph(decoder, 48, patch=2, clamp=True, size=(2, 3))).SerializeToString()
    )
    latents = latents_of(model.spec, 2, 2, 3)
    frames, past = [], [torch.zeros(1, *value.shape[1:]) for value in session.get_inputs()[1:]]
    for latent in latents.unbind(1):
        made, *past = call(session, latent, *past)
        frames.append(made)
    close(torch.cat(frames, 1)[:, 3:], model.decode(latents))


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_the_modules_that_are_exported_equal_the_model(name: str) -> None:
    model = MODELS[name]
    spec, size = model.spec, model.spec.size_multiple
    decode = DecodeClip(exportable(FoldedDecoder(model.decoder, torch.float32)), spec)
    encode = EncodeClip(FoldedEncoder(model.encoder, torch.float32), spec)
    for count in (1, 2, 5, 6, 11):
        latents = latents_of(spec, count, 2, 1, clips=2)
        close(decode(latents), model.decode(latents))
    for count in (1, 8, 17, 18, 23):
        frames = clip(count, size, size, clips=2)
        close(encode(frames), model.encode(frames))


@pytest.mark.parametrize("name", KINDS)
def test_the_frames_that_are_kept_are_those_of_the_law(name: str) -> None:
    spec = VARIANTS[name]
    for latents in range(1, 24):
        assert kept_outputs(latents, spec).tolist() == [i for run in kept_runs(latents, spec) for i in run]


@torch.no_grad()
def test_the_unrolled_head_equals_the_one_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyworld.models.taehv.folded.STRIP_BYTES", 3000)
    up, last = torch.randn(8, 8, 3, 3), torch.nn.Conv2d(8, 3, 3, padding=1)
    head = UpHead(up, last)
    for height, width in [(1, 1), (5, 3), (2, 9)]:
        x = torch.randn(2, 8, height, width)
        torch.testing.assert_close(PhasedUpHead(head)(x), head(x), atol=1e-4, rtol=1e-4)


def test_exporting_leaves_the_model_as_it_is() -> None:
    decoder = FoldedDecoder(MODELS["taew2_1"].decoder, torch.float32)
    made = exportable(decoder)
    assert any(isinstance(part, UpHead) for part in decoder.modules())
    assert not any(isinstance(part, UpHead) for part in made.modules())
    assert made.memory_blocks == decoder.memory_blocks and made.relu_first == decoder.relu_first


def test_the_description_tells_the_law_of_each_flavour() -> None:
    plain, cog, h3 = (how_to_drive(VARIANTS[name]) for name in ("taew2_1", "taecvx", "taeh3"))
    assert plain["decoder"]["drop_first"] == 3 and not plain["decoder"]["drop_only_if_latents_are_odd"]
    assert cog["decoder"]["drop_only_if_latents_are_odd"]
    assert (h3["encoder"]["chunk_frames"], h3["decoder"]["drop_again_every"]) == (17, 20)
    assert how_to_drive(VARIANTS["taeltx_2"])["decoder"]["drop_first"] == 7


def test_step_graphs_name_their_state() -> None:
    model = MODELS["taew2_1"]
    graph = encode_step_graph(FoldedEncoder(model.encoder, torch.float32), 3, size=(2, 2))
    assert list(graph.inputs) == ["frames", *(f"past_{i}" for i in range(9))]
    assert graph.outputs == ["latent", *(f"next_{i}" for i in range(9))]
    assert graph.inputs["past_0"][0].shape == (2, 8, 8, 8) and graph.inputs["past_8"][0].shape == (2, 8, 2, 2)


def test_mistakes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["taew2_2"]
    for height, width in [(64, None), (60, 64), (0, 64)]:
        with pytest.raises(ConfigError, match="multiples of 16 pixels"):
            export_onnx(model, tmp_path / "none", height, width)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingExtraError, match=r"onnxscript.*pip install 'tinyworld\[onnx\]'"):
        export_onnx(Taehv(model.spec), tmp_path / "none")
    need("onnx")
    assert not (tmp_path / "none").exists()
