"""Metrics of depth, points and cameras: cases by hand, invariances, degenerate clips, baselines."""

import math

import pytest
import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras, compose, encode_pose, inverse, quaternion_to_matrix, world_points
from tinyworld.metrics.geometry import consistency, depth_metrics, mean_depth_map, median_depth, point_metrics
from tinyworld.metrics.trajectory import align, camera_metrics, identity_cameras, mean_track

H, W = 6, 8


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def depths(b: int = 2, t: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    target = torch.rand(b, t, H, W, generator=rng(seed)) * 3 + 0.5
    mask = torch.rand(b, t, H, W, generator=rng(seed + 1)) < 0.7
    return target, mask


def turn(axis: tuple[float, float, float], degrees: float) -> Tensor:
    half = math.radians(degrees) / 2
    direction = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    return quaternion_to_matrix(torch.cat([direction * math.sin(half), torch.tensor([math.cos(half)]).double()]))


def from_poses(rotations: list[Tensor], centres: Tensor) -> Cameras:
    """Cameras 1 T of camera→world rotations and centres T 3."""
    poses = torch.cat([torch.stack(rotations), centres.double()[..., None]], dim=-1)
    intrinsics = torch.tensor([7.0, 7.0, (W - 1) / 2, (H - 1) / 2]).double().expand(1, len(centres), 4)
    return Cameras(inverse(poses)[None], intrinsics, H, W)


def track(t: int = 6, seed: int = 0, size: float = 1.0) -> Cameras:
    g = rng(seed)
    axes = torch.randn(t, 3, generator=g).tolist()
    rotations = [turn(tuple(axis), 10.0 * i) for i, axis in enumerate(axes)]
    return from_poses(rotations, size * torch.randn(t, 3, generator=g))


def in_another_world(cameras: Cameras, scale: float = 1.0) -> Cameras:
    move = torch.cat([turn((1, 2, 3), 77), torch.tensor([[4.0], [-5.0], [6.0]]).double()], dim=-1)
    return Cameras(compose(cameras.extrinsics, move), cameras.intrinsics, H, W).scaled(1 / scale)


def values(results: dict[str, Tensor], clip: int = 0) -> dict[str, float]:
    assert all(x.dtype == torch.float64 for x in results.values())
    return {name: float(x[clip]) for name, x in results.items()}


# Depth and points


def test_depth_metrics_by_hand() -> None:
    target = torch.tensor([1.0, 2.0, 4.0, 5.0]).reshape(1, 1, 1, 4)
    depth = torch.tensor([1.5, 2.0, 3.0, 77.0]).reshape(1, 1, 1, 4)
    mask = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4)
    found = values(depth_metrics(depth, target, mask))
    assert found["abs_rel"] == pytest.approx((0.5 + 0 + 0.25) / 3) and found["delta1"] == pytest.approx(1 / 3)
    # Both medians are 2.
    assert found["abs_rel_scaled"] == found["abs_rel"] and found["delta1_scaled"] == found["delta1"]


def test_one_scale_per_clip_is_taken_out() -> None:
    target, mask = depths()
    depth = target * 1.1
    depth[1] *= 3
    found = depth_metrics(depth, target, mask)
    assert found["abs_rel"].tolist() == pytest.approx([0.1, 2.3], rel=1e-4)
    assert found["delta1"].tolist() == [1, 0]
    assert found["abs_rel_scaled"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found["delta1_scaled"].tolist() == [1, 1]


def test_depths_of_zero_or_less_are_wrong() -> None:
    target = torch.ones(1, 1, 2, 2)
    depth = torch.tensor([0.0, -1.0, 1.0, 1.0]).reshape(1, 1, 2, 2)
    assert values(depth_metrics(depth, target, target.bool()))["delta1"] == 0.5


def test_the_median_baseline_is_as_good_with_a_scale_as_without() -> None:
    target, mask = depths()
    constant = median_depth(torch.where(mask, target, torch.nan), mask)
    assert constant.shape == target.shape and constant.dtype == target.dtype
    for i in range(2):
        inside = target[i][mask[i]]
        assert (constant[i] == constant[i, 0, 0, 0]).all()
        assert (inside <= constant[i, 0, 0, 0]).sum() == (len(inside) + 1) // 2
    found = depth_metrics(constant, target, mask)
    torch.testing.assert_close(found["abs_rel"], found["abs_rel_scaled"])
    expected = [((constant[i] - target[i]).abs() / target[i])[mask[i]].mean().item() for i in range(2)]
    assert found["abs_rel"].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_mean_depth_map_by_hand() -> None:
    one, other = torch.tensor([[1.0, 2, 3], [4, 7, 9]]), torch.tensor([[3.0, 8, 5], [6, 7, torch.nan]])
    first = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    second = torch.tensor([[1, 0, 1], [0, 0, 0]]).bool()
    found = mean_depth_map([(one, first), (other, second)])
    everywhere = (1 + 2 + 4 + 3 + 5) / 5
    assert found.dtype == torch.float64
    assert found.tolist() == [[2, 2, 5], [4, everywhere, everywhere]]
    none = torch.zeros_like(first)
    for maps, said in (([], "of one size"), ([(one, first[:1])], "of one size"), ([(one, none)], "no pixel")):
        with pytest.raises(ValueError, match=said):
            mean_depth_map(maps)


def test_point_metrics_by_hand_and_with_a_scale() -> None:
    target = torch.tensor([[3.0, 0, 4], [0, 0, 2]]).reshape(1, 1, 1, 2, 3)
    mask = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    made = target + torch.tensor([[0.0, 1, 0], [0, 0, 1]]).reshape(1, 1, 1, 2, 3)
    assert values(point_metrics(made, target, mask))["point_error"] == pytest.approx((1 / 5 + 1 / 2) / 2)
    found = values(point_metrics(3 * target, target, mask))
    assert found["point_error"] == pytest.approx(2) and found["point_error_scaled"] == pytest.approx(0, abs=1e-9)
    found = values(point_metrics(torch.zeros_like(target), target, mask))
    assert found["point_error"] == 1 and math.isnan(found["point_error_scaled"])


def test_a_point_at_the_origin_does_not_decide_the_point_error() -> None:
    target = torch.ones(1, 1, 10, 10, 3)
    target[0, 0, 0, 0] = 0
    mask = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    found = values(point_metrics(target * 1.01, target, mask))
    assert found["point_error"] == pytest.approx(0.0099, rel=1e-4)
    found = values(point_metrics(target + 0.01, target, mask))
    assert found["point_error"] == pytest.approx((99 * 0.01 + 1) / 100, rel=1e-4)


def test_clips_are_judged_alone_and_one_without_a_pixel_gives_nan() -> None:
    target, mask = depths(3)
    depth = target + torch.rand(target.shape, generator=rng(5))
    mask[1] = False
    depth[2, 0, 0, 0], mask[2, 0, 0, 0] = math.nan, True
    points, made = target[..., None].expand(3, 3, H, W, 3), depth[..., None].expand(3, 3, H, W, 3)
    for measure, prediction, wanted in ((depth_metrics, depth, target), (point_metrics, made, points)):
        alone = values(measure(prediction[:1], wanted[:1], mask[:1]))
        together = measure(prediction, wanted, mask)
        assert values(together) == alone and all(map(math.isfinite, alone.values()))
        for i in (1, 2):
            assert all(math.isnan(x) for x in values(together, i).values())


def test_values_outside_the_mask_do_not_matter_and_bad_targets_inside_are_refused() -> None:
    target, mask = depths()
    depth = target * 1.2
    expected = depth_metrics(depth, target, mask)
    found = depth_metrics(depth.masked_fill(~mask, math.nan), target.masked_fill(~mask, math.nan), mask)
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in expected.items()}
    for bad, message in ((math.nan, "not finite"), (math.inf, "not finite"), (0.0, "0 or less")):
        with pytest.raises(ValueError, match=message):
            depth_metrics(depth, target.masked_fill(mask, bad), mask)
    with pytest.raises(ValueError, match="B T H W"):
        depth_metrics(depth[:1], target, mask)
    with pytest.raises(ValueError, match="B T H W 3"):
        point_metrics(depth, target, mask)


def test_consistency_compares_points_with_the_unprojected_depth() -> None:
    cameras = track(3)
    depth, mask = depths(1)
    depth = depth.double()
    points = world_points(depth, cameras)
    assert consistency(depth, points, cameras, mask).tolist() == pytest.approx([0], abs=1e-12)
    # All depths a tenth longer: every point is a tenth of its distance away, whatever the world.
    for world in (cameras, in_another_world(cameras)):
        found = consistency(1.1 * depth, world_points(depth, world), world, mask)
        assert found.tolist() == pytest.approx([0.1 / 1.1])
    points[~mask] = math.nan
    assert consistency(depth, points, cameras, mask).isfinite().all()
    assert consistency(depth, points, cameras, torch.zeros_like(mask)).isnan().all()
    with pytest.raises(ValueError, match="do not agree"):
        consistency(depth, points[:, :2], cameras, mask)


# Cameras


def test_perfect_cameras_in_any_world_and_scale() -> None:
    true = track()
    for predicted in (true, in_another_world(true), in_another_world(true, scale=0.01)):
        found = values(camera_metrics(predicted, true))
        assert found["ate"] == pytest.approx(0, abs=1e-9) and found["rpe_translation"] == pytest.approx(0, abs=1e-9)
        assert found["rpe_rotation"] == pytest.approx(0, abs=1e-5) and found["auc30"] == 1


def test_errors_do_not_depend_on_the_world_or_the_predicted_scale() -> None:
    true, predicted = track(seed=1), track(seed=2)
    expected = values(camera_metrics(predicted, true))
    assert expected["ate"] > 0.1 and expected["rpe_rotation"] > 1
    for made, wanted in ((in_another_world(predicted, 20.0), true), (predicted, in_another_world(true))):
        assert values(camera_metrics(made, wanted)) == pytest.approx(expected, rel=1e-9)


def test_trajectory_errors_by_hand() -> None:
    """Four corners of a square, the last camera turned by 12.5 degrees where it stands."""
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    still = [torch.eye(3).double()] * 4
    true = from_poses(still, corners)
    turned = from_poses([*still[:3], turn((0, 1, 0), 12.5)], corners)
    found = values(camera_metrics(turned, true))
    assert found["ate"] == pytest.approx(0, abs=1e-9)
    assert found["rpe_rotation"] == pytest.approx(12.5 / math.sqrt(3))
    assert found["rpe_translation"] == pytest.approx(0, abs=1e-9)
    # Three pairs of six are right, those with the last camera are 12.5 degrees off: thresholds 13 … 30 accept them.
    assert found["auc30"] == pytest.approx((3 * 30 + 3 * 18) / 180)


def test_a_direction_counts_as_much_as_a_turn_and_opposite_is_wrong() -> None:
    still = [torch.eye(3).double()] * 2
    true = from_poses(still, torch.tensor([[0.0, 0, 0], [0, 0, 1]]))
    for degrees, expected in ((0.0, 1.0), (20.5, 10 / 30), (29.5, 1 / 30), (31.0, 0.0), (180.0, 0.0)):
        end = [0.0, 2 * math.sin(math.radians(degrees)), 2 * math.cos(math.radians(degrees))]
        predicted = from_poses(still, torch.tensor([[0.0, 0, 0], end]))
        assert values(camera_metrics(predicted, true))["auc30"] == pytest.approx(expected)


def test_ate_is_the_residual_of_the_best_similarity() -> None:
    """Against a search: no scale, turn or shift near the solution is better; and mirrored tracks do not fit."""
    source, target = (torch.randn(8, 3, generator=rng(i), dtype=torch.float64) for i in (1, 2))
    scale, best = align(source, target)
    centred, wanted = source - source.mean(0), target - target.mean(0)
    g = rng(3)
    for _ in range(3000):
        q = quaternion_to_matrix(torch.randn(4, generator=g, dtype=torch.float64))
        moved = centred @ q.T
        fitted = max(0.0, float((moved * wanted).sum() / moved.square().sum()))
        assert (fitted * moved - wanted).square().sum(-1).mean().sqrt() >= best - 1e-12
    assert scale >= 0 and best <= wanted.square().sum(-1).mean().sqrt()
    assert align(source * torch.tensor([-1.0, 1, 1]), source)[1] > 0.1


@pytest.mark.parametrize("line", [False, True])
def test_tracks_on_a_line_and_in_a_plane_align(line: bool) -> None:
    centres = torch.randn(5, 3, generator=rng(4), dtype=torch.float64)
    centres[:, 2] = 0
    if line:
        centres[:, 1] = 0
    moved = 3 * centres @ turn((3, 1, 2), 50).T + 7
    scale, left = align(centres, moved)
    assert float(scale) == pytest.approx(3) and float(left) == pytest.approx(0, abs=1e-9)


def test_a_true_track_that_stands_still() -> None:
    """Turning on the spot: what the prediction moves is its error, directions do not count."""
    rotations = [turn((0, 1, 0), 5.0 * i) for i in range(4)]
    true = from_poses(rotations, torch.zeros(4, 3))
    moving = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
    found = values(camera_metrics(from_poses(rotations, moving), true))
    assert found["ate"] == pytest.approx(math.sqrt(1.25)) and found["rpe_translation"] == pytest.approx(1)
    assert found["rpe_rotation"] == pytest.approx(0, abs=1e-5) and found["auc30"] == 1
    assert values(camera_metrics(true, true)) == pytest.approx(
        {"ate": 0, "rpe_translation": 0, "rpe_rotation": 0, "auc30": 1}, abs=1e-5
    )


def test_the_identity_baseline_scores_what_the_camera_moves() -> None:
    still = [torch.eye(3).double()] * 3
    true = from_poses(still, torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    baseline = identity_cameras(true)
    found = values(camera_metrics(baseline, true))
    assert found["ate"] == pytest.approx(math.sqrt(2 / 3)) and found["rpe_translation"] == pytest.approx(1)
    assert found["rpe_rotation"] == 0 and found["auc30"] == 0  # 90 degrees: no direction
    assert baseline.intrinsics is true.intrinsics and (baseline.width, baseline.height) == (W, H)
    turning = from_poses([turn((0, 0, 1), 10.0 * i) for i in range(3)], torch.zeros(3, 3))
    found = values(camera_metrics(identity_cameras(turning), turning))
    assert found["rpe_rotation"] == pytest.approx(10) and found["ate"] == 0
    # Two pairs are 10 degrees off and one 20. A float near a whole threshold may fall on either side of it.
    assert found["auc30"] == pytest.approx((2 * 20 + 10) / 90, abs=2.1 / 90)


def test_short_and_broken_tracks_give_nan_beside_others() -> None:
    true, predicted = track(4, 1), track(4, 2)
    assert all(math.isnan(x) for x in values(camera_metrics(predicted.select([0]), true.select([0]))).values())
    assert values(camera_metrics(predicted.select([0, 1]), true.select([0, 1])))["ate"] == pytest.approx(0, abs=1e-9)
    broken = predicted.extrinsics.clone()
    broken[0, 2, 1, 3] = math.nan
    both = Cameras(torch.cat([broken, predicted.extrinsics]), predicted.intrinsics.expand(2, 4, 4), H, W)
    twice = Cameras(true.extrinsics.expand(2, 4, 3, 4), true.intrinsics.expand(2, 4, 4), H, W)
    found = camera_metrics(both, twice)
    assert all(math.isnan(x) for x in values(found).values())
    assert values(found, 1) == values(camera_metrics(predicted, true))
    with pytest.raises(ValueError, match="not finite"):
        camera_metrics(predicted, Cameras(broken, true.intrinsics, H, W))
    with pytest.raises(ValueError, match="one shape"):
        camera_metrics(predicted.select([0, 1]), true)


def test_the_mean_track_averages_rotations_whatever_their_sign() -> None:
    centres = torch.tensor([[0.0, 0, 0], [2, 4, 6]])
    left, right = (from_poses([torch.eye(3).double(), turn((0, 1, 0), d)], centres) for d in (10, 30))
    tracks = [encode_pose(cameras)[0] for cameras in (left, right)]
    flipped = tracks[1].clone()
    flipped[:, 3:7] *= -1
    for second in (tracks[1], flipped):
        mean = mean_track([tracks[0], second])
        assert mean.shape == (2, 9) and mean.dtype == torch.float64
        expected = inverse(torch.cat([turn((0, 1, 0), 20), torch.zeros(3, 1).double()], -1))[:, :3]
        torch.testing.assert_close(quaternion_to_matrix(mean[1, 3:7]), expected)
        assert (mean[:, 6] >= 0).all()
        torch.testing.assert_close(mean[:, :3], (tracks[0] + tracks[1])[:, :3] / 2)
        torch.testing.assert_close(mean[:, 7:], tracks[0][:, 7:])
    with pytest.raises(ValueError, match="one length"):
        mean_track([tracks[0], tracks[1][:1]])
    with pytest.raises(ValueError, match="one length"):
        mean_track([])
