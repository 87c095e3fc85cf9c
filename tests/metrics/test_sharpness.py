"""Sharpness and GMSD: flat and identical clips, hand-computed pictures, blur, noise, chunks, refusals."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tinyworld.metrics import sharpness as module
from tinyworld.metrics.sharpness import gmsd, sharpness

METRICS = [sharpness, gmsd]


def clips(n: int = 2, t: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    """Smooth shapes with fine detail on them, in [0.1, 0.9]."""
    noise = torch.rand(n * t, 3, size, size, generator=torch.Generator().manual_seed(seed))
    coarse = functional.interpolate(noise[..., ::8, ::8], size=(size, size), mode="bilinear")
    return (0.1 + 0.8 * (0.6 * coarse + 0.4 * noise)).view(n, t, 3, size, size)


def blurred(frames: Tensor, times: int) -> Tensor:
    pictures = frames.flatten(0, 1)
    for _ in range(times):
        pictures = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return pictures.view(frames.shape)


def grey(picture: Tensor) -> Tensor:
    """H W to a clip 1 1 3 H W of equal channels."""
    return picture.expand(1, 1, 3, *picture.shape)


def test_identical_clips_are_perfect() -> None:
    frames = clips()
    assert sharpness(frames, frames).tolist() == [1, 1]
    assert gmsd(frames, frames).tolist() == pytest.approx([0, 0], abs=1e-7)
    assert sharpness(frames, frames).dtype == gmsd(frames, frames).dtype == torch.float64


def test_blur_lowers_sharpness_and_raises_gmsd() -> None:
    target = clips()
    made = [blurred(target, times) for times in range(6)]
    assert (torch.stack([sharpness(p, target) for p in made]).diff(dim=0) < 0).all()
    assert (torch.stack([gmsd(p, target) for p in made]).diff(dim=0) > 0).all()


def test_detail_that_is_exaggerated_is_too_sharp() -> None:
    target = clips()
    low = blurred(target, 1)
    assert (sharpness((target + 0.3 * (target - low)).clamp(0, 1), target) > 1).all()


def test_sharpness_is_the_ratio_of_the_amplitudes_of_a_checkerboard() -> None:
    """The low pass removes the checkerboard completely, so all of it is detail."""
    board = torch.ones(16, 16)
    board[::2, 1::2] = board[1::2, ::2] = -1
    made, wanted = grey(0.5 + 0.1 * board), grey(0.5 + 0.2 * board)
    expected = math.sqrt((0.1**2 + 1 / 12 / 255**2) / (0.2**2 + 1 / 12 / 255**2))
    assert sharpness(made, wanted).item() == pytest.approx(expected, rel=1e-5)


def test_sharpness_of_one_bright_pixel_by_hand() -> None:
    """A unit impulse leaves 1 - w at its place and -w elsewhere, w the outer product of 1 4 6 4 1 over 256."""
    picture = torch.zeros(16, 16)
    picture[8, 8] = 1
    row = torch.tensor([1, 4, 6, 4, 1]).double() / 16
    squares = float((row.square().sum()) ** 2) + 1 - 2 * (6 / 16) ** 2
    made, wanted = torch.zeros(1, 1, 3, 16, 16), grey(picture)
    floor = 1 / 12 / 255**2
    assert sharpness(made, wanted).item() == pytest.approx(math.sqrt(floor / (squares / 256 + floor)), rel=1e-4)


def test_sharpness_weighs_green_most() -> None:
    target = clips(1)
    values = []
    for channel in range(3):
        made = target.clone()
        made[:, :, channel] = blurred(target, 3)[:, :, channel]
        values.append(sharpness(made, target).item())
    assert values[1] < values[0] < values[2] < 1


def test_flat_clips_are_as_sharp_as_each_other() -> None:
    flat = torch.full((1, 2, 3, 16, 16), 0.3)
    assert sharpness(flat, flat + 0.4).item() == pytest.approx(1)
    assert gmsd(flat, flat).item() == 0


def test_noise_in_a_flat_clip_is_too_sharp_but_finite() -> None:
    flat = torch.full((1, 2, 3, 16, 16), 0.3)
    value = sharpness(clips(1, 2, 16), flat).item()
    assert 10 < value < 1000


def test_gmsd_of_a_small_picture_by_hand() -> None:
    """4 x 4 pixels become 2 x 2 after the means: 0.2 over 0.6 on the left, 0 on the right and all around.

    The four pixels have the Prewitt sums below; the target is black, whose gradients are 0, so that each similarity is
    T / (m² + T).
    """
    picture = torch.zeros(4, 4)
    picture[:, :2] = torch.tensor([0.2, 0.2, 0.6, 0.6])[:, None]
    values = []
    for across, down in [(0.0, 0.6), (0.8, 0.6), (0.0, -0.2), (0.8, -0.2)]:
        magnitude = math.hypot(across, down) / 3
        values.append(0.0026 / (magnitude**2 + 0.0026))
    expected = torch.tensor(values).double().std().item()
    assert gmsd(grey(picture), torch.zeros(1, 1, 3, 4, 4)).item() == pytest.approx(expected, rel=1e-4)


def test_gmsd_is_symmetric_and_the_mean_over_frames() -> None:
    target, made = clips(1, 4), blurred(clips(1, 4), 2)
    made[:, 2] = target[:, 2]
    torch.testing.assert_close(gmsd(made, target), gmsd(target, made))
    frames = torch.cat([gmsd(made[:, k : k + 1], target[:, k : k + 1]) for k in range(4)])
    assert gmsd(made, target).item() == pytest.approx(frames.mean().item())
    assert frames[2] < 1e-6 < frames[1]


@pytest.mark.parametrize("metric", METRICS)
def test_chunks_change_nothing(metric, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    target = clips(3, 5)
    made = blurred(target, 2)
    whole = metric(made, target)
    monkeypatch.setattr(module, "_VALUES", 2 * 32 * 32)
    torch.testing.assert_close(metric(made, target), whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(metric(made[1:2], target[1:2])[0], whole[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_overshoot_is_clamped_and_nan_is_passed_on(metric) -> None:  # type: ignore[no-untyped-def]
    target = (clips() * 2 - 0.5).clamp(0, 1)
    made = target.clone()
    made[target == 1] = 1.3
    made[target == 0] = -0.2
    torch.testing.assert_close(metric(made, target), metric(target, target))
    made[0, 1, 0, 3, 3] = math.nan
    values = metric(made, target)
    assert math.isnan(values[0]) and not math.isnan(values[1])


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_ranges_shapes_and_sizes_are_refused(metric) -> None:  # type: ignore[no-untyped-def]
    target = clips()
    with pytest.raises(ValueError, match="divide by 255"):
        metric(target * 255, target)
    with pytest.raises(ValueError, match="one shape"):
        metric(target[:1], target)
    with pytest.raises(ValueError, match="RGB pictures of at least 4 x 4"):
        metric(target[:, :, :1], target[:, :, :1])
    with pytest.raises(ValueError, match="3 channels of 3 x 32"):
        metric(target[..., :3, :], target[..., :3, :])
    assert metric(target[..., :4, :4], target[..., :4, :4]).shape == (2,)
