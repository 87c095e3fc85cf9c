"""Scenes: everything comes back from the folder, which is complete or absent."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.infer.world.planes import plane_scene
from tests.infer.world.ply import read_ply
from tinyworld.core.errors import ConfigError, DataError, MissingFileError
from tinyworld.core.files import verify_folder
from tinyworld.core.geometry import Cameras
from tinyworld.infer.world import scene as module
from tinyworld.infer.world.cloud import CloudOptions, cloud_of
from tinyworld.infer.world.scene import Scene, read_scene, write_scene
from tinyworld.media.camera_files import read_cameras
from tinyworld.media.read import iter_frames, probe

FILES = {
    "video.mp4",
    "depth.mp4",
    "confidence.npz",
    "points.npz",
    "cameras.txt",
    "cameras.json",
    "cloud.ply",
    "transforms.json",
    "scene.json",
    "manifest.json",
    "images",
    "depth",
    "colmap",
}


def assert_same(read: Scene, scene: Scene) -> None:
    for name in ("frames", "depth", "confidence", "points", "point_confidence"):
        wanted, found = getattr(scene, name), getattr(read, name)
        assert (wanted is None) == (found is None)
        if wanted is not None:
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
    torch.testing.assert_close(read.cameras.extrinsics, scene.cameras.extrinsics, atol=1e-12, rtol=0)
    torch.testing.assert_close(read.cameras.intrinsics, scene.cameras.intrinsics, atol=1e-9, rtol=0)
    assert torch.equal(read.cameras.extrinsics[0], torch.eye(3, 4, dtype=torch.float64))
    assert (read.fps, read.scale, read.facts) == (scene.fps, scene.scale, scene.facts)


def test_a_scene_comes_back(tmp_path: Path) -> None:
    scene = plane_scene()
    write_scene(scene, tmp_path / "new/world")
    assert {path.name for path in (tmp_path / "new/world").iterdir()} == FILES
    assert verify_folder(tmp_path / "new/world") == []
    assert_same(read_scene(tmp_path / "new/world"), scene)


def test_what_a_model_does_not_give_is_absent(tmp_path: Path) -> None:
    lenses = plane_scene().cameras.intrinsics * torch.linspace(1, 1.2, 3, dtype=torch.float64)[:, None]
    cameras = Cameras(plane_scene().cameras.extrinsics, lenses, 18, 22)
    scene = dataclasses.replace(plane_scene(), points=None, point_confidence=None, cameras=cameras, facts={})
    write_scene(scene, tmp_path / "world")
    assert {path.name for path in (tmp_path / "world").iterdir()} == FILES - {"points.npz", "cameras.json"}
    assert_same(read_scene(tmp_path / "world"), scene)


def test_the_files_say_what_the_scene_says(tmp_path: Path) -> None:
    scene, options = plane_scene(5), CloudOptions(source="points", percentile=20, voxel=0.05, stride=1, drop_sky=4)
    write_scene(scene, tmp_path / "world", options)
    folder = tmp_path / "world"
    for name in ("video.mp4", "depth.mp4"):
        info = probe(folder / name)
        assert (info.frames, info.height, info.width, info.fps) == (5, 18, 22, 12)
    near, far = (np.percentile(scene.depth[0], share) for share in (10, 90))
    brightness = next(iter_frames(folder / "depth.mp4")).mean(-1)
    assert brightness[scene.depth[0] < near].mean() > brightness[scene.depth[0] > far].mean() + 30
    as_json = read_cameras(folder / "cameras.json", 18, 22)
    torch.testing.assert_close(as_json.extrinsics, scene.cameras.extrinsics, atol=1e-9, rtol=0)
    wanted = cloud_of(scene, **dataclasses.asdict(options))
    np.testing.assert_array_equal(read_ply(folder / "cloud.ply").points, wanted.points)
    told = json.loads((folder / "scene.json").read_text())
    assert told["cloud"] == {"points": len(wanted.points), **dataclasses.asdict(options)}
    assert (told["frames"], told["height"], told["width"], told["scale"]) == (5, 18, 22, 2.5)
    transforms = json.loads((folder / "transforms.json").read_text())
    named = [*(frame["file_path"] for frame in transforms["frames"]), transforms["ply_file_path"]]
    assert len(named) == 6 and all((folder / name).is_file() for name in named)
    assert len(list((folder / "colmap/images").iterdir())) == 5 and (folder / "colmap/sparse/0/points3D.txt").is_file()


def test_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk is gone")

    first, folder = plane_scene(seed=1), tmp_path / "world"
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_colmap", broken)
        with pytest.raises(OSError, match="disk is gone"):
            write_scene(first, folder)
        assert list(tmp_path.iterdir()) == []
    write_scene(first, folder)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_colmap", broken)
        with pytest.raises(OSError, match="disk is gone"):
            write_scene(plane_scene(seed=2), folder)
    assert_same(read_scene(folder), first)
    write_scene(plane_scene(seed=2), folder)
    assert_same(read_scene(folder), plane_scene(seed=2))
    assert list(tmp_path.iterdir()) == [folder]


def test_nothing_of_the_users_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    (tmp_path / "file").write_text("also")
    for name in ("mine", "file"):
        with pytest.raises(ConfigError, match="will not be replaced"):
            write_scene(plane_scene(1), tmp_path / name)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"
    (tmp_path / "empty").mkdir()
    write_scene(plane_scene(1), tmp_path / "empty")
    assert len(read_scene(tmp_path / "empty").frames) == 1


def test_a_folder_that_is_no_whole_scene_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    with pytest.raises(MissingFileError, match=r"scene\.json"):
        read_scene(folder)
    write_scene(plane_scene(2), folder)
    lost = folder / "depth/000001.npy"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(DataError, match=r"depth/000001\.npy is missing"):
        read_scene(folder)
    lost.write_bytes(kept)
    told = folder / "scene.json"
    told.write_text(told.read_text().replace('"form": 1', '"form": 2'))
    with pytest.raises(DataError, match="in form 1"):
        read_scene(folder)


def test_depth_of_nothing_is_written(tmp_path: Path) -> None:
    scene = plane_scene(2)
    empty = dataclasses.replace(scene, depth=np.zeros_like(scene.depth))
    write_scene(empty, tmp_path / "world")
    assert len(read_ply(tmp_path / "world/cloud.ply").points) == 0
    assert_same(read_scene(tmp_path / "world"), empty)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("frames", np.zeros((3, 18, 22, 3), np.float32), "uint8 T H W 3"),
        ("depth", np.zeros((3, 18, 21), np.float32), "depth is float32"),
        ("confidence", np.zeros((3, 18, 22)), "confidence is float32"),
        ("points", np.zeros((3, 18, 22), np.float32), "points are float32"),
        ("cameras", plane_scene(2).cameras, "cameras of"),
        ("scale", 0.0, "above 0"),
        ("fps", float("nan"), "above 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(plane_scene(), **{name: value})
