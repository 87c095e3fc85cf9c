"""Files for ComfyUI and for the public taehv code: strictly loaded by a plain form of it, bit-exact both ways, or refused."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.interop.public_taehv import PublicTaehv, blank
from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError
from tinyworld.core.variants import variant
from tinyworld.interop.public_files import comfyui_note, default_name, write_comfyui, write_pth
from tinyworld.models.taehv import Taehv, weights
from tinyworld.models.taehv.prune import narrower

PLAIN = {
    "taew2_1": {},
    "taew2_2": {"channels": 48, "patch": 2},
    "taeltx_2": {"channels": 128, "patch": 4, "in_time": (2, 2, 2)},
}


def equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return list(found) == list(wanted) and all(
        found[key].dtype == wanted[key].dtype and torch.equal(found[key], wanted[key]) for key in wanted
    )


@pytest.mark.parametrize("name", PLAIN)
def test_the_public_layout_loads_both_files_strictly(name: str, tmp_path: Path) -> None:
    model = formula_model(variant(name))
    write_pth(tmp_path / f"{name}.pth", model.state_dict(), model.spec)
    write_comfyui(tmp_path / f"{name}.safetensors", model.state_dict(), model.spec, {"latents": "raw"})
    plain = PublicTaehv(**PLAIN[name])
    plain.load_state_dict(load_file(tmp_path / f"{name}.safetensors"), strict=True)
    plain.load_state_dict(torch.load(tmp_path / f"{name}.pth", weights_only=True), strict=True)
    frames = clip(8, 32, 32)
    latents = plain.encode(frames[0])
    with torch.no_grad():
        assert torch.allclose(latents, model.encode(frames)[0], atol=1e-4)
        late = model.spec.t_up - 1
        assert torch.allclose(plain.decode(latents)[late:], model.decode(latents[None])[0], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_there_and_back_is_bit_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    """A published file, read and written again, is the same tensors; so is the file that was written."""
    published = {key: value.to(dtype) for key, value in formula_model(variant("taecvx")).state_dict().items()}
    torch.save(published, tmp_path / "taecvx.pth")
    spec, read = weights.load(tmp_path / "taecvx.pth", variant("taecvx"))
    write_pth(tmp_path / "again" / "taecvx.pth", read, spec)
    assert equal(torch.load(tmp_path / "again" / "taecvx.pth", weights_only=True), published)
    if dtype is not torch.float16:  # which ComfyUI would take for HunyuanVideo's
        write_comfyui(tmp_path / "c.safetensors", read, spec, {"latents": "raw"})
        assert equal(load_file(tmp_path / "c.safetensors"), {key: published[key] for key in sorted(published)})
        assert weights.load(tmp_path / "c.safetensors")[0] == spec


def test_number_types_tell_comfyui_how_to_scale(tmp_path: Path) -> None:
    tensors, half = blank(variant("taehv"), torch.float32), blank(variant("taehv"))
    hunyuan, wan = {"variant": "taehv"}, {"variant": "taew2_1"}
    for given, about, wanted in [
        (tensors, hunyuan | {"latents": "scaled"}, torch.float16),
        (half, hunyuan | {"latents": "raw"}, torch.float32),
        (half, wan | {"latents": "normalised"}, torch.float32),
        (half, {"latents": "scaled"}, torch.float32),  # of whom, nothing says
        (half, {"variant": "taeos1_3", "latents": "scaled"}, torch.float32),
        (tensors, {"latents": "scaled", "teacher": "AutoencoderKLHunyuanVideo"}, torch.float16),
        (half, hunyuan | {"latents": "scaled", "teacher": "MyVae"}, torch.float32),
        (tensors, {}, torch.float32),
    ]:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        assert write_comfyui(file, given, variant("taehv"), about) is wanted, about
        assert {value.dtype for value in load_file(file).values()} == {wanted}
    spec = variant("taecvx")  # ComfyUI would multiply its latents by HunyuanVideo's factor
    about = {"variant": "taecvx", "latents": "scaled"}
    assert write_comfyui(tmp_path / "c.safetensors", blank(spec), spec, about) is torch.float32
    spec = variant("taew2_2")
    assert write_comfyui(tmp_path / "w.safetensors", blank(spec), spec, {"latents": "raw"}) is torch.float16


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    spec = variant("taew2_1")
    write_comfyui(tmp_path / "a.safetensors", blank(spec), spec, {"variant": "taew2_1", "latents": "raw"})
    with safe_open(str(tmp_path / "a.safetensors"), framework="pt") as content:
        stated = content.metadata()
    assert (stated["architecture"], stated["variant"], stated["latents"]) == ("taehv", "taew2_1", "raw")
    assert Taehv.from_pretrained(tmp_path / "a.safetensors").spec == spec


LOAD_VAE_GIVES = {
    "taew2_1": "raw", "taecvx": "raw", "taeos1_3": "raw", "taew2_2": "raw", "taeltx_2": "normalised", "taeh3": "normalised",
}  # fmt: skip
"""Of `taehv` raw or scaled: the number type tells it."""


@pytest.mark.parametrize("latents", ["raw", "scaled", "normalised"])
@pytest.mark.parametrize("name", [*LOAD_VAE_GIVES, "taehv"])
def test_every_mismatch_with_comfyui_is_noted(name: str, latents: str) -> None:
    right = latents == LOAD_VAE_GIVES[name] if name != "taehv" else latents in ("raw", "scaled")
    note = comfyui_note(variant(name), {"variant": name, "latents": latents})
    assert (note is None) is right
    if note is not None:
        given = LOAD_VAE_GIVES.get(name, "raw")
        assert f"takes {latents} latents" in note and f"teacher.latent_convention={given}" in note
        assert ("WanVideoWrapper" in note) is (name in ("taew2_1", "taew2_2") and latents == "normalised")


def test_notes_where_little_is_known() -> None:
    assert "gives raw ones" in str(comfyui_note(variant("taew2_1"), {}))
    assert "gives raw ones" in str(comfyui_note(variant("taew2_1"), {"latents": "scaled"}))
    taught = {"variant": "taew2_1", "latents": "scaled", "teacher": "AutoencoderKLHunyuanVideo"}
    assert comfyui_note(variant("taew2_1"), taught) is None


def test_what_they_cannot_build_is_refused(tmp_path: Path) -> None:
    def refused(
        name: str, match: str, comfyui: bool = True, file: str = "", narrow: bool = False, latents: str | None = "raw"
    ) -> None:
        about = {"variant": name, "latents": latents}
        spec = narrower(variant(name), 0.5) if narrow else variant(name)
        with pytest.raises(ConfigError, match=match):
            if comfyui:
                write_comfyui(tmp_path / (file or "a.safetensors"), {}, spec, about)
            else:
                write_pth(tmp_path / (file or f"{name}.pth"), {}, spec, about)

    narrow = r"public variants alone.*encoder 32, decoder 128,64,32,32; those have encoder 64, decoder 256,128,64,64"
    diffusers, without = (
        narrow + r".*in diffusers \(--to diffusers\).*--to onnx",
        r"tinyworld \(--to folder\) and as ONNX",
    )
    refused("taew2_1", diffusers, narrow=True)
    refused("taew2_1", diffusers, comfyui=False, narrow=True)
    refused("taew2_1", without, narrow=True, latents=None)  # nothing says which latents it takes
    refused("taew2_1", without, narrow=True, latents="own")
    refused("taeos1_3", without, narrow=True)  # diffusers has no such pipeline
    refused("taeltx_2", without, narrow=True)  # its constants are in its VAE's file alone
    refused("taehv1_5", "leaky ReLUs.*--to diffusers, or --to pth")
    refused("taehv1_5", "Use --to pth", latents=None)
    refused("taew2_2_super", "super decoder.*--to pth")
    refused("taew2_1", r"must end with \.safetensors", file="a.pth")
    refused("taew2_1", "hold none of taecvx", comfyui=False, file="my_taecvx.pth")
    refused(
        "taew2_2", r"its name must hold taew2_2 and end with \.pth, such as taew2_2\.pth", comfyui=False, file="a.pth"
    )
    refused("taew2_2_super", "hold taew2_2 and super", comfyui=False, file="taew2_2.pth")
    refused("taew2_1", r"end with \.pth", comfyui=False, file="a.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="its layout is another one"):
        write_pth(tmp_path / "a.pth", {}, formula_model(small_spec("taehv")).preview(space=True).spec)


def test_default_names() -> None:
    assert default_name("pth", variant("taecvx"), None) == "taecvx.pth"
    assert default_name("comfyui", variant("taehv"), "taew2_1") == "taew2_1.safetensors"
    assert default_name("pth", small_spec("taehv"), None) == "taehv.pth"
