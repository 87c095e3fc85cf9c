"""The data set on disk: layout, conventions, determinism, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.files import verify_folder
from tinyworld.data.rooms import Renderer, build_scene, make_rooms
from tinyworld.media.png import read_png16
from tinyworld.media.read import probe, read_frames

SMALL: dict[str, Any] = {"scenes": 2, "frames": 5, "height": 48, "width": 128, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rooms(tmp_path_factory.mktemp("rooms") / "set", workers=1, **SMALL)


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "metadata.json").read_text(encoding="utf-8"))


def cameras(folder: Path, sample: dict[str, Any]) -> np.ndarray:
    return np.loadtxt(folder / sample["camera_params"], ndmin=2)


def test_the_layout_is_that_of_rgbd_samples(folder: Path, samples: list[dict[str, Any]], shared: Path) -> None:
    example = json.loads((shared / "data" / "rgbd" / "metadata.json").read_text(encoding="utf-8"))[0]
    assert verify_folder(folder) == []
    for number, sample in enumerate(samples):
        assert [key for key in sample if key != "points_dir"] == list(example)
        assert sample["id"] == f"sample_{number:03d}" and sample["kind"] == "synthetic" and "CC0" in sample["licence"]
        assert (sample["num_frames"], sample["width"], sample["height"], sample["fps"]) == (5, 128, 48, 24)
        assert sample["caption"].endswith(".") and "camera" in sample["caption"]
        video = probe(folder / sample["video"])
        assert (video.frames, video.width, video.height, video.fps) == (5, 128, 48, 24)
        for kind, suffix in (("depth_dir", "png"), ("points_dir", "npy")):
            names = sorted(path.name for path in (folder / sample[kind]).iterdir())
            assert names == [f"{frame:06d}.{suffix}" for frame in range(5)]
    assert samples[0]["caption"] != samples[1]["caption"]


def test_camera_lines_hold_proper_poses_from_the_first_camera_on(folder: Path, samples: list[dict[str, Any]]) -> None:
    fields = []
    for sample in samples:
        text = (folder / sample["camera_params"]).read_text(encoding="utf-8")
        assert all(len(line.split(" ")) == 17 for line in text.splitlines()) and "-0.000000000" not in text
        lines = cameras(folder, sample)
        assert lines[:, 0].tolist() == [0, 1, 2, 3, 4]
        poses = lines[:, 5:].reshape(-1, 3, 4)
        assert np.array_equal(poses[0], np.eye(4)[:3])
        for pose in poses:
            assert np.abs(pose[:, :3] @ pose[:, :3].T - np.eye(3)).max() < 1e-6
            assert np.linalg.det(pose[:, :3]) == pytest.approx(1, abs=1e-6)
        assert np.linalg.norm(poses[-1, :, 3]) > 0.005, "the camera moves"
        assert (lines[:, 1] == lines[:, 2]).all() and (lines[:, 3] == 63.5).all() and (lines[:, 4] == 23.5).all()
        fields.append(lines[0, 1])
    assert fields[0] != fields[1], "focal lengths vary from scene to scene"


def test_points_are_the_unprojected_depth(folder: Path, samples: list[dict[str, Any]]) -> None:
    v, u = np.mgrid[0:48, 0:128]
    for sample in samples:
        for line in cameras(folder, sample):
            name = f"{int(line[0]):06d}"
            depth = read_png16(folder / sample["depth_dir"] / f"{name}.png") / 1000
            points = np.load(folder / sample["points_dir"] / f"{name}.npy")
            assert points.dtype == np.float32 and points.shape == (48, 128, 3)
            assert depth.min() > 0.1 and depth.max() < 15
            fx, fy, cx, cy = line[1:5]
            pose = line[5:].reshape(3, 4)
            camera = np.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], axis=-1)
            world = (camera - pose[:, 3]) @ pose[:, :3]
            # Half a millimetre of depth, drawn out along the ray.
            stretch = np.linalg.norm(camera, axis=-1) / depth
            assert (np.linalg.norm(world - points, axis=-1) < 0.00052 * stretch + 1e-5).all()


def test_the_video_is_what_the_renderer_shows(folder: Path, samples: list[dict[str, Any]]) -> None:
    renderer = Renderer(build_scene(3, 1), 256)
    video = read_frames(folder / samples[1]["video"], [0, 4])
    for frame, time in zip(video, (0.0, 4 / 24), strict=True):
        error = (frame.astype(float) - renderer.frame(time, 48, 128).colour) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 27
    assert np.abs(video[0].astype(float) - video[1]).mean() > 1


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_bytes_do_not_depend_on_processes_and_scenes_not_on_their_number(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    again = make_rooms(tmp_path / "again", workers=2, on_progress=lambda *done: seen.append(done), **SMALL)
    assert content(again) == content(folder)
    assert seen == [(1, 2), (2, 2)]
    alone = content(make_rooms(tmp_path / "alone", workers=1, **{**SMALL, "scenes": 1, "frames": 3}))
    whole = content(folder)
    still = [name for name in alone if name.endswith((".png", ".npy"))]
    assert len(still) == 6 and all(alone[name] == whole[name] for name in still)


def test_other_seeds_give_other_rooms(folder: Path, tmp_path: Path) -> None:
    other = make_rooms(tmp_path / "other", workers=1, points=False, **{**SMALL, "scenes": 1, "seed": 4})
    assert not (other / "sample_000" / "points").exists()
    assert "points_dir" not in json.loads((other / "metadata.json").read_text(encoding="utf-8"))[0]
    mine, theirs = (read_frames(place / "sample_000/video.mp4", [0])[0].astype(float) for place in (folder, other))
    assert np.abs(mine - theirs).mean() > 20


def test_a_complete_set_is_reused_and_every_other_folder_refused(folder: Path, tmp_path: Path) -> None:
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert make_rooms(folder, **SMALL) == folder
    assert make_rooms(folder, points=False, **SMALL) == folder, "a set with points also serves without"
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(
        DataError, match=r"set holds rooms made with seed=3, frames=5, but seed=4, frames=9 was asked"
    ) as caught:
        make_rooms(folder, **{**SMALL, "seed": 4, "frames": 9})
    assert str(folder) in str(caught.value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("not to be lost")
    with pytest.raises(DataError, match="mine exists and is not a data set of rooms"):
        make_rooms(tmp_path / "mine", **SMALL)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "not to be lost"


def test_a_changed_set_is_refused(tmp_path: Path) -> None:
    arguments = {**SMALL, "scenes": 1, "frames": 1}
    made = make_rooms(tmp_path / "set", points=False, **arguments)
    cameras_file = made / "sample_000" / "camera_params.txt"
    cameras_file.write_text(cameras_file.read_text().replace("1.0", "1.1"))
    with pytest.raises(DataError, match=r"changed after it was made: .*camera_params.txt"):
        make_rooms(made, points=False, **arguments)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_set_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:  # held: what its frames hold is not collected before the look
        make_rooms(tmp_path / "set", workers=workers, on_progress=stop, **{**SMALL, "scenes": 40, "frames": 1})
    left = [child for child in psutil.Process().children() if "tinyworld.data.rooms.worker" in child.cmdline()]
    assert caught and not left, "a process that goes on would write into what is removed"
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_fails_ends_the_rendering_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "av.py").write_text("raise OSError('no codec today')")
    monkeypatch.syspath_prepend(str(broken))
    with pytest.raises(RuntimeError, match="no codec today"):
        make_rooms(tmp_path / "set", workers=2, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_every_wrong_argument_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_rooms(tmp_path / "set", scenes=0, frames=0, height=47, width=16, seed=-1, fps=0, workers=-2)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 7
    assert "height=47" in text and "46 or 48" in text and "width=16" in text and "at least 32" in text
    assert list(tmp_path.iterdir()) == []
