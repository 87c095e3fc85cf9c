"""Losses of the autoencoder."""

import math

import pytest
import torch

from tinyworld.losses.pixel import flicker_distance, latent_moments, pixel_distance


@pytest.mark.parametrize(("kind", "expected"), [("mse", 0.25), ("l1", 0.5), ("charbonnier", math.sqrt(0.2501) - 0.01)])
def test_pixel_distance_of_a_constant_error(kind, expected: float) -> None:  # type: ignore[no-untyped-def]
    target = torch.rand(2, 3, 3, 4, 4)
    assert pixel_distance(target + 0.5, target, kind).item() == pytest.approx(expected, rel=1e-5)


def test_shapes_must_agree_not_broadcast() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        pixel_distance(torch.zeros(2, 1), torch.zeros(2, 3), "mse")


@pytest.mark.parametrize("kind", ["mse", "l1", "charbonnier"])
def test_pixels_outside_the_unit_range_have_a_gradient(kind) -> None:  # type: ignore[no-untyped-def]
    made = torch.tensor([-0.7, 0.5, 1.8], requires_grad=True)
    pixel_distance(made, torch.tensor([0.2, 0.2, 0.2]), kind).backward()
    assert made.grad is not None and (made.grad != 0).all()


def test_flicker_ignores_constant_errors_and_sees_changing_ones() -> None:
    target = torch.rand(1, 6, 3, 4, 4)
    assert flicker_distance(target + 0.3, target, "mse").item() == pytest.approx(0, abs=1e-10)
    pulsing = target + 0.1 * (torch.arange(6) % 2)[None, :, None, None, None]
    assert flicker_distance(pulsing, target, "mse").item() == pytest.approx(0.01, rel=1e-4)
    assert flicker_distance(target[:, :1], target[:, :1], "mse").item() == 0


def test_latent_moments_are_least_at_unit_scale() -> None:
    torch.manual_seed(0)
    latents = torch.randn(8, 3, 16, 16, 16)
    at_unit = latent_moments(latents).item()
    assert at_unit == pytest.approx(0, abs=1e-3)
    for other in (latents * 2, latents * 0.3, latents + 1.5):
        assert latent_moments(other).item() > 0.1
    dead = latents.clone()
    dead[:, :, 3] = 0
    assert latent_moments(dead).item() > at_unit + 0.1 and math.isfinite(latent_moments(dead).item())
