"""Every kind against the diffusers model it wraps: latents, conventions, pictures, features, precision."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.teachers import KINDS, build_vae, make_teacher
from tinyworld.core.errors import ConfigError, DataError, FramePlanError, TrainingError, WeightsError
from tinyworld.models.teachers import Convention, Posterior, Teacher, open_teacher
from tinyworld.models.teachers.facts import SUPPORTED


def clips(teacher: Teacher, n: int = 1, frames: int = 9, seed: int = 0) -> Tensor:
    """Clips of 1×2 latent cells; 2×3 for LTX-2, whose decoder's reflecting borders need two."""
    rows = 2 if teacher.facts.kind == "ltx2" else 1
    size = (rows * teacher.facts.spatial_compression, (rows + 1) * teacher.facts.spatial_compression)
    return torch.rand(n, frames, 3, *size, generator=torch.Generator().manual_seed(seed))


def of(teachers: dict[str, Path], kind: str, convention: Convention | None = None) -> Teacher:
    return open_teacher(teachers[kind], dtype=torch.float32, convention=convention)


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_those_of_diffusers_in_the_pipelines_convention(teachers: dict[str, Path], kind: str) -> None:
    """The formulas of the diffusers pipelines, written out once more: see pipeline_wan, pipeline_ltx, …"""
    vae = build_vae(kind)
    default = of(teachers, kind)
    frames = clips(default)
    with torch.no_grad():
        theirs = vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist
    mean, std = theirs.mean.transpose(1, 2), theirs.std.transpose(1, 2)

    def per_channel(values: object) -> Tensor:
        return torch.as_tensor(values).view(-1, 1, 1)

    formulas = {"raw": (0.0, 1.0)}
    if kind.startswith("wan"):
        formulas["normalised"] = (per_channel(vae.config.latents_mean), 1 / per_channel(vae.config.latents_std))
    elif kind.startswith("ltx"):
        inverse = vae.config.scaling_factor / per_channel(vae.latents_std)
        formulas["normalised"] = (per_channel(vae.latents_mean), inverse)
    else:
        formulas["scaled"] = (0.0, vae.config.scaling_factor)
    assert set(formulas) == set(SUPPORTED[KINDS[kind][0]].conventions) and default.convention in formulas
    for convention, (shift, scale) in formulas.items():
        teacher = of(teachers, kind, convention)
        assert teacher.convention == teacher.facts.convention == convention
        ours = teacher.encode(frames)
        assert ours.mean.shape[:3] == (1, teacher.facts.latent_count(9), teacher.facts.latent_channels)
        assert ours.mean.dtype == ours.logvar.dtype == torch.float32 and not ours.mean.requires_grad
        torch.testing.assert_close(ours.mean, (mean - shift) * scale, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.logvar.div(2).exp(), std * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_decode_undoes_the_convention(teachers: dict[str, Path], kind: str) -> None:
    vae, teacher = build_vae(kind), of(teachers, kind)
    raw = of(teachers, kind, "raw").encode(clips(teacher)).mean
    with torch.no_grad():
        theirs = vae.decode(raw.transpose(1, 2)).sample.transpose(1, 2)
    ours = teacher.decode(teacher.encode(clips(teacher)).mean)
    assert ours.shape == clips(teacher).shape and ours.dtype == torch.float32 and not ours.requires_grad
    torch.testing.assert_close(ours, (theirs + 1) / 2, rtol=1e-3, atol=1e-4)


def test_cogvideox_even_latents_come_back_whole(teachers: dict[str, Path]) -> None:
    teacher = of(teachers, "cogvideox")
    frames = clips(teacher, frames=16)
    posterior = teacher.encode(frames)
    assert posterior.mean.shape[1] == 4
    assert teacher.decode(posterior.mean).shape == frames.shape


def test_shift_factor_is_taken_off_before_scaling(tmp_path: Path) -> None:
    path = make_teacher(tmp_path, "cogvideox", shift_factor=0.25, scaling_factor=0.7)
    raw, scaled = (open_teacher(path, dtype=torch.float32, convention=c) for c in ("raw", "scaled"))
    frames = clips(raw)
    torch.testing.assert_close(scaled.encode(frames).mean, (raw.encode(frames).mean - 0.25) * 0.7)


def test_a_convention_without_constants_is_refused(teachers: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"'normalised' latents.*raw or scaled, and raw is the default"):
        of(teachers, "cogvideox", "normalised")


def test_unusable_constants_are_refused(tmp_path: Path) -> None:
    short = make_teacher(tmp_path / "short", "wan", latents_mean=[0.0] * 4)
    with pytest.raises(WeightsError, match="4 and 16 values"):
        open_teacher(short)
    zero = make_teacher(tmp_path / "zero", "wan", latents_std=[0.0] * 16)
    with pytest.raises(WeightsError, match="every latents_std must be positive"):
        open_teacher(zero)
    assert open_teacher(zero, convention="raw").convention == "raw"


def test_sample_is_mean_plus_std_times_noise() -> None:
    mean, logvar, noise = (
        torch.full((1, 1, 2, 1, 1), value) for value in (3.0, 2 * torch.log(torch.tensor(0.5)).item(), 2.0)
    )
    torch.testing.assert_close(Posterior(mean, logvar).sample(noise), torch.full_like(mean, 4.0))


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_encoders_activations_with_gradient(teachers: dict[str, Path], kind: str) -> None:
    teacher = of(teachers, kind)
    frames = clips(teacher, n=2).requires_grad_()
    first, *stages = features = teacher.features(frames)
    assert len(stages) >= 4 and all(len(feature) == 2 and feature.isfinite().all() for feature in features)
    assert first.shape[1] == 9 and stages[-1].shape[1] == teacher.facts.latent_count(9)
    step = teacher.facts.spatial_compression
    assert tuple(n * step for n in stages[-1].shape[3:]) == tuple(frames.shape[3:])
    conv_in = teacher.vae.encoder.conv_in
    if kind in ("wan", "hunyuan"):  # encoders that see pixels: chunks joined in time are what one pass gives
        whole = conv_in(frames.transpose(1, 2) * 2 - 1)
        torch.testing.assert_close(first, whole.transpose(1, 2), rtol=1e-4, atol=1e-5)
    sum(feature.square().mean() for feature in features).backward()
    assert frames.grad is not None and (frames.grad.flatten(2).abs().sum(dim=2) > 0).all()
    assert not any(module._forward_hooks for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("kind", ["cogvideox", "wan"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close(teachers: dict[str, Path], kind: str, dtype: torch.dtype) -> None:
    exact, teacher = of(teachers, kind), open_teacher(teachers[kind], dtype=dtype)
    assert {p.dtype for p in teacher.parameters()} == {dtype} and teacher.shift.dtype == torch.float32
    frames = clips(teacher).requires_grad_()
    posterior = teacher.encode(frames)
    assert posterior.mean.dtype == torch.float32
    error = (posterior.mean - exact.encode(frames).mean).pow(2).mean().sqrt() / exact.encode(frames).mean.std()
    assert error < 0.1
    features = teacher.features(frames)
    assert {feature.dtype for feature in features} == {torch.float32}
    sum(feature.mean() for feature in features).backward()
    assert frames.grad is not None and frames.grad.isfinite().all()


def test_autocast_around_it_changes_nothing(teachers: dict[str, Path]) -> None:
    teacher = of(teachers, "wan")
    frames = clips(teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = teacher.encode(frames).mean, *teacher.features(frames)
    outside = teacher.encode(frames).mean, *teacher.features(frames)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_it_stays_frozen(teachers: dict[str, Path]) -> None:
    teacher = of(teachers, "hunyuan")
    nn.Sequential(teacher).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("kind", ["cogvideox", "hunyuan1_5", "ltx"])
def test_slicing_changes_nothing(teachers: dict[str, Path], kind: str) -> None:
    teacher, sliced = of(teachers, kind), open_teacher(teachers[kind], dtype=torch.float32, slicing=True)
    frames = clips(teacher, n=2)
    latents = teacher.encode(frames).mean
    torch.testing.assert_close(sliced.encode(frames).mean, latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sliced.decode(latents), teacher.decode(latents), rtol=1e-4, atol=1e-5)


def test_tiling_cuts_large_frames(teachers: dict[str, Path]) -> None:
    teacher, tiled = of(teachers, "cogvideox"), open_teacher(teachers["cogvideox"], dtype=torch.float32, tiling=True)
    small, large = clips(teacher), torch.rand(1, 1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(tiled.encode(small).mean, teacher.encode(small).mean)
    latents, whole = tiled.encode(large).mean, teacher.encode(large).mean
    assert latents.shape == whole.shape and not torch.equal(latents, whole)
    assert tiled.decode(latents).shape == large.shape
    assert [f.shape for f in tiled.features(large)] == [f.shape for f in teacher.features(large)]
    assert tiled.vae.use_tiling


def test_a_wrong_declared_compression_shows_under_tiling(tmp_path: Path) -> None:
    """Wan 2.2 whose config says 8: only diffusers' tiling believes it."""
    path = make_teacher(tmp_path, "wan2_2", scale_factor_spatial=8)
    teacher = open_teacher(path, dtype=torch.float32, tiling=True)
    with pytest.raises(WeightsError, match="declares another compression"):
        teacher.decode(torch.zeros(1, 1, 48, 40, 2))


def test_ltx_decoders_with_timestep_and_noise_are_repeatable(tmp_path: Path) -> None:
    path = make_teacher(tmp_path, "ltx", timestep_conditioning=True, decoder_inject_noise=(True,) * 5)
    state = {name: p for name, p in open_teacher(path).named_parameters() if "per_channel_scale" in name}
    assert state, "no layer adds noise"
    teacher = open_teacher(path, dtype=torch.float32)
    for name, parameter in teacher.named_parameters():
        if "per_channel_scale" in name:
            parameter.fill_(1.0)
    before = torch.get_rng_state()
    latents = torch.randn(2, 2, 128, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.decode(latents), teacher.decode(latents))
    assert torch.equal(torch.get_rng_state(), before)


def test_clips_that_do_not_fit(teachers: dict[str, Path]) -> None:
    teacher = of(teachers, "wan")
    for call in (teacher.encode, teacher.features):
        with pytest.raises(FramePlanError, match="9 or 13"):
            call(torch.rand(1, 12, 3, 16, 16))
        with pytest.raises(DataError, match=r"height=20 .*16 or 24 \(key: data.height\)"):
            call(torch.rand(1, 9, 3, 20, 16))
        with pytest.raises(ValueError, match="N T 3 H W"):
            call(torch.rand(1, 3, 9, 16, 16))
    with pytest.raises(ValueError, match="N L 16 h w"):
        teacher.decode(torch.rand(1, 16, 3, 2, 2))


def test_latents_that_are_not_finite_stop_the_run(teachers: dict[str, Path]) -> None:
    teacher = open_teacher(teachers["wan"], dtype=torch.float16)
    teacher.vae.quant_conv.bias.fill_(float("inf"))  # diffusers would clamp an infinite log variance to 20
    with pytest.raises(TrainingError, match=r"computing in float16.*teacher.ref_vae_dtype"):
        teacher.encode(clips(teacher))
    with pytest.raises(TrainingError, match="the fault lies before the teacher"):
        teacher.encode(clips(teacher) * float("nan"))


def test_other_precisions_are_refused(teachers: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"float64.*teacher.ref_vae_dtype"):
        open_teacher(teachers["wan"], dtype=torch.float64)
