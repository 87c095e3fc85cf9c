"""Losses of depth, points and cameras: against values by hand, masks, edge cases, independence of the batching."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tinyworld.losses import regression
from tinyworld.losses.geometry import Terms, camera_loss, depth_terms, point_terms, temporal_change
from tinyworld.losses.regression import masked_difference, spatial_gradient, trimmed_mean

Scene = tuple[Tensor, Tensor, Tensor, Tensor]


def scene(kind: str, b: int = 3, t: int = 3, h: int = 24, w: int = 20, seed: int = 0) -> Scene:
    """Prediction, confidence, target and mask; the clips have different numbers of valid pixels."""
    g = torch.Generator().manual_seed(seed)
    shape = (b, t, h, w) if kind == "depth" else (b, t, h, w, 3)
    target = torch.rand(shape, generator=g) + 0.5
    predicted = target + 0.1 * torch.randn(shape, generator=g)
    confidence = 1 + torch.rand(b, t, h, w, generator=g)
    mask = torch.rand(b, t, h, w, generator=g) < torch.linspace(0.3, 0.9, b)[:, None, None, None]
    return predicted, confidence, target, mask


TERMS: dict[str, Callable[..., Terms]] = {"depth": depth_terms, "points": point_terms}
kinds = pytest.mark.parametrize("kind", ["depth", "points"])


def test_terms_of_a_constant_error_by_hand() -> None:
    """All errors 0.5, no differences between neighbours, confidence 2: 0.5 · 2 − 0.2 ln 2, 0.5, 0, 0."""
    target = torch.rand(2, 3, 12, 12) + 1
    full = torch.ones_like(target, dtype=torch.bool)
    terms = depth_terms(target + 0.5, torch.full_like(target, 2.0), target, full)
    expected = (1.5 - 0.2 * math.log(2), 0.5, 1 - 0.2 * math.log(2), 0.0, 0.0)
    assert [float(x) for x in terms] == pytest.approx(expected, abs=1e-5)
    points = torch.rand(2, 3, 12, 12, 3)
    shifted = points + torch.tensor([0.3, 0.0, -0.4])
    terms = point_terms(shifted, torch.full((2, 3, 12, 12), 2.0), points, full, gamma=3.0, alpha=0.5)
    expected = (3.5 - 0.5 * math.log(2), 0.5, 3 - 0.5 * math.log(2), 0.0, 0.0)
    assert [float(x) for x in terms] == pytest.approx(expected, abs=1e-5)


def test_the_confidence_that_costs_least_is_alpha_over_the_error() -> None:
    target = torch.ones(1, 1, 12, 12)
    mask = target.bool()
    confidence = torch.full_like(target, 1.7).requires_grad_()
    for _ in range(60):
        (slope,) = torch.autograd.grad(depth_terms(target + 0.1, confidence, target, mask).loss, confidence)
        confidence = (confidence - 1000 * slope).detach().requires_grad_()
    torch.testing.assert_close(confidence.detach(), torch.full_like(target, 2.0), rtol=1e-3, atol=0)


@kinds
def test_a_batch_is_worth_the_mean_of_its_clips(kind: str) -> None:
    data = scene(kind)
    data[3][1] = False  # and one without a valid pixel
    whole = TERMS[kind](*data)
    alone = [TERMS[kind](*(x[i : i + 1] for x in data)) for i in range(3)]
    for name, value in whole._asdict().items():
        parts = torch.stack([getattr(terms, name) for terms in alone])
        torch.testing.assert_close(value, parts.mean(), rtol=1e-5, atol=1e-7)
    assert whole.regression > 0


@kinds
def test_what_stands_outside_the_mask_has_no_influence(kind: str) -> None:
    predicted, confidence, target, mask = scene(kind)
    outside = ~mask if kind == "depth" else ~mask[..., None].expand_as(target)
    results = []
    for bad_target, bad_prediction, bad_confidence in ((0.0, 1.0, 1.0), (math.nan, math.inf, math.nan)):
        made = predicted.masked_fill(outside, bad_prediction).requires_grad_()
        sure = confidence.masked_fill(~mask, bad_confidence).requires_grad_()
        terms = TERMS[kind](made, sure, target.masked_fill(outside, bad_target), mask)
        results.append((*terms, *torch.autograd.grad(terms.loss, (made, sure))))
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b)
    gradient = results[1][5]
    assert (gradient[outside] == 0).all() and (gradient[~outside] != 0).float().mean() > 0.9


@kinds
@pytest.mark.parametrize("valid", [0, 99])
def test_too_few_pixels_cost_nothing_and_keep_the_graph(kind: str, valid: int) -> None:
    predicted, confidence, target, mask = scene(kind, b=1)
    mask = torch.zeros_like(mask)
    mask.view(-1)[:valid] = True
    target = torch.where(mask if kind == "depth" else mask[..., None], target, torch.nan)
    predicted.requires_grad_(), confidence.requires_grad_()
    terms = TERMS[kind](predicted, confidence, target, mask)
    terms.loss.backward()
    assert all(x.item() == 0 for x in terms)
    assert predicted.grad is not None and confidence.grad is not None
    assert (predicted.grad == 0).all() and (confidence.grad == 0).all()
    mask.view(-1)[:100] = True
    target = torch.where(target.isfinite(), target, 1.0)
    assert TERMS[kind](predicted, confidence, target, mask).regression > 0


@kinds
def test_a_perfect_prediction_has_finite_gradients(kind: str) -> None:
    _, confidence, target, mask = scene(kind)
    predicted = target.clone().requires_grad_()
    terms = TERMS[kind](predicted, confidence, target, mask)
    (gradient,) = torch.autograd.grad(terms.loss, predicted)
    assert terms.regression == 0 and gradient.isfinite().all()


@kinds
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_shows(kind: str, bad: float) -> None:
    predicted, confidence, target, mask = scene(kind)
    mask[0, 0, 0, 0] = True
    predicted[0, 0, 0, 0] = bad
    assert not TERMS[kind](predicted, confidence, target, mask).loss.isfinite()
    assert not TERMS[kind](predicted, confidence, target, mask).regression.isfinite()


@kinds
def test_bf16_predictions_are_compared_in_fp32(kind: str) -> None:
    predicted, confidence, target, mask = scene(kind)
    terms = TERMS[kind](predicted.bfloat16(), confidence, target, mask)
    expected = TERMS[kind](predicted.bfloat16().float(), confidence, target, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = TERMS[kind](predicted.bfloat16(), confidence, target, mask)
    for a, b, c in zip(terms, expected, under, strict=True):
        assert a.dtype == c.dtype == torch.float32 and a == b == c


def test_the_largest_two_percent_are_dropped_from_a_thousand_on() -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    values[:20] = 50 + torch.arange(20)
    plane, full = values.reshape(1, 1, 10, 100), torch.ones(1, 1, 10, 100, dtype=torch.bool)
    assert trimmed_mean(plane, full).item() == pytest.approx(values[20:].mean().item(), rel=1e-5)
    quantile = torch.quantile(values.double(), 0.98).item()
    kept = values[values < quantile]
    assert trimmed_mean(plane, full).item() == pytest.approx(kept.mean().item(), rel=1e-5)
    full[0, 0, 9, 99] = False
    assert trimmed_mean(plane, full).item() == pytest.approx(values[:999].mean().item(), rel=1e-5)
    assert trimmed_mean(torch.full((1, 1, 10, 200), 3.0), torch.ones(1, 1, 10, 200).bool()).item() == pytest.approx(3)


def test_a_dropped_pixel_has_no_gradient_and_errors_count_100_at_most() -> None:
    values = torch.linspace(0, 1, 2000).reshape(1, 1, 20, 100).requires_grad_()
    trimmed_mean(values, torch.ones(1, 1, 20, 100, dtype=torch.bool)).backward()
    assert values.grad is not None
    assert (values.grad.flatten()[-40:] == 0).all() and (values.grad.flatten()[:-40] > 0).all()
    huge = torch.full((1, 1, 10, 20), 1e6)
    assert trimmed_mean(huge, torch.ones_like(huge, dtype=torch.bool)).item() == 100


def test_spatial_gradient_of_a_slope_by_hand() -> None:
    """d = 0.1 x, 16 × 16: at stride s differences are 0.1 s on 16 rows of 16/s − 1 pairs (in the stride's grid)."""
    d = (0.1 * torch.arange(16.0)).expand(1, 2, 16, 16)[..., None]
    full = torch.ones(1, 2, 16, 16, dtype=torch.bool)
    expected = 0.0
    for stride in (1, 2, 4, 8):
        side = 16 // stride
        expected += 0.1 * stride * side * (side - 1) / side**2 / 4
    assert spatial_gradient(d, full).item() == pytest.approx(expected, rel=1e-5)
    assert spatial_gradient(d.transpose(2, 3), full).item() == pytest.approx(expected, rel=1e-5)
    assert spatial_gradient(d.expand(1, 2, 16, 16, 3), full).item() == pytest.approx(expected, rel=1e-5)


def test_spatial_gradient_needs_both_neighbours_and_is_clamped() -> None:
    d = torch.zeros(1, 1, 16, 16, 1)
    d[0, 0, 5, 5] = 1000.0
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    # (5, 5) is on no coarser grid: four neighbours, each at most 100, over 256 pixels and 4 scales.
    assert spatial_gradient(d, mask).item() == pytest.approx(400 / 256 / 4)
    mask[0, 0, 5, 5] = False
    assert spatial_gradient(d, mask).item() == 0


def test_spatial_gradient_in_parts_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, _, target, mask = scene("points", t=7)
    results = []
    for frames in (100, 3):
        monkeypatch.setattr(regression, "_FRAMES", frames)
        made = predicted.clone().requires_grad_()
        value = spatial_gradient(masked_difference(made, target, mask), mask)
        results.append((value.detach(), *torch.autograd.grad(value, made)))
    torch.testing.assert_close(results[0], results[1])


def test_the_temporal_term_compares_changes_of_steady_pixels() -> None:
    target = torch.ones(1, 3, 16, 16)
    target[:, 1] += 0.03
    target[:, 2] += 0.03
    target[:, 2, :8] += 0.1  # another surface: not looked at
    mask = torch.ones_like(target, dtype=torch.bool)
    assert temporal_change(target * 1.0 + 5, target, mask).item() == pytest.approx(0, abs=1e-6)
    still = torch.ones_like(target)
    # Frame 0 to 1: 256 pixels off by 0.03. Frame 1 to 2: 128 pixels, off by 0.
    assert temporal_change(still, target, mask).item() == pytest.approx(256 * 0.03 / 384, rel=1e-4)
    mask[:, 1, :, :8] = False
    assert temporal_change(still, target, mask).item() == pytest.approx(128 * 0.03 / (128 + 64), rel=1e-4)
    assert temporal_change(still[:, :1], target[:, :1], mask[:, :1]).item() == 0
    # Depths so small that a pixel without a measurement (0) looks steady beside them.
    assert temporal_change(torch.zeros_like(target), torch.full_like(target, 0.02) * mask, mask).item() == 0
    terms = depth_terms(still, torch.ones_like(still), target, mask, temporal_weight=3.0)
    parts = terms.confidence + terms.regression + terms.gradient + 3 * terms.temporal
    assert terms.temporal > 0 and terms.loss.item() == pytest.approx(parts.item())


def test_terms_refuse_shapes_that_would_broadcast() -> None:
    predicted, confidence, target, mask = scene("depth")
    for wrong in (
        (predicted[:1], confidence, target, mask),
        (predicted, confidence[:1], target, mask),
        (predicted, confidence, target, mask.float()),
        (predicted[0], confidence[0], target[0], mask[0]),
    ):
        with pytest.raises(ValueError, match="B T H W"):
            depth_terms(*wrong)
    with pytest.raises(ValueError, match="B T H W 3"):
        point_terms(predicted[..., None], confidence, target[..., None], mask)


def poses(b: int = 3, t: int = 5, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    pose = torch.randn(b, t, 9, generator=g)
    pose[..., 3:7] = torch.nn.functional.normalize(pose[..., 3:7], dim=-1)
    return pose


ALL = torch.ones(3, dtype=torch.bool)


def test_camera_loss_by_hand() -> None:
    """Huber with δ = 0.1: 0.5 · 0.05² = 0.00125 of small errors, 0.1 (d − 0.05) of large ones."""
    target = poses()
    error = torch.zeros(9)
    error[:3], error[7:] = 0.3, 0.05
    loss, parts = camera_loss([target, target + error], target, ALL)
    assert parts["translation"].item() == pytest.approx(0.025, rel=1e-4)
    assert parts["rotation"].item() == pytest.approx(0, abs=1e-9)
    assert parts["fov"].item() == pytest.approx(0.00125, rel=1e-4)
    assert loss.item() == pytest.approx((0.025 + 0.5 * 0.00125) / 2, rel=1e-4)
    early, _ = camera_loss([target + error, target], target, ALL)
    assert early.item() == pytest.approx(0.6 * loss.item(), rel=1e-4)


def test_both_quaternions_of_a_rotation_are_right() -> None:
    target, other = poses(), poses(seed=1)
    flipped, turned = target.clone(), other.clone()
    flipped[..., 3:7] *= -1
    turned[..., 3:7] *= -1
    assert camera_loss([flipped], target, ALL)[0].item() == pytest.approx(0, abs=1e-9)
    expected = camera_loss([other], target, ALL)[0]
    for made, wanted in ((turned, target), (other, flipped), (turned, flipped)):
        torch.testing.assert_close(camera_loss([made], wanted, ALL)[0], expected)
    # A prediction of zero is equally near to both: the one with w ≥ 0 pulls.
    zero = torch.zeros_like(target).requires_grad_()
    (slope,) = torch.autograd.grad(camera_loss([zero], flipped, ALL)[0], zero)
    assert (slope[..., 6] <= 0).all()


def test_unusable_clips_cost_nothing_whatever_they_hold() -> None:
    target, predicted = poses(), poses(seed=1).requires_grad_()
    alone = [camera_loss([predicted[i : i + 1]] * 2, target[i : i + 1], ALL[:1])[0] for i in range(3)]
    torch.testing.assert_close(camera_loss([predicted] * 2, target, ALL)[0], torch.stack(alone).mean())
    target[1] = math.nan
    usable = torch.tensor([True, False, True])
    loss, parts = camera_loss([predicted] * 2, target, usable)
    torch.testing.assert_close(loss, (alone[0] + alone[2]) / 3)
    (slope,) = torch.autograd.grad(loss, predicted)
    assert (slope[1] == 0).all() and (slope[0] != 0).any() and all(p.isfinite() for p in parts.values())
    loss, parts = camera_loss([predicted] * 2, torch.full_like(target, math.nan), ~ALL)
    (slope,) = torch.autograd.grad(loss, predicted)
    assert loss == 0 and (slope == 0).all() and all(float(p) == 0 for p in parts.values())


def test_translations_that_have_run_away_count_100_and_infinite_ones_show() -> None:
    target = poses()
    far = target.clone()
    far[..., :3] += 1e6
    _, parts = camera_loss([far], target, ALL)
    assert parts["translation"].item() == 100
    far[0, 0, 0] = math.inf
    assert not camera_loss([far], target, ALL)[0].isfinite()


def test_camera_loss_refuses_shapes_that_do_not_agree() -> None:
    target = poses()
    cases = (
        ([], target, ALL),
        ([target[:1]], target, ALL),
        ([target], target, ALL[:1]),
        ([target[..., :8]], target[..., :8], ALL),
    )
    for made, wanted, usable in cases:
        with pytest.raises(ValueError, match="B T 9"):
            camera_loss(made, wanted, usable)
