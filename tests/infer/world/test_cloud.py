"""Clouds: where the points are, which stay, and PLY files that others open."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.infer.world.planes import DISTANCE, NORMAL, plane_scene
from tests.infer.world.ply import read_ply
from tinyworld.core.errors import ConfigError
from tinyworld.infer.world.cloud import Cloud, CloudOptions, cloud_of, write_ply

ALL = {"percentile": 0.0, "voxel": 0.0, "stride": 1}


def some_cloud(count: int = 50) -> Cloud:
    rng = np.random.default_rng(1)
    return Cloud(rng.normal(size=(count, 3)).astype(np.float32), rng.integers(0, 256, (count, 3), dtype=np.uint8))


@pytest.mark.parametrize("source", ["depth", "points"])
@pytest.mark.parametrize("stride", [1, 3])
def test_points_lie_where_the_cameras_see_them(source: str, stride: int) -> None:
    scene = plane_scene()
    cloud = cloud_of(scene, source=source, percentile=0, voxel=0, stride=stride)
    assert len(cloud.points) == 3 * -(-18 // stride) * -(-22 // stride)
    assert np.abs(cloud.points @ NORMAL - DISTANCE).max() < 1e-6
    assert scene.points is not None
    np.testing.assert_allclose(cloud.points, scene.points[:, ::stride, ::stride].reshape(-1, 3), atol=1e-6)
    np.testing.assert_array_equal(cloud.colours, scene.frames[:, ::stride, ::stride].reshape(-1, 3))


def test_source_decides_what_is_read() -> None:
    scene = plane_scene()
    assert scene.points is not None
    bent = dataclasses.replace(scene, points=scene.points + np.float32(1))
    np.testing.assert_array_equal(cloud_of(bent, **ALL).points, cloud_of(scene, **ALL).points)
    np.testing.assert_allclose(
        cloud_of(bent, "points", **ALL).points, cloud_of(scene, "points", **ALL).points + 1, atol=1e-6
    )
    with pytest.raises(ConfigError, match="no point map"):
        cloud_of(dataclasses.replace(scene, points=None, point_confidence=None), "points")


def test_the_least_sure_points_go() -> None:
    scene = plane_scene()
    cloud = cloud_of(scene, percentile=25, voxel=0, stride=1)
    sure = scene.confidence >= np.percentile(scene.confidence, 25)
    assert len(cloud.points) == sure.sum() == round(0.75 * sure.size)
    np.testing.assert_array_equal(cloud.colours, scene.frames[sure])
    even = dataclasses.replace(scene, confidence=np.ones_like(scene.confidence))
    assert len(cloud_of(even, percentile=50, voxel=0, stride=1).points) == sure.size  # none is less sure than others
    by_points = cloud_of(scene, "points", percentile=25, voxel=0, stride=1)
    np.testing.assert_array_equal(
        by_points.colours, scene.frames[scene.point_confidence >= np.percentile(scene.point_confidence, 25)]
    )


def test_invalid_pixels_are_no_points() -> None:
    scene = plane_scene()
    depth, confidence = scene.depth.copy(), scene.confidence.copy()
    depth[0, 0, :5] = [0, np.nan, np.inf, -1, 1e30]
    confidence[0, 1, 0] = np.nan
    cloud = cloud_of(dataclasses.replace(scene, depth=depth, confidence=confidence), **ALL)
    assert len(cloud.points) == depth.size - 6 and np.isfinite(cloud.points).all()
    nothing = cloud_of(dataclasses.replace(scene, depth=np.zeros_like(depth)))
    assert nothing.points.shape == nothing.colours.shape == (0, 3)


def test_sky_goes_only_when_asked() -> None:
    scene = plane_scene()
    depth = scene.depth.copy()
    depth[:, :4] = 50 * np.median(depth)
    far = dataclasses.replace(scene, depth=depth)
    assert len(cloud_of(far, **ALL).points) == depth.size
    cloud = cloud_of(far, drop_sky=5, **ALL)
    assert len(cloud.points) == depth[:, 4:].size
    assert np.abs(cloud.points @ NORMAL - DISTANCE).max() < 1e-6


def test_a_voxel_holds_one_point_at_the_mean() -> None:
    scene = plane_scene()
    voxel = 0.2
    every, cloud = cloud_of(scene, **ALL), cloud_of(scene, percentile=0, voxel=voxel, stride=1)
    cells: dict[tuple[int, ...], list[int]] = {}
    exact = scene.points.reshape(-1, 3).astype(np.float64)
    for index, point in enumerate(exact):
        cells.setdefault(tuple(np.floor(point / voxel).astype(int)), []).append(index)
    assert abs(len(cloud.points) - len(cells)) <= 2 < len(cells) < len(exact)  # float32 points may lie across an edge
    found = {tuple(np.floor(point / voxel).astype(int)): index for index, point in enumerate(cloud.points)}
    assert len(found) == len(cloud.points)
    same = 0
    for cell, members in cells.items():
        mean, colour = every.points[members].mean(0), every.colours[members].mean(0)
        if cell in found and np.abs(cloud.points[found[cell]] - mean).max() < 1e-5:
            assert np.abs(cloud.colours[found[cell]] - colour).max() <= 0.5 + 1e-9
            same += 1
    assert same >= len(cells) - 4


def test_clouds_are_deterministic() -> None:
    first, second = cloud_of(plane_scene()), cloud_of(plane_scene())
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.colours, second.colours)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"percentile": 100}, "percentile is 100"),
        ({"percentile": float("nan")}, "percentile is nan"),
        ({"voxel": -1}, "voxel is -1"),
        ({"voxel": float("inf")}, "voxel is inf"),
        ({"stride": 0}, "stride is 0"),
        ({"drop_sky": 0}, "drop_sky is 0"),
        ({"source": "head"}, "depth, points"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CloudOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        cloud_of(plane_scene(1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 50])
def test_ply_is_what_its_header_says(tmp_path: Path, count: int) -> None:
    cloud = some_cloud(count)
    write_ply(cloud, tmp_path / "cloud.ply")
    read = read_ply(tmp_path / "cloud.ply")
    np.testing.assert_array_equal(read.points, cloud.points)
    np.testing.assert_array_equal(read.colours, cloud.colours)


def test_a_public_reader_opens_it(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
    cloud = some_cloud(40)
    write_ply(cloud, tmp_path / "cloud.ply")
    read = trimesh.load(tmp_path / "cloud.ply")
    np.testing.assert_allclose(np.asarray(read.vertices), cloud.points)
    np.testing.assert_array_equal(np.asarray(read.colors)[:, :3], cloud.colours)


def test_thinning_is_even() -> None:
    cloud = some_cloud(50)
    assert cloud.thinned(50) is cloud
    np.testing.assert_array_equal(cloud.thinned(10).points, cloud.points[::5])
