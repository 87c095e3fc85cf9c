"""Miniature recordings of other data sets, made from a rendered room, become samples that verify as ok."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyworld.core.errors import ConfigError, DataError, MissingFileError
from tinyworld.core.geometry import Cameras, inverse, matrix_to_quaternion
from tinyworld.data.rooms import make_rooms
from tinyworld.data.worlds.prepare import Recording, Selection, plan_framing, prepare
from tinyworld.data.worlds.re10k import read_re10k
from tinyworld.data.worlds.seven_scenes import read_seven_scenes
from tinyworld.data.worlds.tum import read_tum
from tinyworld.data.worlds.verify import verify_worlds
from tinyworld.media.camera_files import read_cameras, write_cameras
from tinyworld.media.depth_files import read_depth
from tinyworld.media.png import read_png16
from tinyworld.media.read import iter_frames, probe
from tinyworld.media.write import write_video

HEIGHT, WIDTH, FRAMES = 64, 80, 10
Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class Room:
    frames: list[np.ndarray]
    depth: list[np.ndarray]
    cameras: Cameras
    intrinsics: Four


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    folder = make_rooms(
        tmp_path_factory.mktemp("room") / "set", 2, FRAMES, HEIGHT, WIDTH, fps=8, points=False, workers=1
    )
    sample = folder / "sample_001"
    cameras = read_cameras(sample / "camera_params.txt", HEIGHT, WIDTH)
    fx, fy, cx, cy = (float(value) for value in cameras.intrinsics[0])
    depth = [read_depth(path) for path in sorted((sample / "depth").iterdir())]
    return Room(list(iter_frames(sample / "video.mp4")), depth, cameras, (fx, fy, cx, cy))


def write_picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def tum(room: Room, tmp_path: Path) -> Path:
    """A sequence whose clocks differ by milliseconds, poses come three times as often, and the first picture has no depth."""
    folder = tmp_path / "rgbd_dataset_test"
    colours, depths, poses = ["# colour"], ["# depth"], ["# timestamp tx ty tz qx qy qz qw"]
    c2w = inverse(room.cameras.extrinsics)
    quaternions = matrix_to_quaternion(c2w[..., :3])
    for k in range(FRAMES):
        time = 1305031102.175304 + k / 8
        write_picture(folder / f"rgb/{time:.6f}.png", room.frames[k])
        colours.append(f"{time:.6f} rgb/{time:.6f}.png")
        if k:
            write_picture(folder / f"depth/{time + 0.011:.6f}.png", np.rint(room.depth[k] * 5000).astype(np.uint16))
            depths.append(f"{time + 0.011:.6f} depth/{time + 0.011:.6f}.png")
        pose = " ".join(f"{float(value):.9f}" for value in (*c2w[k, :, 3], *quaternions[k]))
        poses += [f"{time - 0.007:.4f} {pose}", f"{time + 0.04:.4f} 9 9 9 0 0 0 1"]
    for name, lines in (("rgb", colours), ("depth", depths), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def assert_ok(out: Path, frames: int, pixels: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    (verdict,) = verify_worlds(out)
    assert verdict.verdict == "ok", verdict
    (entry,) = json.loads((out / "metadata.json").read_text())
    assert (entry["num_frames"], entry["height"], entry["width"]) == (frames, *pixels)
    assert verdict.numbers["relative_depth_error"] < 0.015
    assert sorted(path.name for path in (out / "sample_000").iterdir()) == ["camera_params.txt", "depth", "video.mp4"]


def test_tum(room: Room, tum: Path, tmp_path: Path) -> None:
    (recording,) = read_tum(tum, Selection(), room.intrinsics)
    said = prepare([recording], tmp_path / "out")
    assert "1 of 10 pictures have no depth or pose" in said[1]
    assert_ok(tmp_path / "out", FRAMES - 1)
    written = read_cameras(tmp_path / "out/sample_000/camera_params.txt", HEIGHT, WIDTH)
    expected = room.cameras.select(range(1, FRAMES)).relative()
    np.testing.assert_allclose(written.extrinsics, expected.extrinsics, atol=1e-6)
    depth = read_depth(tmp_path / "out/sample_000/depth/000000.png")
    np.testing.assert_allclose(depth, room.depth[1], atol=1.1e-3)
    assert probe(tmp_path / "out/sample_000/video.mp4").fps == pytest.approx(8, abs=0.01)


def test_tum_cut_resized_and_thinned(room: Room, tum: Path, tmp_path: Path) -> None:
    (recording,) = read_tum(tum, Selection(step=2, max_frames=4), room.intrinsics)
    prepare([recording], tmp_path / "out", 48, 48)
    assert_ok(tmp_path / "out", 4, (48, 48))
    written = read_cameras(tmp_path / "out/sample_000/camera_params.txt", 48, 48)
    assert float(written.intrinsics[0, 0]) == pytest.approx(room.intrinsics[0] * 48 / 64)
    assert float(written.intrinsics[0, 2]) == pytest.approx((room.intrinsics[2] - 8 + 0.5) * 48 / 64 - 0.5)


def test_tum_knows_its_cameras(tum: Path) -> None:
    (named,) = (tum.rename(tum.with_name("rgbd_dataset_freiburg3_office")),)
    assert read_tum(named, Selection())[0].cameras.intrinsics[0].tolist() == [535.4, 539.2, 320.1, 247.6]
    assert len(read_tum(named.parent, Selection())) == 1


def test_tum_faults_are_told(tum: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no TUM sequence"):
        read_tum(tmp_path / "rgbd_dataset_test" / "rgb", Selection())
    (tum / "groundtruth.txt").write_text("1305031102.17 0 0 0 0 0 0\n")
    with pytest.raises(DataError, match="8 finite numbers"):
        read_tum(tum, Selection())
    (tum / "groundtruth.txt").write_text("5.0 0 0 0 0 0 0 1\n")
    with pytest.raises(DataError, match=r"within 0\.02 s"):
        read_tum(tum, Selection())
    (tum / "groundtruth.txt").write_text("time 0 0 0 0 0 0 1\n")
    with pytest.raises(DataError, match="line 1"):
        read_tum(tum, Selection())


def write_seven_scenes(folder: Path, room: Room) -> None:
    c2w = inverse(room.cameras.extrinsics).numpy()
    for k in range(FRAMES):
        stem = f"frame-{k:06d}"
        depth = np.rint(room.depth[k] * 1000).astype(np.uint16)
        depth[:4] = 65535
        write_picture(folder / f"{stem}.color.png", room.frames[k])
        write_picture(folder / f"{stem}.depth.png", depth)
        matrix = np.concatenate([c2w[k], [[0, 0, 0, 1]]])
        if k == 3:
            matrix[:] = np.inf
        (folder / f"{stem}.pose.txt").write_text("\n".join("\t ".join(f"{v:.7e}" for v in row) for row in matrix))


def test_seven_scenes(room: Room, tmp_path: Path) -> None:
    write_seven_scenes(tmp_path / "chess" / "seq-01", room)
    (recording,) = read_seven_scenes(tmp_path / "chess", Selection(), room.intrinsics)
    assert (recording.name, recording.scene) == ("chess/seq-01", "chess")
    said = prepare([recording], tmp_path / "out")
    assert any("1 of 10 frames have no finite pose" in words for words in said)
    assert_ok(tmp_path / "out", FRAMES - 1)
    assert not read_png16(tmp_path / "out/sample_000/depth/000000.png")[:4].any()
    assert read_seven_scenes(tmp_path / "chess", Selection())[0].cameras.intrinsics[0].tolist() == [585, 585, 320, 240]


def test_seven_scenes_faults_are_told(room: Room, tmp_path: Path) -> None:
    write_seven_scenes(tmp_path / "seq-01", room)
    (tmp_path / "seq-01" / "frame-000002.depth.png").unlink()
    with pytest.raises(MissingFileError, match=r"frame-000002\.depth\.png"):
        read_seven_scenes(tmp_path, Selection())
    (tmp_path / "seq-01" / "frame-000001.pose.txt").write_text("1 0 0")
    (tmp_path / "seq-01" / "frame-000002.pose.txt").unlink()
    with pytest.raises(DataError, match="3 numbers"):
        read_seven_scenes(tmp_path, Selection())


@pytest.fixture
def re10k(room: Room, tmp_path: Path) -> tuple[Path, Path]:
    """A video of 24 frames, of which the list names ten from the eighth on, and a list whose video is absent."""
    lists, videos = tmp_path / "lists", tmp_path / "videos"
    write_video(
        videos / "abc_DEF-123.mp4", np.concatenate([room.frames[:1] * 7, room.frames, room.frames[-1:] * 7]), 10
    )
    write_cameras(lists / "0001.txt", room.cameras, "re10k")
    rows = (lists / "0001.txt").read_text().splitlines()
    stamped = [f"{(7 + k) * 100_000} {row.split(' ', 1)[1]}" for k, row in enumerate(rows)]
    (lists / "0001.txt").write_text("\n".join(["https://www.youtube.com/watch?v=abc_DEF-123", *stamped]) + "\n")
    (lists / "0002.txt").write_text("\n".join(["https://www.youtube.com/watch?v=absent", *stamped]) + "\n")
    return lists, videos


def test_re10k(room: Room, re10k: tuple[Path, Path], tmp_path: Path) -> None:
    (recording,) = read_re10k(*re10k, Selection())
    assert not recording.has_depth and "1 of 2 lists have no video" in recording.left_out[0]
    prepare([recording], tmp_path / "out")
    sample = tmp_path / "out" / "sample_000"
    assert sorted(path.name for path in sample.iterdir()) == ["camera_params.txt", "video.mp4"]
    written = read_cameras(sample / "camera_params.txt", HEIGHT, WIDTH, frames=FRAMES)
    np.testing.assert_allclose(written.extrinsics, room.cameras.extrinsics, atol=1e-6)
    np.testing.assert_allclose(written.intrinsics, room.cameras.intrinsics, atol=1e-6)
    for frame, source in zip(iter_frames(sample / "video.mp4"), room.frames, strict=True):
        assert np.abs(frame.astype(int) - source).mean() < 6


def test_re10k_faults_are_told(re10k: tuple[Path, Path]) -> None:
    lists, videos = re10k
    late = (lists / "0001.txt").read_text().replace("\n1600000 ", "\n9600000 ")
    (lists / "0001.txt").write_text(late)
    with pytest.raises(DataError, match="has no frame"):
        read_re10k(lists, videos, Selection())
    (videos / "abc_DEF-123.mp4").unlink()
    with pytest.raises(MissingFileError, match=r"abc_DEF-123\.mp4"):
        read_re10k(lists, videos, Selection())


def test_nothing_appears_when_a_picture_is_damaged(room: Room, tum: Path, tmp_path: Path) -> None:
    sorted((tum / "rgb").iterdir())[5].write_bytes(b"no picture")
    recordings = read_tum(tum, Selection(), room.intrinsics)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        prepare(recordings, tmp_path / "new" / "out")
    assert not list((tmp_path / "new").iterdir())


def test_what_is_there_is_not_replaced(room: Room, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not replaced"):
        prepare([], tmp_path)


def test_sizes_that_change_are_refused(room: Room, tmp_path: Path) -> None:
    def shots():  # type: ignore[no-untyped-def]
        yield room.frames[0], room.depth[0]
        yield room.frames[1][:32], room.depth[1]

    recording = Recording("mine", replace(room.cameras.select([0, 1])), 8.0, shots, True, "mine")
    with pytest.raises(DataError, match="frame 1 has 80x32"):
        prepare([recording], tmp_path / "out")


def test_framing() -> None:
    whole = plan_framing(481, 640, None, None)
    assert (whole.height, whole.width, whole.out_height, whole.out_width) == (480, 640, 480, 640)
    wide = plan_framing(480, 640, 336, 592)
    assert (wide.top, wide.left, wide.height, wide.width) == (58, 0, 363, 640)
    assert plan_framing(480, 640, 240, None).out_width == 320
    assert plan_framing(480, 640, None, 320).out_height == 240
    with pytest.raises(ConfigError, match="--height 333: video needs even sizes above 0. Use 332"):
        plan_framing(480, 640, 333, None)


def test_selection() -> None:
    assert Selection(3, 3).of(10) == [0, 3, 6]
    with pytest.raises(ConfigError, match="--step 0"):
        Selection(0)
