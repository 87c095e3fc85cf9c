"""Weight files in smaller number types: what they hold, how far they are off, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError, WeightsError
from tinyworld.models.taehv import Taehv, weights
from tinyworld.models.taehv.quantise import compress, dequantise, quantise


def test_no_weight_moves_by_more_than_half_a_step() -> None:
    weight = (
        torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-6, 3, 5)[:, None, None, None]
    )
    weight[2] = 0
    end, bias = torch.randn(2, 2, 1, 1), torch.randn(5)
    small = quantise({"a.0.weight": end, "a.1.weight": weight, "a.1.bias": bias, "a.2.weight": end})
    assert list(small) == ["a.0.weight", "a.1.weight", "a.1.weight.scale", "a.1.bias", "a.2.weight"]
    assert small["a.1.weight"].dtype == torch.int8 and small["a.1.weight.scale"].dtype == torch.float32
    assert small["a.1.weight"].int().abs().amax((1, 2, 3)).tolist() == [127, 127, 0, 127, 127]
    back = dequantise(small)
    assert list(back) == ["a.0.weight", "a.1.weight", "a.1.bias", "a.2.weight"]
    assert torch.equal(back["a.1.bias"], bias) and torch.equal(back["a.0.weight"], end)
    error = (back["a.1.weight"] - weight).abs().amax((1, 2, 3))
    assert (error <= small["a.1.weight.scale"] * 0.5001).all() and (back["a.1.weight"][2] == 0).all()


@pytest.mark.parametrize("name", ["taecvx", "taew2_2_super"])
def test_an_int8_folder_loads_as_fp32(name: str, tmp_path: Path) -> None:
    model = formula_model(small_spec(name))
    tensors = compress(model.state_dict(), "int8")
    weights.write_folder(tmp_path / "int8", tensors, model.spec)
    model.save_pretrained(tmp_path / "fp32")
    loaded = Taehv.from_pretrained(tmp_path / "int8")
    assert loaded.spec == model.spec
    wanted = dequantise(tensors)
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.state_dict().items())
    assert {value.dtype for value in weights.load(tmp_path / "int8")[1].values()} == {torch.float32}
    stored = load_file(tmp_path / "int8" / "model.safetensors")
    assert sum(t.nbytes for t in stored.values()) < 0.5 * sum(t.nbytes for t in model.state_dict().values())
    frames = clip(5)
    assert (loaded.eval().reconstruct(frames) - model.reconstruct(frames)).abs().mean() < 0.02


@pytest.mark.parametrize("name", ["taecvx", "taew2_2_super"])
def test_pixels_and_latents_are_touched_by_exact_weights_only(name: str) -> None:
    model = formula_model(small_spec(name))
    small = quantise(model.state_dict())
    first = {"taecvx": "decoder.1.weight", "taew2_2_super": "decoder.0.weight"}[name]
    ends = {"encoder.0.weight", "encoder.17.weight", first, f"decoder.{len(model.decoder) - 1}.weight"}
    exact = {key for key, value in small.items() if value.ndim == 4 and value.dtype == torch.float32}
    assert exact == ends
    assert all(torch.equal(small[key], model.state_dict()[key]) for key in ends)


def test_the_files_say_that_they_are_quantised(tmp_path: Path) -> None:
    model = formula_model(small_spec("taehv"))
    weights.write_folder(tmp_path, compress(model.state_dict(), "int8"), model.spec)
    assert json.loads((tmp_path / "config.json").read_text())["quantisation"] == "int8 per output channel"
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as content:
        assert content.metadata()["quantisation"] == "int8 per output channel"
        assert json.loads(content.metadata()["spec"]) == model.spec.to_dict()


@pytest.mark.parametrize(("kind", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_keeps_the_public_keys(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = formula_model(small_spec("taecvx"))
    weights.write_folder(tmp_path, compress(model.state_dict(), kind), model.spec)  # type: ignore[arg-type]
    stored = load_file(tmp_path / "model.safetensors")
    assert set(stored) == set(model.state_dict()) and {value.dtype for value in stored.values()} == {dtype}
    assert "quantisation" not in json.loads((tmp_path / "config.json").read_text())
    loaded = Taehv.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[key], value.to(dtype).float()) for key, value in model.state_dict().items())


def test_what_a_number_type_cannot_hold_is_refused() -> None:
    large = {"a.weight": torch.full((2, 2, 1, 1), 1e5), "a.bias": torch.zeros(2)}
    with pytest.raises(WeightsError, match=r"1 tensors are not finite as fp16 \(a\.weight\)"):
        compress(large, "fp16")
    assert compress(large, "bf16")["a.weight"].isfinite().all()
    for value in (float("nan"), float("inf")):
        large["a.weight"][0, 0] = value
        with pytest.raises(WeightsError, match="not finite as int8"):
            compress(large, "int8")
    with pytest.raises(ConfigError, match="int4.*fp16, bf16, int8"):
        compress(large, "int4")  # type: ignore[arg-type]


def test_scales_that_do_not_belong_to_their_weights_are_refused(tmp_path: Path) -> None:
    model = formula_model(small_spec("taehv"))
    tensors = compress(model.state_dict(), "int8")
    key = "decoder.3.conv.0.weight"
    for changed, message in [
        ({key + ".scale": torch.ones(3)}, "decoder.3.conv.0.weight.scale is 3 of torch.float32; it must hold 16"),
        ({key: model.state_dict()[key]}, "decoder.3.conv.0.weight.scale has no int8 convolution weight"),
    ]:
        weights.write_folder(tmp_path, {**tensors, **changed}, model.spec)
        with pytest.raises(WeightsError, match=message):
            Taehv.from_pretrained(tmp_path)
    del tensors[key + ".scale"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"not floating point \(decoder\.3\.conv\.0\.weight \(torch\.int8\)\)"):
        Taehv.from_pretrained(tmp_path)
