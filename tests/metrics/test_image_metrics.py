"""Picture metrics against formulas written out by hand, and the mistakes that they must refuse."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tinyworld.core.frames import group_positions
from tinyworld.core.variants import variant
from tinyworld.metrics import PSNR_CAP, flicker, image, mean_colour, psnr, psnr_by_position, ssim
from tinyworld.metrics.image import SSIM_WINDOW, STATIC_THRESHOLD

EVERY_METRIC = [psnr, ssim, flicker, lambda p, t: psnr_by_position(p, t, [k % 4 for k in range(t.shape[1])], 4)]


def clips(n: int = 2, t: int = 6, size: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(n, t, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_psnr_comes_from_the_error_of_the_whole_clip() -> None:
    target = torch.full((1, 2, 3, 16, 16), 0.5)
    prediction = target.clone()
    prediction[:, 0] += 0.1  # one frame off, one perfect: a mean of per-frame PSNR would be over 60 dB
    assert psnr(prediction, target).item() == pytest.approx(-10 * math.log10(0.01 / 2), abs=1e-5)


def test_each_clip_has_its_own_value() -> None:
    target = clips(3)
    prediction = target.clone()
    prediction[1] = (prediction[1] + 0.05).clamp(0, 1)
    values = psnr(prediction, target)
    assert values.shape == (3,) and values.dtype == torch.float64
    assert values[0] == values[2] == PSNR_CAP
    assert 25 < values[1] < 30


@pytest.mark.parametrize("shift", [1e-4, 1e-3, 0.02, 0.25])
def test_a_constant_shift_has_a_known_psnr(shift: float) -> None:
    target = clips() * 0.5
    assert psnr(target + shift, target)[0].item() == pytest.approx(-20 * math.log10(shift), abs=2e-2)


def test_predictions_are_clamped_before_they_are_judged() -> None:
    target = torch.ones(1, 2, 3, 16, 16)
    overshoot = target + 0.3
    assert psnr(overshoot, target).item() == PSNR_CAP
    assert ssim(overshoot, target).item() == pytest.approx(1)
    assert flicker(overshoot, target).item() == 0
    assert (overshoot == 1.3).all(), "the caller's tensor was changed"


def reference_ssim(x: Tensor, y: Tensor) -> float:
    """Wang et al. 2004 for one channel plane H W, window by window, borders reflected."""
    axis = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    bell = torch.exp(-(axis**2) / (2 * 1.5**2))
    weight = torch.outer(bell, bell) / bell.sum() ** 2
    half = SSIM_WINDOW // 2
    x, y = (F.pad(plane.double()[None, None], [half] * 4, mode="reflect")[0, 0] for plane in (x, y))
    c1, c2, values = 0.01**2, 0.03**2, []
    for row in range(x.shape[0] - 2 * half):
        for column in range(x.shape[1] - 2 * half):
            a, b = (plane[row : row + SSIM_WINDOW, column : column + SSIM_WINDOW] for plane in (x, y))
            mean_a, mean_b = (a * weight).sum(), (b * weight).sum()
            var_a = (weight * (a - mean_a) ** 2).sum()
            var_b = (weight * (b - mean_b) ** 2).sum()
            cov = (weight * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(torch.stack(values).mean())


def test_ssim_equals_the_formula_written_out() -> None:
    target = clips(1, 2, 13, seed=1)
    prediction = (target + 0.2 * (clips(1, 2, 13, seed=2) - 0.5)).clamp(0, 1)
    planes = [reference_ssim(prediction[0, t, c], target[0, t, c]) for t in range(2) for c in range(3)]
    assert ssim(prediction, target).item() == pytest.approx(sum(planes) / 6, abs=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 7, 30])
def test_ssim_of_a_large_picture_is_that_of_its_strips(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, target = clips(1, 2, 40), clips(1, 2, 40, seed=1)
    whole = ssim(prediction, target).item()
    monkeypatch.setattr(image, "_SSIM_VALUES", rows * 3 * 40)
    assert ssim(prediction, target).item() == pytest.approx(whole, abs=1e-7)


def test_ssim_does_not_depend_on_how_frames_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_SSIM_VALUES", 8 * 3 * 16 * 16)
    target, prediction = clips(1, 19, seed=1), clips(1, 19, seed=2)
    frames = torch.stack([ssim(prediction[:, t : t + 1], target[:, t : t + 1]) for t in range(19)])
    assert ssim(prediction, target).item() == pytest.approx(frames.mean().item(), abs=1e-7)


def test_ssim_refuses_pictures_below_its_window() -> None:
    small = clips(1, 2, 10)
    with pytest.raises(ValueError, match=r"at least 11 x 11 pixels, got 10 x 10"):
        ssim(small, small)
    assert ssim(clips(1, 2, 11), clips(1, 2, 11)).item() == pytest.approx(1)


def test_flicker_sees_pulsing_on_a_still_picture_and_nothing_on_a_copy() -> None:
    still = clips(1, 1).repeat(1, 8, 1, 1, 1) * 0.8
    pulsing = still.clone()
    pulsing[:, ::2] += 0.1
    assert flicker(still, still).item() == 0
    assert flicker(pulsing, still).item() == pytest.approx(0.1, abs=1e-6)
    assert flicker(still + 0.1, still).item() == pytest.approx(0, abs=1e-6), "a constant error does not flicker"


def test_flicker_looks_at_static_pixels_only() -> None:
    target = torch.zeros(1, 4, 3, 16, 16)
    target[:, 1::2, :, :8] = 0.8  # the upper half moves, the lower stands still
    prediction = torch.zeros_like(target)  # wrong on all that moves
    assert flicker(prediction, target).item() == 0
    prediction[:, 1::2, :, 8:] = 0.05
    assert flicker(prediction, target).item() == pytest.approx(0.05, abs=1e-6)


def test_two_levels_of_change_are_static_and_three_are_not() -> None:
    target = torch.zeros(1, 2, 3, 16, 16)
    target[:, 1, 0] = 3 / 255
    target[:, 1, :, :8] = 2 / 255
    prediction = target.clone()
    prediction[:, 1, :, 8:] += 0.5
    assert 2 / 255 < STATIC_THRESHOLD < 3 / 255
    assert flicker(prediction, target).item() == pytest.approx(0, abs=1e-6)


def test_flicker_takes_all_pixels_when_hardly_any_is_static() -> None:
    target = torch.zeros(1, 2, 3, 16, 16)
    target[:, 1] = 0.5
    target[:, 1, :, 0, :2] = 0  # 2 of 256 pixels: below 1 %
    prediction = target.clone()
    prediction[:, 1, :, 1:] += 0.1
    assert flicker(prediction, target).item() == pytest.approx(0.1 * 15 / 16, abs=1e-6)
    target[:, 1, :, 0, :3] = 0  # 3 of 256: enough
    prediction[:, 1, :, 0, 2] = 0
    assert flicker(prediction, target).item() == pytest.approx(0, abs=1e-6)


def test_one_frame_has_no_flicker_to_measure() -> None:
    assert torch.isnan(flicker(clips(2, 1), clips(2, 1))).all()


@given(period=st.integers(1, 8), places=st.lists(st.integers(0, 7), min_size=1, max_size=13), bad=st.integers(0, 12))
@settings(max_examples=40)
def test_an_error_shows_at_the_position_of_its_frame(period: int, places: list[int], bad: int) -> None:
    frames, positions = len(places), [place % period for place in places]
    bad %= frames
    target = torch.full((1, frames, 1, 2, 2), 0.5)
    prediction = target.clone()
    prediction[:, bad] = 0.6
    profile = psnr_by_position(prediction, target, positions, period)[0]
    for position in range(period):
        count = positions.count(position)
        if count == 0:
            assert torch.isnan(profile[position])
        elif position == positions[bad]:
            assert profile[position].item() == pytest.approx(-10 * math.log10(0.01 / count), abs=1e-4)
        else:
            assert profile[position] == PSNR_CAP


def test_the_plain_four_times_law_starts_at_position_three() -> None:
    target = torch.full((1, 9, 3, 16, 16), 0.5)
    prediction = target.clone()
    prediction[:, 0] = 0.6
    profile = psnr_by_position(prediction, target, group_positions(9, 3, variant("taehv")), 4)[0]
    assert profile.argmin() == 3


def test_period_one_is_plain_psnr() -> None:
    target, prediction = clips(seed=1), clips(seed=2)
    torch.testing.assert_close(
        psnr_by_position(prediction, target, [0] * target.shape[1], 1)[:, 0], psnr(prediction, target)
    )


@pytest.mark.parametrize(("change", "period"), [([], 0), ([], 4), ([0], 4), ([4], 4), ([-1], 4)])
def test_positions_fit_the_frames_and_the_period(change: list[int], period: int) -> None:
    """Too few, too many or out of range: always one entry off."""
    frames = clips()
    positions = [0] * frames.shape[1]
    wrong = positions + change if change == [0] else change + positions[1:]
    with pytest.raises(ValueError, match="one per frame"):
        psnr_by_position(frames, frames, wrong, period)


@pytest.mark.parametrize("metric", EVERY_METRIC)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x * 2 - 1, x), r"prediction must be in \[0, 1\].*\(x \+ 1\) / 2"),
        (lambda x: (x, x * 2 - 1), r"target must be in \[0, 1\].*\(x \+ 1\) / 2"),
        (lambda x: (x * 255, x), r"prediction.*divide by 255"),
        (lambda x: ((x * 255).byte(), x), r"prediction must hold floats.*divide 8-bit frames by 255"),
        (lambda x: (x, (x * 255).byte()), r"target must hold floats"),
        (lambda x: (x[:, :-1], x), "one shape"),
        (lambda x: (x[0], x[0]), "N T C H W"),
        (lambda x: (x[:, :0], x[:, :0]), "at least one value"),
        (lambda x: (x, x.clone().fill_(math.nan)), "not finite"),
    ],
)
def test_wrong_input_is_refused(metric, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(*change(clips()))


@pytest.mark.parametrize("metric", EVERY_METRIC)
def test_a_prediction_that_is_not_a_number_gives_nan_for_its_clip_only(metric) -> None:
    target = clips()
    prediction = target.clone()
    prediction[0] = math.nan
    values = metric(prediction, target)
    assert torch.isnan(values[0]).all()
    assert torch.isfinite(values[1]).all()


@pytest.mark.parametrize("metric", EVERY_METRIC)
def test_half_precision_gives_float64_close_to_full(metric) -> None:
    target, prediction = clips(seed=1), clips(seed=2)
    values = metric(prediction.bfloat16(), target.bfloat16())
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, metric(prediction, target), rtol=2e-2, atol=2e-3)


def test_mean_colour_is_constant_in_a_clip_and_keeps_its_mean() -> None:
    frames = clips(2, 3)
    flat = mean_colour(frames)
    assert flat.shape == frames.shape and flat.dtype == frames.dtype
    assert (flat == flat[:, :1, :, :1, :1]).all()
    torch.testing.assert_close(flat.mean(dim=(1, 3, 4)), frames.mean(dim=(1, 3, 4)))


def test_no_constant_colour_beats_the_mean_colour() -> None:
    frames = clips(1, 3)
    best = psnr(mean_colour(frames), frames)
    for shift in (-0.05, 0.05):
        assert psnr(mean_colour(frames) + shift, frames) < best


def test_mean_colour_refuses_bytes() -> None:
    with pytest.raises(ValueError, match="float clips"):
        mean_colour((clips() * 255).byte())


def test_ssim_needs_no_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None; import torch; from tinyworld.metrics import ssim;"
        "x = torch.rand(1, 1, 3, 16, 16); assert abs(ssim(x, x).item() - 1) < 1e-6"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
