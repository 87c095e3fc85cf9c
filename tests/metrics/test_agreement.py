"""Agreement of depth, cameras and pictures on a plane that is seen exactly, by hand, and where nothing can be measured."""

import math
from dataclasses import astuple, replace

import pytest
import torch
from torch import Tensor

from tests.infer.world.planes import plane_depth
from tinyworld.core.geometry import Cameras, compose, inverse, world_points
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.metrics.agreement import (
    Agreement,
    agreement,
    colour_flicker,
    depth_flicker,
    unsteadiness,
)

T, H, W = 5, 36, 48


def plane(path: str = "orbit:20deg", frames: int = T) -> tuple[Tensor, Tensor, Cameras]:
    """Frames, depth and cameras of a slanted plane that is painted with a smooth pattern."""
    cameras = cameras_for(path, frames, H, W)
    depth = torch.from_numpy(plane_depth(cameras))
    x, y, z = world_points(depth, cameras).unbind(-1)
    colours = torch.stack([torch.sin(3 * x), torch.cos(4 * y), torch.sin(2 * (x + z))], 1)
    return (0.5 + 0.4 * colours).float(), depth, cameras


def shaken(cameras: Cameras, degrees: float, seed: int = 0) -> Cameras:
    """Each camera turned by about so much, about an axis of its own."""
    g = torch.Generator().manual_seed(seed)
    x, y, z = (torch.deg2rad(degrees * torch.randn(len(cameras.extrinsics), 3, generator=g, dtype=torch.float64))).T
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    turns = torch.cat([torch.linalg.matrix_exp(skew), torch.zeros(len(x), 3, 1, dtype=torch.float64)], -1)
    return replace(cameras, extrinsics=compose(turns, cameras.extrinsics))


@pytest.mark.parametrize("path", ["orbit:20deg", "dolly:0.3", "truck:0.2", "pan:15deg"])
def test_an_exact_scene_agrees(path: str) -> None:
    """Depth to rounding, as 1/z is linear in a plane's picture; colours to what bilinear interpolation leaves."""
    found = agreement(*plane(path))
    assert found.depth < 1e-9 and found.colour < 2e-3
    assert found.colour < found.colour_still / 5
    assert found.depth_still > 0.01
    assert 0.5 < found.overlap <= 1
    assert found.colour < found.colour_flat or path == "pan:15deg"  # of turns alone depth says nothing


def test_wrong_cameras_and_wrong_depths_disagree_the_more_the_more_they_are_wrong() -> None:
    frames, depth, cameras = plane()
    right = agreement(frames, depth, cameras)
    turned = [agreement(frames, depth, shaken(cameras, degrees)) for degrees in (1.0, 3.0)]
    depths = [right.depth, *(found.depth for found in turned)]
    colours = [right.colour, *(found.colour for found in turned)]
    assert depths == sorted(depths) and depths[1] > 1e-3
    assert colours == sorted(colours) and colours[1] > 2 * colours[0]
    longer = agreement(frames, depth, cameras.scaled(0.5))
    assert longer.depth > 0.01 and longer.colour > 2 * right.colour
    waves = depth * (1 + 0.1 * torch.sin(torch.arange(T).double())[:, None, None])
    assert agreement(frames, waves, cameras).depth > 0.02


def test_the_unit_and_the_world_do_not_matter() -> None:
    frames, depth, cameras = plane()
    depth = depth * (1 + 0.05 * torch.rand(depth.shape, generator=torch.Generator().manual_seed(1)))
    expected = astuple(agreement(frames, depth, cameras))
    assert astuple(agreement(frames, 7 * depth, cameras.scaled(1 / 7))) == pytest.approx(expected, rel=1e-6)
    elsewhere = replace(cameras, extrinsics=compose(cameras.extrinsics, inverse(cameras.extrinsics[-1:])))
    assert astuple(agreement(frames, depth, elsewhere)) == pytest.approx(expected, rel=1e-6)


def test_a_still_camera_before_a_constant_depth_by_hand() -> None:
    """Its depth agrees perfectly, whatever the frames; its colours are no better than without any geometry."""
    frames = torch.zeros(3, 3, H, W)
    frames[1], frames[2] = 0.25, 0.75
    cameras = cameras_for("dolly:0", 3, H, W)
    found = agreement(frames, torch.full((3, H, W), 2.0), cameras)
    assert astuple(found) == pytest.approx((0, 0, 0.375, 0.375, 0.375, 1), abs=1e-6)
    depth = torch.tensor([2.0, 2.5, 2.0])[:, None, None].expand(3, H, W)
    assert agreement(frames, depth, cameras).depth == pytest.approx((0.5 / 2.5 + 0.5 / 2) / 2)


@pytest.mark.parametrize("none", [0.0, -1.0, math.nan, math.inf])
def test_pixels_without_a_depth_do_not_matter(none: float) -> None:
    frames, depth, cameras = plane()
    holes = torch.rand(depth.shape, generator=torch.Generator().manual_seed(2)) < 0.05
    found = agreement(frames, depth.masked_fill(holes, none), cameras)
    assert found.depth < 1e-9 and found.colour < 2e-3 and found.depth_still > 0.01


def test_where_nothing_can_be_measured() -> None:
    frames, depth, cameras = plane()
    for nothing in (torch.zeros_like(depth), torch.full_like(depth, math.nan)):
        assert all(map(math.isnan, astuple(agreement(frames, nothing, cameras))))
    assert all(map(math.isnan, astuple(agreement(frames[:1], depth[:1], cameras.select([0])))))
    around = agreement(frames, depth, cameras_for("pan:360deg", T, H, W))
    assert math.isnan(around.depth) and math.isnan(around.colour) and around.overlap < 0.15
    one_frame = depth.clone()
    one_frame[1:] = 0
    assert agreement(frames, one_frame, cameras).overlap == 0
    broken = replace(cameras, extrinsics=torch.full_like(cameras.extrinsics, math.nan))
    assert math.isnan(agreement(frames, depth, broken).depth)


def test_shapes_are_checked() -> None:
    frames, depth, cameras = plane()
    for wrong in ((frames[:-1], depth, cameras), (frames, depth[0], cameras), (frames, depth, cameras.select([0]))):
        with pytest.raises(ValueError, match="do not agree"):
            agreement(*wrong)
    assert isinstance(agreement(frames.double(), depth.float(), cameras.to(torch.float32)), Agreement)


def test_flicker_is_what_neighbours_in_time_have_not() -> None:
    even = torch.linspace(0, 1, 6)[:, None, None, None].expand(6, 3, 4, 4)
    assert colour_flicker(even) == pytest.approx(0, abs=1e-7)
    pulsing = torch.tensor([0.5, 0.6] * 3)[:, None, None, None].expand(6, 3, 4, 4)
    assert colour_flicker(pulsing) == pytest.approx(0.1, rel=1e-5)
    assert math.isnan(colour_flicker(even[:2]))


def test_flicker_of_depth_is_relative_and_looks_at_known_pixels_alone() -> None:
    depth = torch.tensor([2.0, 2.2, 2.0, 2.2]).reshape(4, 1, 1).expand(4, 2, 2).clone()
    for unit in (1, 50):
        assert depth_flicker(unit * depth) == pytest.approx(math.log(1.1), rel=1e-5)
    depth[0, 0], depth[2, 1] = 0, math.nan
    assert depth_flicker(depth) == pytest.approx(math.log(1.1), rel=1e-5)
    depth[1] = 0
    assert math.isnan(depth_flicker(depth)) and math.isnan(depth_flicker(depth[:2]))


def test_unsteadiness() -> None:
    still = cameras_for("dolly:0", 5, H, W)

    def at(z: list[float]) -> Cameras:
        extrinsics = still.extrinsics.clone()
        extrinsics[:, 2, 3] = -torch.tensor(z, dtype=torch.float64)
        return replace(still, extrinsics=extrinsics)

    assert unsteadiness(at([0, 0.1, 0.2, 0.3, 0.4])) == pytest.approx(0, abs=1e-9)
    assert unsteadiness(at([0, 0.1, 0, 0.1, 0])) == pytest.approx(2)
    assert unsteadiness(at([0, 1, 0, 1, 0])) == pytest.approx(2)
    assert math.isnan(unsteadiness(still)) and math.isnan(unsteadiness(still.select([0, 1])))
