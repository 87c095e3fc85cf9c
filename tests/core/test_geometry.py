"""Cameras: every convention against numbers worked out by hand, and what goes there comes back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinyworld.core import geometry as g
from tinyworld.core.geometry import Cameras
from tinyworld.media.camera_files import read_cameras
from tinyworld.media.depth_files import list_frames, read_depth

H, W = 6, 8
directions = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: math.hypot(*axis) > 1e-3)
angles = st.one_of(st.floats(0, math.pi), st.sampled_from([0.0, 1e-12, 1e-6, math.pi - 1e-9, math.pi]))


def rotation(axis: tuple[float, float, float], angle: float) -> Tensor:
    """Rodrigues, independent of quaternions."""
    x, y, z = (value / math.hypot(*axis) for value in axis)
    k = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * k + (1 - math.cos(angle)) * (k @ k)


def cameras(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Cameras:
    """Random cameras with leading dimensions `shape` (the last is T), pictures H × W."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*last: int) -> Tensor:
        return torch.randn(*shape, *last, generator=generator, dtype=torch.float64)

    extrinsics = torch.cat([g.quaternion_to_matrix(normal(4)), normal(3, 1)], -1)
    intrinsics = torch.stack([5 + normal().abs(), 6 + normal().abs(), 3 + normal(), 2 + normal()], -1)
    return Cameras(extrinsics.to(dtype), intrinsics.to(dtype), H, W)


def assert_same(first: Cameras, second: Cameras, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(first.extrinsics, second.extrinsics, atol=tolerance, rtol=0)
    torch.testing.assert_close(first.intrinsics, second.intrinsics, atol=tolerance, rtol=0)
    assert (first.height, first.width) == (second.height, second.width)


@settings(max_examples=60)
@given(directions, angles)
def test_quaternions_of_all_rotations(axis: tuple[float, float, float], angle: float) -> None:
    matrix = rotation(axis, angle)
    quaternion = g.matrix_to_quaternion(matrix)
    assert quaternion[3] >= 0
    torch.testing.assert_close(quaternion.norm(), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(quaternion[3], torch.tensor(math.cos(angle / 2), dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(g.quaternion_to_matrix(quaternion), matrix, atol=1e-9, rtol=0)


def test_quaternions_are_scalar_last_and_turn_the_right_way() -> None:
    quarter = math.sin(math.pi / 4)
    matrix = g.quaternion_to_matrix(torch.tensor([0.0, 0.0, quarter, quarter]))
    torch.testing.assert_close(matrix @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [1e-30, 1e-3, 1.0, 1e20])
def test_quaternions_of_any_length(length: float) -> None:
    quaternion = torch.tensor([0.1, -0.5, 0.2, 0.8])
    short = g.quaternion_to_matrix(length * quaternion)
    torch.testing.assert_close(short, g.quaternion_to_matrix(quaternion), atol=1e-6, rtol=0)


def test_the_quaternion_zero_is_the_identity_and_has_finite_gradients() -> None:
    quaternion = torch.zeros(4, requires_grad=True)
    matrix = g.quaternion_to_matrix(quaternion)
    assert torch.equal(matrix, torch.eye(3))
    matrix.sum().backward()
    assert quaternion.grad is not None and quaternion.grad.isfinite().all()


@settings(max_examples=40)
@given(directions, angles, directions, st.floats(0, 3))
def test_rotation_angle(axis: tuple[float, float, float], angle: float, other: tuple, turn: float) -> None:
    start = rotation(other, turn)
    measured = g.rotation_angle(start, start @ rotation(axis, angle))
    torch.testing.assert_close(measured, torch.tensor(angle, dtype=torch.float64), atol=1e-9, rtol=0)


def test_small_angles_in_float32() -> None:
    angle = g.rotation_angle(torch.eye(3), rotation((0, 0, 1), 1e-5).float())
    torch.testing.assert_close(angle, torch.tensor(1e-5), atol=1e-9, rtol=0)


def test_inverse_and_composition() -> None:
    first, second = cameras(2, 3).extrinsics, cameras(2, 3, seed=1).extrinsics
    identity = torch.eye(3, 4, dtype=torch.float64).expand(2, 3, 3, 4)
    torch.testing.assert_close(g.compose(first, g.inverse(first)), identity, atol=1e-12, rtol=0)
    points = torch.randn(2, 3, 5, 3, dtype=torch.float64)
    one_after_the_other = g.to_camera(g.to_camera(points, second), first)
    torch.testing.assert_close(g.to_camera(points, g.compose(first, second)), one_after_the_other)


def test_a_pixel_by_hand() -> None:
    # The camera looks along the world's x axis from (10, 0, 0): its right is the world's -y, its down the world's -z.
    turn = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    extrinsics = torch.cat([turn, -turn @ torch.tensor([[10.0], [0], [0]])], -1)
    clip = Cameras(extrinsics[None], torch.tensor([[4.0, 5.0, 3.5, 2.5]]), H, W)
    depth = torch.zeros(1, H, W)
    depth[0, 5, 7] = 2.0
    corner = g.world_points(depth, clip)[0, 5, 7]
    expected = torch.tensor([10 + 2.0, -(7 - 3.5) / 4 * 2, -(5 - 2.5) / 5 * 2])
    torch.testing.assert_close(corner, expected)
    torch.testing.assert_close(
        g.project(g.to_camera(corner, extrinsics), clip.intrinsics[0]), torch.tensor([7.0, 5, 2])
    )
    torch.testing.assert_close(clip.centres()[0], torch.tensor([10.0, 0, 0]))


def test_project_undoes_unproject_in_batches() -> None:
    clip = cameras(2, 3)
    depth = torch.rand(2, 3, H, W, dtype=torch.float64) + 0.5
    seen = g.project(g.to_camera(g.world_points(depth, clip), clip.extrinsics), clip.intrinsics)
    v, u = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    expected = torch.stack([u.expand_as(depth), v.expand_as(depth), depth], -1)
    torch.testing.assert_close(seen, expected, atol=1e-9, rtol=0)


def test_points_behind_the_camera_are_outside_every_picture() -> None:
    points = torch.tensor([[1.0, 1, -1], [1, 1, 0], [1, 1, torch.nan]], requires_grad=True)
    seen = g.project(points, torch.tensor([5.0, 5, 3, 2]))
    assert (seen[:, :2] == -torch.inf).all()
    torch.where(torch.isfinite(seen), seen, 0.0).sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()


def test_more_cameras_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="leading dimensions"):
        g.to_world(torch.zeros(5, 3), cameras(2, 3).extrinsics)


def test_gradients_reach_depth_cameras_and_poses() -> None:
    clip = cameras(2)
    depth = torch.rand(2, 2, 2, dtype=torch.float64, requires_grad=True)
    pose = g.encode_pose(clip).requires_grad_()
    small = g.decode_pose(pose, 2, 2)
    assert torch.autograd.gradcheck(lambda d: g.unproject(d, small.intrinsics.detach()), depth)
    assert torch.autograd.gradcheck(
        lambda p: g.encode_pose(g.decode_pose(p, H, W)), pose.detach().clone().requires_grad_()
    )


def test_crop_and_resize_keep_rays() -> None:
    clip = cameras(3)
    x, y = g.pixel_rays(clip.intrinsics, H, W)
    cut = clip.cropped(2, 3, 4, 5)
    cut_x, cut_y = g.pixel_rays(cut.intrinsics, cut.height, cut.width)
    torch.testing.assert_close(cut_x, x[..., 3:])
    torch.testing.assert_close(cut_y, y[..., 2:, :])
    large_x, large_y = g.pixel_rays(clip.resized(3 * H, 3 * W).intrinsics, 3 * H, 3 * W)
    torch.testing.assert_close(large_x[..., 1::3], x)  # the middle of three small pixels is the large one's centre
    torch.testing.assert_close(large_y[..., 1::3, :], y)
    assert_same(clip.resized(3 * H, 5 * W).resized(H, W), clip)


def test_relative_cameras() -> None:
    clip = cameras(2, 4, dtype=torch.float32)
    moved = clip.relative()
    assert torch.equal(moved.extrinsics[:, 0], torch.eye(3, 4).expand(2, 3, 4))
    in_world = torch.randn(2, 1, 5, 3)
    in_first = g.to_camera(in_world, clip.extrinsics[:, :1])
    for frame in range(1, 4):
        seen = g.to_camera(in_world, clip.extrinsics[:, frame : frame + 1])
        torch.testing.assert_close(g.to_camera(in_first, moved.extrinsics[:, frame : frame + 1]), seen)


def test_scaled_cameras_see_scaled_points_at_the_same_pixels() -> None:
    clip, scale = cameras(2, 3), torch.tensor([2.0, 0.25], dtype=torch.float64)
    points = torch.randn(2, 1, 5, 3, dtype=torch.float64)
    before = g.to_camera(points, clip.extrinsics)
    after = g.to_camera(points / scale[:, None, None, None], clip.scaled(scale).extrinsics)
    torch.testing.assert_close(after * scale[:, None, None, None], before)
    assert_same(clip.scaled(2.0), clip.scaled(torch.full((2,), 2.0)))


def test_selecting_frames() -> None:
    clip = cameras(2, 5)
    chosen = clip.select([4, 0, 0])
    assert torch.equal(chosen.extrinsics, clip.extrinsics[:, [4, 0, 0]])
    assert torch.equal(chosen.intrinsics, clip.intrinsics[:, [4, 0, 0]])
    assert chosen.to(torch.float32).intrinsics.dtype == torch.float32


def test_central_and_corner_rays() -> None:
    size = 5  # an odd number of pixels: there is a central one
    focal = 2.0
    clip = Cameras(torch.eye(3, 4)[None], torch.tensor([[focal, focal, 2.0, 2.0]]), size, size)
    rays = g.plucker(clip)
    assert rays.shape == (6, 1, size, size)
    torch.testing.assert_close(rays[3:, 0, 2, 2], torch.tensor([0.0, 0, 1]))
    left, right = rays[3:, 0, 2, 0], rays[3:, 0, 2, -1]
    torch.testing.assert_close(torch.acos(left @ right), torch.tensor(2 * math.atan(2 / focal)))
    # half a pixel beyond the outermost centres lies the edge, which the field of view is measured to
    edge = 2 * math.atan((right[0] / right[2]).item() + 0.5 / focal)
    torch.testing.assert_close(g.encode_pose(clip)[0, 8], torch.tensor(edge))


def test_rays_are_lines_through_what_the_pixel_sees() -> None:
    clip = cameras(2, 3)
    moment, direction = g.plucker(clip).split(3, dim=-4)
    torch.testing.assert_close(direction.norm(dim=-4), torch.ones(2, 3, H, W, dtype=torch.float64))
    points = g.world_points(torch.rand(2, 3, H, W, dtype=torch.float64) + 1, clip).movedim(-1, -4)
    torch.testing.assert_close(torch.linalg.cross(points, direction, dim=-4), moment)
    towards = points - clip.centres().movedim(-1, -2)[..., None, None]
    assert ((towards * direction).sum(-4) > 0).all()


def test_rays_differ_over_the_picture() -> None:
    """The release's rays, whose intrinsics are multiplied by the picture's size twice, do not (facts: variation 0.001)."""
    clip = Cameras(torch.eye(3, 4)[None], torch.tensor([[500.0, 500.0, 295.5, 167.5]]), 336, 592)
    direction = g.plucker(clip)[3:, 0]
    assert direction.flatten(1).std(1)[0] > 0.2
    torch.testing.assert_close(
        direction[:, 167:169, 295:297].mean((1, 2)), torch.tensor([0.0, 0, 1]), atol=1e-5, rtol=0
    )


@settings(max_examples=25)
@given(directions, angles, st.floats(0.1, 2.5), st.floats(0.1, 2.5))
def test_poses_come_back(axis: tuple[float, float, float], angle: float, fov_h: float, fov_w: float) -> None:
    extrinsics = torch.cat([rotation(axis, angle), torch.tensor([[1.0], [-2.0], [30.0]])], -1)
    fx, fy = W / 2 / math.tan(fov_w / 2), H / 2 / math.tan(fov_h / 2)
    clip = Cameras(extrinsics[None], torch.tensor([[fx, fy, (W - 1) / 2, (H - 1) / 2]], dtype=torch.float64), H, W)
    pose = g.encode_pose(clip)
    assert pose.shape == (1, 9)
    torch.testing.assert_close(pose[0, 7:], torch.tensor([fov_h, fov_w], dtype=torch.float64))
    assert_same(g.decode_pose(pose, H, W), clip, 1e-8)


def test_poses_of_an_untrained_head_decode_to_finite_cameras() -> None:
    decoded = g.decode_pose(torch.zeros(2, 3, 9), H, W)
    assert decoded.extrinsics.isfinite().all() and decoded.intrinsics.isfinite().all()


def test_point_scale() -> None:
    points = torch.zeros(3, 1, 2, 2, 3)
    points[0, 0, 0, 0] = torch.tensor([3.0, 4, 0])
    points[0, 0, 1, 1] = torch.tensor([0.0, 0, 7])
    points[0, 0, 0, 1] = torch.nan
    points[2] = 1e-9
    mask = points.isfinite().all(-1) & (points.abs().sum(-1) > 0)
    torch.testing.assert_close(g.point_scale(points, mask), torch.tensor([6.0, 1.0, 1e-6]))


def test_nearest_resizing() -> None:
    rows = torch.arange(H)[:, None].expand(H, W)
    assert g.resize_depth(rows, 2, 4)[:, 0].tolist() == [1, 4]  # the middle rows of each three
    assert g.resize_depth(rows, 2 * H, W)[:, 0].tolist() == [row // 2 for row in range(2 * H)]
    points = torch.arange(H * W * 3.0).reshape(1, H, W, 3)
    mask = torch.rand(1, H, W) > 0.5
    small, small_mask = g.resize_nearest(points, 3, 3, dim=-3), g.resize_depth(mask, 3, 3)
    assert small.shape == (1, 3, 3, 3) and small_mask.dtype == torch.bool
    for axis in range(3):
        assert torch.equal(small[..., axis], g.resize_depth(points[..., axis], 3, 3))


def test_nothing_is_rounded_under_autocast() -> None:
    clip = cameras(2, 3, dtype=torch.float32)
    depth = torch.rand(2, 3, H, W) + 0.5
    plain = [g.plucker(clip), g.world_points(depth, clip), g.encode_pose(clip.relative())]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = [g.plucker(clip), g.world_points(depth, clip), g.encode_pose(clip.relative())]
    assert all(torch.equal(first, second) for first, second in zip(plain, under, strict=True))


def test_pairs_are_spread_and_few() -> None:
    assert g.choose_pairs(0, 12) == g.choose_pairs(1, 12) == ()
    assert g.choose_pairs(2, 12) == ((0, 1),)
    assert g.choose_pairs(3, 12) == ((0, 1), (1, 2))
    assert g.choose_pairs(9, 3) == ((0, 4), (2, 6), (4, 8))
    pairs = g.choose_pairs(97, 12)
    assert len(pairs) == 12 and pairs[0] == (0, 10) and pairs[-1] == (86, 96)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_between_pixels_by_hand(dtype: torch.dtype) -> None:
    """u + 10 v is linear: bilinear values are exact, at the border too; what is beside u and v does not matter."""
    v, u = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    picture = torch.stack([u + 10 * v, torch.ones(4, 5)]).to(dtype)
    seen = torch.tensor([[0, 0, 9], [4, 3, -1], [1.25, 2.5, 0], [3, 0.5, 7]], dtype=torch.float64)
    found = g.sample_pixels(picture, seen)
    assert found.dtype == dtype
    wanted = torch.tensor([[0, 34, 26.25, 8], [1, 1, 1, 1]], dtype=dtype)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert float(g.sample_pixels(picture[:1, :1, :1], seen[:1])) == 0


@pytest.mark.parametrize("name", ["sample_000", "sample_001", "sample_008"])
def test_real_sequences_reproject(shared: Path, name: str) -> None:
    """Frame 0's depth, seen from frame 10, against frame 10's depth: the error measured when the data was made."""
    folder = shared / "data/rgbd" / name
    clip = read_cameras(folder / "camera_params.txt", 192, 256)
    files = list_frames(folder / "depth", (".png",))
    first, later = (torch.from_numpy(read_depth(files[index])).double() for index in (0, 10))
    assert _depth_error(clip, first, later) < 2.5 * _measured(shared, name)
    swapped = Cameras(g.inverse(clip.extrinsics), clip.intrinsics, clip.height, clip.width)
    assert _depth_error(swapped, first, later) > 5 * _depth_error(clip, first, later)


def _depth_error(clip: Cameras, first: Tensor, later: Tensor) -> float:
    points = g.world_points(first[None], clip.select([0]))
    u, v, z = g.project(g.to_camera(points, clip.extrinsics[10:11]), clip.intrinsics[10:11])[0].unbind(-1)
    columns, rows = u.round(), v.round()
    inside = (columns >= 0) & (columns < clip.width) & (rows >= 0) & (rows < clip.height) & (first > 0)
    seen = later[rows[inside].long(), columns[inside].long()]
    valid = seen > 0
    return float(np.median(((z[inside] - seen).abs() / seen)[valid]))


def _measured(shared: Path, name: str) -> float:
    checks = json.loads((shared / "data/rgbd/geometry_check.json").read_text(encoding="utf-8"))
    return next(float(check["median_rel_depth_err"]) for check in checks if check["id"] == name)
