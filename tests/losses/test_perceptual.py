"""Perceptual losses: LPIPS with a random backbone, gradient magnitude similarity against its formula."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models.test_lpips import torchvision_state
from tinyworld.losses import perceptual
from tinyworld.losses.perceptual import gms_distance, lpips_distance
from tinyworld.models.lpips import LPIPS


def clips(n: int = 2, t: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(n, t, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LPIPS:
    path: Path = tmp_path_factory.mktemp("backbone") / "alexnet.pth"
    torch.save(torchvision_state("alex"), path)
    return LPIPS(path, "alex")


def test_lpips_is_the_mean_over_all_frames(network: LPIPS) -> None:
    predicted, target = clips(seed=1), clips(seed=2)
    expected = network(predicted.flatten(0, 1), target.flatten(0, 1)).mean()
    for chunk in (1, 4, 8):
        distance = lpips_distance(network, predicted, target, chunk)
        assert distance.shape == () and distance.item() == pytest.approx(expected.item(), rel=1e-5)


def test_chunks_do_not_change_the_gradient_of_lpips(network: LPIPS) -> None:
    predicted, target = (clips(seed=1) * 1.4 - 0.2).requires_grad_(), clips(seed=2)
    plain = network(predicted.flatten(0, 1), target.flatten(0, 1), chunk=6).mean()
    (expected,) = torch.autograd.grad(plain, predicted)
    (found,) = torch.autograd.grad(lpips_distance(network, predicted, target, chunk=4), predicted)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_lpips_moves_pixels_outside_the_unit_range(network: LPIPS) -> None:
    predicted = (clips(1, 2, seed=1) * 3 - 1).requires_grad_()
    lpips_distance(network, predicted, clips(1, 2, seed=2)).backward()
    assert predicted.grad is not None
    for outside in (predicted < 0, predicted > 1):
        assert (predicted.grad[outside] != 0).float().mean() > 0.99


def test_lpips_never_holds_more_than_a_chunk_of_features(network: LPIPS) -> None:
    """The first layer sees two frames at a time, prediction and target; the prediction again in the backward pass."""
    seen: list[int] = []
    handle = network.features[0].register_forward_hook(lambda _layer, inputs, _made: seen.append(len(inputs[0])))
    distance = lpips_distance(network, clips(1, 5, seed=1).requires_grad_(), clips(1, 5, seed=2), chunk=2)
    forward = list(seen)
    distance.backward()
    handle.remove()
    assert forward == [2, 2, 2, 2, 1, 1]
    assert len(seen) == 2 * len(forward) and max(seen) == 2


def test_lpips_refuses_other_shapes_and_small_pictures(network: LPIPS) -> None:
    with pytest.raises(ValueError, match="at least 31 x 31"):
        lpips_distance(network, clips(size=30), clips(size=30))
    with pytest.raises(ValueError, match="two N T 3 H W clips"):
        lpips_distance(network, clips(1), clips(2))
    with pytest.raises(ValueError, match="two N T 3 H W clips"):
        lpips_distance(network, clips()[0], clips()[0])


def smoothed(frames: Tensor, times: int) -> Tensor:
    pictures = frames.flatten(0, 1)
    for _ in range(times):
        pictures = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return pictures.view(frames.shape)


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (64, 40)])
def test_gms_equals_the_formula_written_out(size: tuple[int, int]) -> None:
    """Reference in float64 with convolutions, straight from the paper, at three scales."""
    x, y = (torch.rand(4, 3, *size, generator=torch.Generator().manual_seed(k)).double() for k in (1, 2))
    kernel = torch.tensor([[1.0, 0, -1]] * 3).double() / 3
    kernels, weights = torch.stack([kernel, kernel.T])[:, None], torch.tensor([0.299, 0.587, 0.114]).double()
    pairs, expected = [torch.einsum("nchw,c->nhw", z, weights)[:, None] for z in (x, y)], 0.0
    for _ in range(3):
        a, b = (functional.conv2d(z, kernels).square().sum(1).sqrt() for z in pairs)
        expected += float(((2 * a * b + 0.0026) / (a**2 + b**2 + 0.0026)).mean()) / 3
        pairs = [functional.avg_pool2d(z, 2) for z in pairs]
    found = gms_distance(x.view(2, 2, 3, *size).float(), y.view(2, 2, 3, *size).float())
    assert found.shape == () and found.item() == pytest.approx(1 - expected, rel=1e-3)


def test_gms_is_zero_for_equal_clips_and_grows_with_blur() -> None:
    target = clips(2, 2, 64)
    values = [gms_distance(smoothed(target, times), target).item() for times in range(5)]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert all(nearer < farther for nearer, farther in pairwise(values))


def test_lost_faint_detail_weighs_more_in_gms_than_in_a_squared_error() -> None:
    """Losing a texture of a tenth of the contrast costs a squared error 100 times less, here 10 times."""
    texture, grey = clips(1, 1, 64) - 0.5, torch.full((1, 1, 3, 64, 64), 0.5)
    strong, faint = texture + grey, texture / 10 + grey
    assert functional.mse_loss(grey, strong) / functional.mse_loss(grey, faint) > 90
    assert gms_distance(grey, strong) / gms_distance(grey, faint) < 15


def test_gms_moves_pixels_outside_the_unit_range() -> None:
    predicted = (clips(1, 2, seed=1) * 3 - 1).requires_grad_()
    target = (predicted.detach() * 0.7).clamp(0, 1)
    gms_distance(predicted, target).backward()
    assert predicted.grad is not None and torch.isfinite(predicted.grad).all()
    for outside in (predicted < 0, predicted > 1):
        assert (predicted.grad[outside] != 0).float().mean() > 0.99


@pytest.mark.parametrize("made", [0.0, 0.5, 1.0, -3.0])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (64, 40)])
def test_gms_of_flat_clips_has_a_finite_gradient(made: float, size: tuple[int, int]) -> None:
    predicted = torch.full((1, 1, 3, *size), made, requires_grad=True)
    distance = gms_distance(predicted, torch.full((1, 1, 3, *size), 0.5))
    distance.backward()
    assert distance.item() > -1e-6 and predicted.grad is not None and torch.isfinite(predicted.grad).all()


def test_gms_of_opposite_clips_has_a_finite_gradient() -> None:
    target = clips(1, 2, 64)
    predicted = (1 - target).requires_grad_()
    gms_distance(predicted, target).backward()
    assert predicted.grad is not None and torch.isfinite(predicted.grad).all()


def test_gms_is_computed_in_fp32() -> None:
    predicted, target = clips(seed=1).bfloat16(), clips(seed=1) * 0.9
    expected = gms_distance(predicted.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        found = gms_distance(predicted, target)
    assert found.dtype == torch.float32 and found.item() == expected.item()


def test_parts_change_neither_gms_nor_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, target = smoothed(clips(2, 4, seed=1), 1).requires_grad_(), clips(2, 4, seed=1)
    whole = gms_distance(predicted, target)
    (expected,) = torch.autograd.grad(whole, predicted)
    monkeypatch.setattr(perceptual, "_VALUES", 3 * 3 * 32 * 32)
    parts = gms_distance(predicted, target)
    (found,) = torch.autograd.grad(parts, predicted)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_gms_refuses_other_shapes_and_small_pictures() -> None:
    with pytest.raises(ValueError, match="at least 16 x 16"):
        gms_distance(clips(size=15), clips(size=15))
    with pytest.raises(ValueError, match="two N T 3 H W clips"):
        gms_distance(clips(1), clips(2))
    with pytest.raises(ValueError, match="two N T 3 H W clips"):
        gms_distance(clips()[0], clips()[0])
    with pytest.raises(ValueError, match="two N T 3 H W clips"):
        gms_distance(clips()[:, :, :1], clips()[:, :, :1])
