"""COLMAP and nerfstudio: a world point lands at the same pixel through the cameras as they are written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.infer.world.planes import plane_scene
from tinyworld.core.geometry import Cameras, project, to_camera
from tinyworld.infer.world import colmap
from tinyworld.infer.world.cloud import cloud_of
from tinyworld.infer.world.colmap import write_colmap
from tinyworld.infer.world.nerfstudio import write_transforms
from tinyworld.infer.world.scene import Scene
from tinyworld.media.png import write_png

PATH = "forward 0.3 right 25deg roll 100deg"


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]


def exported(folder: Path, scene: Scene) -> Path:
    images = [folder / f"images/frame_{number:05d}.png" for number in range(len(scene.frames))]
    for path, frame in zip(images, scene.frames, strict=True):
        write_png(path, frame)
    write_colmap(folder / "colmap", scene.cameras, scene.depth, cloud_of(scene, percentile=0, stride=1), images)
    return folder / "colmap"


def zoomed(cameras: Cameras) -> Cameras:
    """Another lens in every frame, as a camera head predicts them, and off the middle."""
    factors = torch.linspace(1, 1.3, len(cameras.intrinsics), dtype=torch.float64)[:, None]
    shifted = cameras.intrinsics * factors * torch.tensor([1, 1.1, 0.9, 1.05])
    return Cameras(cameras.extrinsics, shifted, cameras.height, cameras.width)


def ours(cameras: Cameras, frame: int, points: np.ndarray) -> np.ndarray:
    """N 2: pixels, centres at whole numbers."""
    seen = to_camera(torch.from_numpy(points), cameras.extrinsics[frame])
    return project(seen, cameras.intrinsics[frame])[:, :2].numpy()


def rotation_of(w: float, x: float, y: float, z: float) -> np.ndarray:
    """By turning the axes with the quaternion's own product, not by the formula that the package uses."""

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array([a[0] * b[0] - a[1:] @ b[1:], *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))])

    turn, back = np.array([w, x, y, z]), np.array([w, -x, -y, -z])
    return np.stack([product(product(turn, np.array([0, *axis])), back)[1:] for axis in np.eye(3)], axis=1)


@pytest.mark.parametrize("shared", [True, False])
def test_a_point_lands_at_the_same_pixel(tmp_path: Path, shared: bool) -> None:
    scene = plane_scene(4, path=PATH)
    cameras = scene.cameras if shared else zoomed(scene.cameras)
    scene = plane_scene(4, path=PATH) if shared else Scene(**{**vars(scene), "cameras": cameras})
    model = exported(tmp_path, scene) / "sparse/0"
    lenses = {row[0]: row for row in lines(model / "cameras.txt")}
    assert len(lenses) == (1 if shared else 4)
    points = np.random.default_rng(2).uniform([-0.3, -0.3, 1], [0.3, 0.3, 2], (20, 3))
    poses = lines(model / "images.txt")[::2]
    assert [row[9] for row in poses] == [f"frame_{number:05d}.png" for number in range(4)]
    for frame, row in enumerate(poses):
        lens = lenses[row[8]]
        assert lens[1:4] == ["PINHOLE", "22", "18"]
        fx, fy, cx, cy = map(float, lens[4:])
        seen = points @ rotation_of(*map(float, row[1:5])).T + np.array(row[5:8], dtype=float)
        pixels = np.stack([fx * seen[:, 0] / seen[:, 2] + cx, fy * seen[:, 1] / seen[:, 2] + cy], 1)
        np.testing.assert_allclose(pixels - 0.5, ours(cameras, frame, points), atol=1e-9)


def test_observations_and_tracks_agree(tmp_path: Path) -> None:
    scene = plane_scene(4)
    model = exported(tmp_path, scene) / "sparse/0"
    points = {int(row[0]): row for row in lines(model / "points3D.txt")}
    observed = [np.array(row, dtype=float).reshape(-1, 3) for row in lines(model / "images.txt")[1::2]]
    tracks = {(int(image), int(place)): number for number, row in points.items() for image, place in pairs(row[8:])}
    assert sum(map(len, observed)) == len(tracks) > len(points)  # many points are seen twice
    for image, rows in enumerate(observed, 1):
        for place, (u, v, number) in enumerate(rows):
            assert tracks[image, place] == number
            world = np.array([points[int(number)][1:4]], dtype=float)
            np.testing.assert_allclose([[u - 0.5, v - 0.5]], ours(scene.cameras, image - 1, world), atol=1e-3)
            assert 0 <= u <= 22 and 0 <= v <= 18


def pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=True))


def test_hidden_points_are_not_observed(tmp_path: Path) -> None:
    scene = plane_scene(2)
    hidden = Scene(**{**vars(scene), "depth": np.stack([scene.depth[0], scene.depth[1] * np.float32(0.5)])})
    images = [tmp_path / f"{number}.png" for number in range(2)]
    for path, frame in zip(images, scene.frames, strict=True):
        write_png(path, frame)
    write_colmap(tmp_path / "colmap", hidden.cameras, hidden.depth, cloud_of(scene, stride=1), images)
    rows = lines(tmp_path / "colmap/sparse/0/images.txt")
    assert len(rows[1]) > 30
    assert rows[3][2::3] == ["-1"]  # no empty line, which some readers take for the file's end


def test_large_clouds_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colmap, "MOST_POINTS", 60)
    monkeypatch.setattr(colmap, "MOST_OBSERVATIONS", 10)
    model = exported(tmp_path, plane_scene(3)) / "sparse/0"
    assert len(lines(model / "points3D.txt")) == 60
    assert max(len(row) for row in lines(model / "images.txt")[1::2]) == 30


def test_pictures_stand_beside_the_model(tmp_path: Path) -> None:
    scene = plane_scene(2)
    folder = exported(tmp_path, scene)
    for number in range(2):
        name = f"frame_{number:05d}.png"
        assert (folder / "images" / name).read_bytes() == (tmp_path / "images" / name).read_bytes()


@pytest.mark.parametrize("shared", [True, False])
def test_nerfstudio_sees_the_same_pixel(tmp_path: Path, shared: bool) -> None:
    cameras = plane_scene(4, path=PATH).cameras
    cameras = cameras if shared else zoomed(cameras)
    names = [f"images/{number}.png" for number in range(4)]
    write_transforms(tmp_path / "transforms.json", cameras, names, "cloud.ply")
    told = json.loads((tmp_path / "transforms.json").read_text())
    assert told["ply_file_path"] == "cloud.ply" and [frame["file_path"] for frame in told["frames"]] == names
    assert ("fl_x" in told) == shared
    points = np.random.default_rng(2).uniform([-0.3, -0.3, 1], [0.3, 0.3, 2], (20, 3))
    for number, frame in enumerate(told["frames"]):
        lens = told if shared else frame
        assert (lens["w"], lens["h"]) == (22, 18)
        matrix = np.array(frame["transform_matrix"])
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1, abs=1e-12)
        seen = (np.linalg.inv(matrix) @ np.c_[points, np.ones(20)].T).T
        assert (seen[:, 2] < 0).all()  # OpenGL's cameras look along -z, y up
        u = lens["fl_x"] * seen[:, 0] / -seen[:, 2] + lens["cx"]
        v = lens["fl_y"] * -seen[:, 1] / -seen[:, 2] + lens["cy"]
        np.testing.assert_allclose(np.stack([u, v], 1) - 0.5, ours(cameras, number, points), atol=1e-9)
