"""Seraena's discriminator: agreement with the public reference, sizes, shapes."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tinyworld.losses.seraena.correction import normalise, raw_correction
from tinyworld.models.seraena import SeraenaDiscriminator

GAIN = 1.4
SMALL = (4, 4, 6, 8, 8, 8)


def formula_discriminator(group: int, latent_channels: int) -> SeraenaDiscriminator:
    """The golden cases' weights (../shared/golden/README.md) at full width."""
    model = SeraenaDiscriminator(group, latent_channels)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # BatchNorm's stay as they are initialised
                index = np.arange(1, parameter.numel() + 1, dtype=np.float64)
                wave = np.sin(index * 12.9898 + zlib.crc32(f"disc.{name}".encode()) % 997) * 43758.5453
                weight = (wave - np.floor(wave) - 0.5) * 2 * GAIN * np.sqrt(3 / np.prod(parameter.shape[1:]))
                parameter.copy_(torch.from_numpy(weight).reshape(parameter.shape))
    return model.eval()


@pytest.mark.shared
@pytest.mark.parametrize("group", [1, 3])
def test_golden(shared: Path, group: int) -> None:
    golden = load_file(shared / f"golden/seraena_g{group}.safetensors")
    model = formula_discriminator(group, golden["context"].shape[1])
    with torch.no_grad():
        for kind in ("real", "fake"):
            scores = model(golden[kind], golden["context"])
            torch.testing.assert_close(scores, golden[f"scores_{kind}"], atol=1e-4, rtol=0)
    clips = {kind: golden[kind].unflatten(1, (group, 3)) for kind in ("real", "fake", "correction")}
    raw = raw_correction(model, clips["real"], clips["fake"], golden["context"][:, None], group)
    assert torch.cosine_similarity(raw.flatten(), golden["correction"].flatten(), dim=0) >= 0.9999
    direction, _ = normalise(raw)
    assert torch.cosine_similarity(direction.flatten(1), golden["correction"].flatten(1)).min() >= 0.9999


def test_parameters_of_the_public_network() -> None:
    with torch.device("meta"):
        model = SeraenaDiscriminator(group=3, latent_channels=16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_491_456
    assert model.state_dict()["blocks.0.0.weight"].shape == (64, 25, 3, 3)
    assert model.state_dict()["proj.5.weight"].shape == (1, 512, 1, 1)


@pytest.mark.parametrize("ratio", [8, 16, 32])
@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 32)])
def test_context_of_any_compression(ratio: int, height: int, width: int) -> None:
    model = SeraenaDiscriminator(2, 5, SMALL).eval()
    images, context = torch.rand(2, 6, height, width), torch.randn(2, 5, height // ratio, width // ratio)
    scores = model(images, context)
    assert scores.shape == (2, 6, height // 8, width // 8)
    assert not torch.equal(scores, model(images, context.flip(0)))


def test_any_size_of_whole_scores_and_no_other() -> None:
    model = SeraenaDiscriminator(1, 4, SMALL).eval()
    assert model(torch.rand(1, 3, 24, 40), torch.randn(1, 4, 3, 5)).shape == (1, 6, 3, 5)
    with pytest.raises(ValueError, match="multiples of 8"):
        model(torch.rand(1, 3, 24, 36), torch.randn(1, 4, 3, 5))


@pytest.mark.parametrize(
    ("images", "context"),
    [((2, 3, 16, 16), (2, 4, 2, 2)), ((2, 9, 16, 16), (2, 5, 2, 2)), ((2, 9, 16, 16), (1, 4, 2, 2))],
)
def test_shapes_that_do_not_fit_are_refused(images: tuple[int, ...], context: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the discriminator takes"):
        SeraenaDiscriminator(3, 4, SMALL)(torch.rand(images), torch.randn(context))
