"""Weight files: written, read back, refused."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld import __version__
from tinyworld.core.errors import ConfigError, MissingFileError, UserError, WeightsError
from tinyworld.core.variants import VARIANTS, variant
from tinyworld.models.taehv import Taehv, weights
from tinyworld.models.taehv.layout import expected_shapes
from tinyworld.models.taehv.weights import read_tensors


def empty_tensors(name: str) -> dict[str, torch.Tensor]:
    """Half-precision zeros in the shapes of a public variant: what a published file looks like from outside."""
    return {key: torch.zeros(shape, dtype=torch.float16) for key, shape in expected_shapes(variant(name)).items()}


@pytest.mark.parametrize("name", ["taecvx", "taeh3", "taew2_2_super"])
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = formula_model(small_spec(name))
    model.save_pretrained(tmp_path / "model")
    loaded = Taehv.from_pretrained(tmp_path / "model")
    assert loaded.spec == model.spec
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    frames = clip(5)
    assert torch.equal(loaded.reconstruct(frames), model.reconstruct(frames))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_files_state_the_architecture(tmp_path: Path) -> None:
    model = formula_model(small_spec("taecvx"))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"architecture": "taehv", "spec": model.spec.to_dict(), "tinyworld_version": __version__}
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as content:
        assert content.metadata()["architecture"] == "taehv"
        assert json.loads(content.metadata()["spec"]) == model.spec.to_dict()
        assert set(content.keys()) == set(expected_shapes(model.spec))
    moved = tmp_path / "taew2_2_super.safetensors"  # a name that says something else
    (tmp_path / "model.safetensors").rename(moved)
    (tmp_path / "config.json").unlink()
    assert Taehv.from_pretrained(moved).spec == model.spec


def test_a_json_beside_the_file_states_the_architecture(tmp_path: Path) -> None:
    model = formula_model(small_spec("taehv"))
    save_file(model.state_dict(), tmp_path / "final_model.safetensors")
    with pytest.raises(WeightsError, match=r"states no architecture, and its tensors fit none.*config\.json"):
        Taehv.from_pretrained(tmp_path / "final_model.safetensors")
    description = {"architecture": "taehv", "spec": model.spec.to_dict(), "steps": 5}
    (tmp_path / "final_model.json").write_text(json.dumps(description))
    assert Taehv.from_pretrained(tmp_path / "final_model.safetensors").spec == model.spec
    (tmp_path / "final_model.json").write_text(json.dumps({**description, "architecture": "fantasy"}))
    with pytest.raises(WeightsError, match="architecture 'fantasy'"):
        Taehv.from_pretrained(tmp_path / "final_model.safetensors")


def test_a_folder_needs_no_json_where_its_file_states_the_architecture(tmp_path: Path) -> None:
    """As the checkpoints of a run are: the moving average is what they are for, where there is one."""
    model = formula_model(small_spec("taecvx"))
    weights.write_weights(tmp_path / "model.safetensors", model.state_dict(), model.spec)
    assert Taehv.from_pretrained(tmp_path).spec == model.spec
    average = {key: value + 1 for key, value in model.state_dict().items()}
    weights.write_weights(tmp_path / "ema.safetensors", average, model.spec)
    loaded = Taehv.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, average[key]) for key, value in loaded.items())
    model.save_pretrained(tmp_path)
    loaded = Taehv.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.items())


def test_a_run_folder_says_where_its_weights_are(tmp_path: Path) -> None:
    (tmp_path / "latest.safetensors").touch()
    with pytest.raises(WeightsError, match=r"is a run folder; its newest weights are .*/latest\.safetensors"):
        Taehv.from_pretrained(tmp_path)
    (tmp_path / "best_model").mkdir()
    with pytest.raises(WeightsError, match=r"is a run folder; its best weights are .*/best_model\."):
        Taehv.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", b"\x80abc", b"{", b"", b"[" * 100_000])
def test_a_broken_json_beside_the_file_is_refused(content: bytes, tmp_path: Path) -> None:
    save_file(formula_model(small_spec("taehv")).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.json is not valid JSON"):
        Taehv.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["taew2_2", "taehv1_5", "taeh3", "taeltx2_3", "taehv1_5_super"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_published_file_is_recognised_by_its_shapes(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"taehv{suffix}"  # the name says nothing
    if suffix == ".pth":
        torch.save(empty_tensors(name), path)
    else:
        save_file(empty_tensors(name), path)
    model = Taehv.from_pretrained(path)
    assert model.spec == variant(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_shapes_that_fit_several_laws_need_a_variant(tmp_path: Path) -> None:
    path = tmp_path / "taecvx.pth"
    torch.save(empty_tensors("taecvx"), path)
    with pytest.raises(WeightsError) as caught:
        Taehv.from_pretrained(path)
    assert all(name in str(caught.value) for name in ("taehv", "taew2_1", "taecvx", "taeos1_3", "variant="))
    assert Taehv.from_pretrained(path, variant="taecvx").spec == VARIANTS["taecvx"]
    with pytest.raises(ConfigError, match="Did you mean"):
        Taehv.from_pretrained(path, variant="taecv")


def test_a_variant_must_not_contradict_the_file(tmp_path: Path) -> None:
    formula_model(small_spec("taecvx")).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="encoder_width is 8, not 64"):
        Taehv.from_pretrained(tmp_path, variant="taecvx")


def test_grow_weights_for_a_higher_rate_keep_their_last_frames(tmp_path: Path) -> None:
    tensors = empty_tensors("taew2_1")
    key = "decoder.7.conv.weight"
    tensors[key] = torch.cat([torch.zeros(256, 256, 1, 1), torch.ones(256, 256, 1, 1)])
    torch.save(tensors, tmp_path / "a.pth")
    model = Taehv.from_pretrained(tmp_path / "a.pth", variant="taew2_1")
    assert torch.equal(model.state_dict()[key], torch.ones(256, 256, 1, 1))


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    tensors = empty_tensors("taew2_2")
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"of another shape \(encoder\.0\.weight is 64×12×3×3 .* 64×3×3×3.*taew2_2"):
        Taehv.from_pretrained(tmp_path / "a.safetensors", variant="taehv")
    for key in [key for key in tensors if key.startswith("decoder.3")]:
        tensors[key.replace("decoder.3", "decoder.99")] = tensors.pop(key)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError) as caught:
        Taehv.from_pretrained(tmp_path / "a.safetensors", variant="taew2_2")
    missing = "decoder.3.conv.0.weight, decoder.3.conv.0.bias, decoder.3.conv.2.weight, decoder.3.conv.2.bias"
    assert f"6 tensors are missing ({missing}, decoder.3.conv.4.weight, …)" in str(caught.value)
    assert "6 tensors are unexpected (decoder.99.conv" in str(caught.value)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    tensors = {**empty_tensors("taew2_2"), "decoder.22.bias": torch.zeros(12, dtype=torch.int8)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensor is not floating point \(decoder\.22\.bias \(torch\.int8\)\)"):
        Taehv.from_pretrained(tmp_path / "a.safetensors", variant="taew2_2")


class Trap:
    """Runs code when unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused(legacy: bool, tmp_path: Path) -> None:
    content = {"encoder.0.weight": Trap(tmp_path / "proof")}
    if legacy:
        (tmp_path / "a.pth").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth was refused.*could run code.*safetensors"):
        Taehv.from_pretrained(tmp_path / "a.pth", variant="taehv")
    assert not (tmp_path / "proof").exists()


def test_a_checkpoint_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"encoder.0.weight": torch.zeros(1)}, "step": 3}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        Taehv.from_pretrained(tmp_path / "a.pth", variant="taehv")


@settings(max_examples=40)
@given(suffix=st.sampled_from([".pth", ".safetensors"]), kept=st.floats(0, 0.999))
def test_a_cut_file_is_refused(tmp_path_factory: pytest.TempPathFactory, suffix: str, kept: float) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = folder / f"whole{suffix}"
    tensors = {"encoder.0.weight": torch.ones(8, 3, 3, 3), "encoder.0.bias": torch.ones(8)}
    torch.save(tensors, whole) if suffix == ".pth" else save_file(tensors, whole)
    cut = folder / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * kept)])
    with pytest.raises(WeightsError, match=f"cut{suffix}"):
        read_tensors(cut)


@settings(max_examples=60)
@given(position=st.floats(0, 0.999), bits=st.integers(1, 255))
def test_a_damaged_pth_never_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, position: float, bits: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.pth"
    torch.save({"encoder.0.weight": torch.ones(8, 3, 3, 3)}, path)
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= bits
    path.write_bytes(content)
    try:
        read_tensors(path)  # damage in the numbers themselves cannot be seen
    except UserError as error:
        assert isinstance(error, WeightsError)


def test_missing_files_name_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere.*model\.pretrained_model_path"):
        Taehv.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"config\.json"):
        Taehv.from_pretrained(tmp_path)
    formula_model(small_spec("taehv")).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors"):
        Taehv.from_pretrained(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"use \.safetensors"):
        Taehv.from_pretrained(tmp_path / "weights.bin")


def test_a_preview_can_be_saved_and_loaded(tmp_path: Path) -> None:
    model = formula_model(small_spec("taehv"))
    preview = model.preview()
    preview.save_pretrained(tmp_path)
    loaded = Taehv.from_pretrained(tmp_path)
    assert loaded.spec == replace(model.spec, decoder_time_upscale=(False,) * 3, decoder_space_upscale=(False,) * 3)
    latents = torch.randn(1, 2, 16, 4, 4)
    assert torch.equal(loaded.decode(latents), preview.decode(latents))
