"""Tiles with the exact border equal the whole picture; the border is exactly as wide as the network looks."""

import pytest
import torch

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.variants import VARIANTS
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.tiling import decode_tiled, decoder_halo, encode_tiled, encoder_halo


def latents_of(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 2, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_the_border_is_the_known_reach() -> None:
    assert {decoder_halo(spec) for spec in VARIANTS.values()} == {18}
    assert encoder_halo() == 18


@pytest.mark.parametrize("name", ["taew2_1", "taew2_2", "taew2_2_super", "taecvx"])
@pytest.mark.parametrize("optimised", [True, False])
@torch.no_grad()
def test_decoding(name: str, optimised: bool) -> None:
    model = formula_model(small_spec(name))
    latents = latents_of(model.spec.latent_channels, 22, 25)
    whole = model.decode(latents)
    made = decode_tiled(model.optimize() if optimised else model, latents, 21)
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)
    shorter = decode_tiled(model, latents, 13, num_frames=1)
    torch.testing.assert_close(shorter, whole[:, :1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["taew2_1", "taeh3"])
@torch.no_grad()
def test_encoding(name: str) -> None:
    model = formula_model(small_spec(name))
    size = model.spec.size_multiple
    frames = clip(6, 20 * size, 3 * size)
    made = encode_tiled(model, frames, 11)
    torch.testing.assert_close(made, model.encode(frames), atol=1e-5, rtol=0)


def positive(name: str) -> Taehv:
    """Nothing cancels and no ReLU closes: what a result depends on has a gradient."""
    model = formula_model(small_spec(name)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.02)
    return model


@pytest.mark.parametrize("name", ["taew2_1", "taew2_2_super"])
def test_the_border_is_not_wider_than_what_is_looked_at(name: str) -> None:
    model = positive(name)
    scale = model.spec.spatial_upscale
    latents = torch.ones(1, 1, model.spec.latent_channels, 41, 1, dtype=torch.float64, requires_grad=True)
    decoded = model.decode(latents, clamp=False)
    cell = decoded[..., 20 * scale : 21 * scale, :].sum()
    (gradient,) = torch.autograd.grad(cell, latents)
    seen = gradient[0, 0, 0, :, 0].nonzero().flatten()
    assert (seen.min(), seen.max()) == (2, 38)


def test_the_encoders_neither() -> None:
    model = positive("taew2_1")
    frames = torch.ones(1, 4, 3, 41 * 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.encode(frames)[..., 20, :].sum(), frames)
    seen = gradient[0, -1, 0, :, 0].nonzero().flatten() // 8
    assert (seen.min(), seen.max()) == (2, 37)  # strided convolutions look one pixel further up than down


def test_mistakes_are_refused() -> None:
    model = formula_model(small_spec("taew2_1"))
    with pytest.raises(ConfigError, match="at least 1"):
        decode_tiled(model, latents_of(16, 2, 2), 0)
    with pytest.raises(DataError, match="N L 16"):
        decode_tiled(model, latents_of(4, 2, 2), 8)
    with pytest.raises(DataError, match="multiples of 8"):
        encode_tiled(model, clip(4, 30, 32), 8)
