"""A TAEHV in the place of a pipeline's VAE: the real pipelines of diffusers, tiny transformers, the same frames as the TAEHV."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.interop.pipelines import CASES, Case, embeds, wan_transformer
from tests.models.taehv.formula import clip, formula_model, small_spec
from tests.teachers import build_vae
from tinyworld.core.errors import ConfigError, MissingFileError, WeightsError
from tinyworld.core.frames import decoded_count
from tinyworld.core.variants import VARIANTS
from tinyworld.interop.diffusers import TaehvVae
from tinyworld.interop.families import FAMILIES
from tinyworld.models.taehv import Taehv, tiling

EACH = pytest.mark.parametrize("name", CASES)
CLOSE = 2e-4
"""fp32, folded against plain weights, through a normalisation and its inverse."""


@cache
def model(variant: str) -> Taehv:
    return formula_model(small_spec(variant)).requires_grad_(False)


@cache
def real(kind: str) -> Any:
    return build_vae(kind)


def spoken(case: Case, pipe: Any, latents: Tensor) -> Tensor:
    """What the pipeline leaves, as the public TAEHV takes it, N L c h w."""
    if case.variant == "taecvx":
        return latents / pipe.vae.config.scaling_factor  # raw; the pipeline has time before channels already
    if case.variant == "taeltx_2":
        latents = pipe._unpack_latents(latents, 2, 2, 2)
    return latents.transpose(1, 2)


@EACH
def test_frames_are_those_of_the_taehv(name: str) -> None:
    case = CASES[name]
    pipe = case.build(real(case.vae), case.channels)
    wanted = case.run(pipe).shape
    pipe.vae = TaehvVae.from_taehv(model(case.variant), like=real(case.vae))
    frames, latents = case.run(pipe), case.run(pipe, "latent")
    direct = model(case.variant).decode(spoken(case, pipe, latents))
    assert frames.shape == wanted == (1, 9, 3, case.size, case.size)
    assert direct.std() > 0.05  # not a flat picture, which would agree with anything
    assert torch.allclose(frames, direct, atol=CLOSE)


@EACH
def test_a_pipeline_built_around_it_is_the_same(name: str) -> None:
    """Some pipelines read their VAE's constants only once, when they are made."""
    case = CASES[name]
    swapped = case.build(real(case.vae), case.channels)
    swapped.vae = TaehvVae.from_taehv(model(case.variant), like=real(case.vae))
    built = case.build(TaehvVae.from_taehv(model(case.variant), like=real(case.vae)), case.channels)
    assert torch.equal(case.run(swapped), case.run(built))


@EACH
def test_encode_gives_what_the_pipeline_takes(name: str) -> None:
    case = CASES[name]
    vae, other = TaehvVae.from_taehv(model(case.variant), like=real(case.vae)), real(case.vae)
    frames = clip(9, case.size, case.size)
    video = frames.transpose(1, 2) * 2 - 1
    found = vae.encode(video).latent_dist
    assert found.mode().shape == other.encode(video).latent_dist.mode().shape
    assert torch.equal(found.sample(torch.Generator().manual_seed(0)), found.mode())
    assert torch.equal(vae.encode(video, return_dict=False)[0].mode(), found.mode())
    shift, scale = vae.constants()
    assert case.variant == "taecvx" or not torch.equal(scale, torch.ones_like(scale))
    learned = (found.mode().transpose(1, 2) - shift[:, None, None]) * scale[:, None, None]
    assert torch.allclose(learned, model(case.variant).encode(frames), atol=CLOSE)
    back = vae.decode(found.mode()).sample.transpose(1, 2) / 2 + 0.5
    assert torch.allclose(back, model(case.variant).reconstruct(frames), atol=CLOSE)


@pytest.mark.parametrize("name", ["wan2_1", "cogvideox"])
@pytest.mark.parametrize("latents", [1, 2, 3, 4])
def test_frame_counts_are_those_of_the_replaced_vae(name: str, latents: int) -> None:
    case = CASES[name]
    vae = TaehvVae.from_taehv(model(case.variant), like=real(case.vae))
    raw = embeds(2, case.channels, latents, 4, 4)
    video = vae.decode(raw).sample
    assert video.shape == real(case.vae).decode(raw).sample.shape
    assert video.shape[2] == decoded_count(latents, model(case.variant).spec)
    assert video.min() >= -1 and video.max() <= 1


def test_image_to_video_encodes_with_it() -> None:
    vae = TaehvVae.from_taehv(model("taew2_1"), "taew2_1")
    transformer = wan_transformer(16, 36)  # latents, a mask of 4, latents of the first frame
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    pipe = diffusers.WanImageToVideoPipeline(None, None, vae, scheduler, None, None, transformer)
    arguments: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 1}
    arguments |= {"prompt_embeds": embeds(1, 8, 32), "negative_prompt_embeds": embeds(1, 8, 32, seed=6)}
    pipe.set_progress_bar_config(disable=True)
    images = clip(1, 32, 32, clips=2)
    made = [
        pipe(image=image, **arguments, generator=torch.Generator().manual_seed(0), output_type="pt").frames
        for image in images
    ]
    assert made[0].shape == (1, 9, 3, 32, 32) and not torch.equal(made[0], made[1])
    condition = pipe.prepare_latents(
        images[0] * 2 - 1, 1, 16, 32, 32, 9, torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0)
    )[1]
    seen = torch.cat([images[:1], torch.full((1, 8, 3, 32, 32), 0.5)], 1)  # grey, where there is no image
    assert torch.allclose(condition[:, 4:], model("taew2_1").encode(seen).transpose(1, 2), atol=CLOSE)


def test_a_whole_pipeline_is_saved_and_loaded(tmp_path: Path) -> None:
    case = CASES["wan2_1"]
    pipe = case.build(real(case.vae))
    pipe.vae = TaehvVae.from_taehv(model("taew2_1"), like=real(case.vae))
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.WanPipeline.from_pretrained(tmp_path, tokenizer=None, text_encoder=None)
    assert isinstance(loaded.vae, TaehvVae) and dict(loaded.vae.config)["spec"] == pipe.vae.config.spec
    assert torch.allclose(case.run(loaded), case.run(pipe), atol=1e-5)
    alone = TaehvVae.from_pretrained(tmp_path, subfolder="vae", torch_dtype=torch.bfloat16)
    assert alone.dtype == torch.bfloat16
    assert set(alone.state_dict()) == set(model("taew2_1").state_dict())
    half = diffusers.WanPipeline.from_pretrained(tmp_path, tokenizer=None, text_encoder=None, dtype=torch.bfloat16)
    assert half.vae.dtype == torch.bfloat16
    assert TaehvVae.from_pretrained(tmp_path / "vae", dtype=torch.bfloat16).dtype == torch.bfloat16
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingFileError, match="Copy it again"):
        diffusers.WanPipeline.from_pretrained(tmp_path, tokenizer=None, text_encoder=None)


def test_moved_weights_are_folded_anew() -> None:
    vae, raw = TaehvVae.from_taehv(model("taew2_1"), "taew2_1"), embeds(1, 16, 3, 4, 4)
    fine = vae.decode(raw).sample
    vae.to(torch.bfloat16)
    assert vae.dtype == torch.bfloat16
    coarse = vae.decode(raw.bfloat16()).sample
    assert coarse.dtype == torch.bfloat16
    assert 0 < (coarse.float() - fine).abs().mean() < 0.02
    vae.to(torch.float32)
    halved = {key: value / 2 for key, value in model("taew2_1").state_dict().items()}
    vae.load_state_dict(halved)
    assert not torch.allclose(vae.decode(raw).sample, fine, atol=0.05)


class Waker(ModelHook):
    """As enable_model_cpu_offload: it brings the weights when the VAE is called."""

    def __init__(self) -> None:
        self.calls = 0

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        module.to("cpu")
        return args, kwargs


def test_offloading_wakes_it() -> None:
    vae = TaehvVae.from_taehv(model("taew2_1"), "taew2_1")
    waker = Waker()
    add_hook_to_module(vae, waker)
    vae.encode(vae.decode(embeds(1, 16, 1, 4, 4)).sample)
    assert waker.calls == 2
    remove_hook_from_module(vae)
    cpu_offload(vae, torch.device("cpu"))  # as enable_sequential_cpu_offload: weights are there inside each layer alone
    with pytest.raises(ConfigError, match=r"use enable_model_cpu_offload\(\)"):
        vae.decode(embeds(1, 16, 1, 4, 4))


def counted(run: Callable[..., Tensor], sizes: list[int]) -> Callable[..., Tensor]:
    """The same, with the number of clips of each call and the size of its tiles noted."""

    def noted(model: Any, clips: Tensor, tile: int) -> Tensor:
        assert tile == 4
        sizes.append(len(clips))
        return run(model, clips, tile)

    return noted


def test_tiles_and_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyworld.interop.diffusers.TILE", 4)
    vae, raw = TaehvVae.from_taehv(model("taew2_1"), "taew2_1"), embeds(2, 16, 2, 6, 5)
    whole = vae.decode(raw).sample
    latents = vae.encode(whole).latent_dist.mode()
    made: dict[str, list[int]] = {"decode_tiled": [], "encode_tiled": []}
    for name, sizes in made.items():
        monkeypatch.setattr(f"tinyworld.interop.diffusers.{name}", counted(getattr(tiling, name), sizes))
    pipe = CASES["wan2_1"].build(vae)
    pipe.vae.enable_tiling(64, 64, 48.0, 48.0)  # as Wan's VAE takes them
    pipe.vae.enable_tiling(tile_sample_min_height=64)
    assert torch.allclose(vae.decode(raw).sample, whole, atol=1e-5)
    pipe.vae.enable_slicing()
    assert torch.allclose(vae.decode(raw).sample, whole, atol=1e-5)
    assert torch.allclose(vae.encode(whole).latent_dist.mode(), latents, atol=1e-4)
    assert made == {"decode_tiled": [2, 1, 1], "encode_tiled": [1, 1]}
    vae.disable_tiling()
    vae.disable_slicing()
    assert torch.equal(vae.decode(raw).sample, whole)
    assert made == {"decode_tiled": [2, 1, 1], "encode_tiled": [1, 1]}


def test_making_one_draws_nothing_and_leaves_the_model_as_it_is() -> None:
    own = formula_model(small_spec("taew2_1")).train()
    before = torch.random.get_rng_state()
    vae = TaehvVae.from_taehv(own, "taew2_1")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert own.training and all(weight.requires_grad for weight in own.parameters())
    assert not any(weight.requires_grad for weight in vae.parameters())


def test_what_a_file_says_is_enough(tmp_path: Path) -> None:
    model("taew2_1").save_pretrained(tmp_path, {"variant": "taew2_1", "latents": "raw"})
    vae = TaehvVae.from_pretrained(tmp_path)
    raw = embeds(1, 16, 2, 4, 4)
    direct = model("taew2_1").decode(raw.transpose(1, 2))
    assert torch.allclose(vae.decode(raw).sample.transpose(1, 2) / 2 + 0.5, direct, atol=CLOSE)
    vae.save_pretrained(tmp_path / "saved")
    other = TaehvVae.from_pretrained(tmp_path / "saved", latents="normalised", like=real("wan"))
    assert (other.config.latents, other.config.latents_mean) == ("normalised", real("wan").config.latents_mean)
    # the name of a repository that is a folder here
    assert TaehvVae.from_pretrained(tmp_path / "saved").config.latents == "raw"


def saved(folder: Path, **about: str) -> Path:
    model("taew2_1").save_pretrained(folder, about)
    return folder


def test_a_drop_in_with_a_tensor_missing_or_of_another_shape_is_refused(tmp_path: Path) -> None:
    """diffusers leaves such a tensor without values and decodes."""
    TaehvVae.from_taehv(model("taew2_1"), "taew2_1").save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    key = next(name for name in tensors if name.startswith("decoder") and name.endswith("weight"))
    for damaged in ({name: x for name, x in tensors.items() if name != key}, tensors | {key: tensors[key][:1].clone()}):
        save_file(damaged, file)
        with pytest.raises(WeightsError, match=rf"do not fit its config\.json: 1 tensor .*{key}"):
            TaehvVae.from_pretrained(tmp_path)
    file.unlink()
    with pytest.raises(MissingFileError, match=r"no diffusion_pytorch_model\.safetensors"):
        TaehvVae.from_pretrained(tmp_path)
    with pytest.raises(
        MissingFileError, match=r"no diffusion_pytorch_model\.fp16\.safetensors.*leave out variant='fp16'"
    ):
        TaehvVae.from_pretrained(tmp_path, variant="fp16")


def test_shards_and_number_types_are_read(tmp_path: Path) -> None:
    vae = TaehvVae.from_taehv(model("taew2_1"), "taew2_1")
    vae.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("diffusion_pytorch_model-*.safetensors"))
    assert len(shards) > 1
    again = TaehvVae.from_pretrained(tmp_path, device_map={"": "cpu"}, low_cpu_mem_usage=True)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in vae.state_dict().items())
    shards[0].unlink()
    with pytest.raises(MissingFileError, match=f"no {shards[0].name}"):
        TaehvVae.from_pretrained(tmp_path)
    vae.save_pretrained(tmp_path / "half", variant="fp16")
    assert TaehvVae.from_pretrained(tmp_path / "half", variant="fp16").dtype == torch.float32
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("[]")
    with pytest.raises(WeightsError, match="is no index of weight files"):
        TaehvVae.from_pretrained(tmp_path)


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "in" / "vae", variant="taew2_1")
    assert TaehvVae.from_pretrained(tmp_path / "in", subfolder="vae").config.kind == "wan"
    for given, match in [
        ({"typo": 1}, "takes no typo"),
        ({"use_safetensors": False}, "from safetensors alone"),
        ({"device_map": {"encoder": "cpu", "decoder": "cpu"}}, "lies on one device"),
        ({"quantization_config": object()}, "quantization_config is not for a TAEHV"),
    ]:
        with pytest.raises(ConfigError, match=match):
            TaehvVae.from_pretrained(tmp_path / "in" / "vae", **given)
    with pytest.raises(MissingFileError):
        TaehvVae.from_pretrained(tmp_path / "in" / "vae", subfolder="nothing")


def test_a_name_chosen_for_its_sizes_is_found_out(tmp_path: Path) -> None:
    """Wan 2.1's latents and HunyuanVideo's have the same shape."""
    taught = saved(tmp_path / "taught", variant="taew2_1", latents="scaled", teacher="AutoencoderKLHunyuanVideo")
    for given in ({}, {"variant": "taew2_1"}, {"like": real("wan")}):
        with pytest.raises(WeightsError, match="learned the latents of the reference VAE AutoencoderKLHunyuanVideo"):
            TaehvVae.from_pretrained(taught, **given)
    vae = TaehvVae.from_pretrained(taught, like=real("hunyuan"))
    assert (vae.config.kind, vae.config.latents) == ("hunyuan", "scaled")
    other = saved(tmp_path / "own", variant="taew2_1", latents="raw", teacher="MyVae")
    with pytest.raises(WeightsError, match="reference VAE MyVae.*diffusers has no such VAE"):
        TaehvVae.from_pretrained(other)
    unsaid = saved(tmp_path / "unsaid", variant="taew2_1", latents="raw")
    with pytest.raises(WeightsError, match="As taew2_1 this TAEHV speaks the latents of Wan"):
        TaehvVae.from_pretrained(unsaid, like=real("hunyuan"))
    assert TaehvVae.from_pretrained(unsaid, variant="taehv", like=real("hunyuan")).config.kind == "hunyuan"
    qwen = type("AutoencoderKLQwenImage", (type(real("wan")),), {})
    alike = object.__new__(qwen)
    alike.__dict__ = real("wan").__dict__
    assert (
        TaehvVae.from_pretrained(saved(tmp_path / "wan", teacher="AutoencoderKLWan"), like=alike).config.kind == "wan"
    )
    TaehvVae.from_taehv(model("taew2_1"), "taew2_1").save_pretrained(tmp_path / "drop_in")
    with pytest.raises(WeightsError, match="learned the latents of"):
        TaehvVae.from_pretrained(tmp_path / "drop_in", like=real("hunyuan"))


@pytest.mark.parametrize(
    ("name", "latents"), [("taehv", "normalised"), ("taew2_1", "scaled"), ("taecvx", "normalised")]
)
def test_forms_that_a_family_does_not_have(name: str, latents: str) -> None:
    with pytest.raises(ConfigError, match=f"latents='{latents}': latents of .* are stated as raw or"):
        TaehvVae.from_taehv(model(name), name, latents=latents)


def test_a_variant_names_the_family_of_a_model_in_its_own_widths(tmp_path: Path) -> None:
    saved(tmp_path / "small")
    assert TaehvVae.from_pretrained(tmp_path / "small", variant="taew2_1").config.kind == "wan"
    with pytest.raises(WeightsError, match=r"variant=taew2_2: .* another architecture.*can be taehv, taew2_1"):
        TaehvVae.from_pretrained(tmp_path / "small", variant="taew2_2")
    vae = TaehvVae.from_pretrained(tmp_path / "small", variant="taew2_1")
    vae.save_pretrained(tmp_path / "saved")
    assert TaehvVae.from_pretrained(tmp_path / "saved", variant="taew2_1").config.kind == "wan"
    with pytest.raises(ConfigError, match="variant=taehv, and .* of the kind wan"):
        TaehvVae.from_pretrained(tmp_path / "saved", variant="taehv")
    with pytest.raises(WeightsError, match=r"vae\.taehv is the TAEHV"):
        Taehv.from_pretrained(tmp_path / "saved")


def test_ltx_video_needs_a_model_that_learned_from_it(tmp_path: Path) -> None:
    """Public weights speak LTX-2's latents, of the same shape."""
    model("taeltx_2").save_pretrained(tmp_path / "a")
    with pytest.raises(WeightsError, match="public taeltx_2 and taeltx2_3 learned those of LTX-2"):
        TaehvVae.from_pretrained(tmp_path / "a", like=real("ltx"))
    model("taeltx_2").save_pretrained(tmp_path / "b", {"variant": "taeltx_2", "teacher": "AutoencoderKLLTXVideo"})
    assert TaehvVae.from_pretrained(tmp_path / "b", like=real("ltx")).config.kind == "ltx"


def test_latents_that_a_run_kept_and_nobody_named(tmp_path: Path) -> None:
    kept = saved(tmp_path, variant="taew2_1", recipe="mine")
    with pytest.raises(WeightsError, match="does not say in which form"):
        TaehvVae.from_pretrained(kept)
    assert TaehvVae.from_pretrained(kept, latents="raw").config.latents == "raw"


def test_own_latents_need_a_word(tmp_path: Path) -> None:
    model("taew2_1").save_pretrained(tmp_path, {"variant": "taew2_1", "latents": "own"})
    with pytest.raises(WeightsError, match="its latents are its own and no diffusion model speaks them"):
        TaehvVae.from_pretrained(tmp_path)
    assert TaehvVae.from_pretrained(tmp_path, latents="normalised").config.latents == "normalised"


def test_mistakes_are_told(tmp_path: Path) -> None:
    model("taew2_1").save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"Which diffusion model does this TAEHV belong to\?.*like=pipe\.vae.*taew2_1"
    ):
        TaehvVae.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match='Did you mean "taew2_1"'):
        TaehvVae.from_taehv(model("taew2_1"), "taew21")
    with pytest.raises(ConfigError, match=r"latents='normal' must be one of raw, scaled, normalised"):
        TaehvVae.from_taehv(model("taew2_1"), "taew2_1", latents="normal")
    with pytest.raises(ConfigError, match="diffusers has no pipeline for MiniMax H3"):
        TaehvVae.from_taehv(formula_model(small_spec("taeh3")), "taeh3")
    with pytest.raises(ConfigError, match=r"weight file alone.*like=pipe\.vae"):
        TaehvVae.from_taehv(model("taeltx_2"), "taeltx_2")
    with pytest.raises(WeightsError, match="16 channels, and the AutoencoderKLWan that it should replace has 48"):
        TaehvVae.from_taehv(model("taew2_1"), like=real("wan2_2"))
    with pytest.raises(ConfigError, match="cannot take the place of a Linear"):
        TaehvVae.from_taehv(model("taew2_1"), like=torch.nn.Linear(1, 1))
    with pytest.raises(MissingFileError):
        TaehvVae.from_pretrained(tmp_path / "nothing")
    assert set(FAMILIES) == set(VARIANTS)


def test_no_warning_is_left_in_a_plain_use() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = TaehvVae.from_taehv(model("taew2_1"), like=real("wan"))
        vae.encode(vae.decode(embeds(1, 16, 1, 4, 4)).sample)
