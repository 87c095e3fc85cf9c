"""Camera files: every form comes back as it was written, and every fault is named with its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyworld.core.errors import ConfigError, DataError, MissingFileError
from tinyworld.core.geometry import Cameras, inverse, quaternion_to_matrix
from tinyworld.media.camera_files import Form, read_cameras, write_cameras
from tinyworld.media.camera_formats import Convention

H, W = 48, 64
INTRINSICS = (50.0, 55.0, 30.25, 20.5)
IDENTITY = "1 0 0 0 0 1 0 0 0 0 1 0"


def clip(frames: int = 3, seed: int = 0, intrinsics: tuple[float, float, float, float] = INTRINSICS) -> Cameras:
    generator = torch.Generator().manual_seed(seed)
    rotations = quaternion_to_matrix(torch.randn(frames, 4, generator=generator, dtype=torch.float64))
    translations = torch.randn(frames, 3, 1, generator=generator, dtype=torch.float64)
    values = torch.tensor(intrinsics, dtype=torch.float64).repeat(frames, 1)
    return Cameras(torch.cat([rotations, translations], -1), values, H, W)


def written(folder: Path, text: str, name: str = "cameras.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, *words: str, frames: int | None = None) -> None:
    """Refused in one paragraph that names the file and these words."""
    with pytest.raises(DataError) as caught:
        read_cameras(path, H, W, "w2c", frames=frames, intrinsics=INTRINSICS)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path.name, *words):
        assert word in message


@pytest.mark.parametrize("convention", get_args(Convention))
@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_comes_back(tmp_path: Path, form: Form, convention: Convention) -> None:
    middle = (50.0, 50.0, (W - 1) / 2, (H - 1) / 2)
    cameras = clip(5, intrinsics=middle if form == "json" else INTRINSICS)
    path = tmp_path / "new/cameras.txt"
    write_cameras(path, cameras, form, convention)
    read = read_cameras(path, H, W, "c2w" if form == "json" else convention, frames=5, intrinsics=INTRINSICS)
    assert read.extrinsics.dtype == read.intrinsics.dtype == torch.float64
    assert (read.height, read.width) == (H, W)
    torch.testing.assert_close(read.extrinsics, cameras.extrinsics, atol=1e-12, rtol=0)
    torch.testing.assert_close(read.intrinsics, cameras.intrinsics, atol=1e-12, rtol=0)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.floats(5, 500), st.floats(-100, 100))
def test_any_camera_comes_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, focal: float, centre: float
) -> None:
    cameras = clip(2, seed, (focal, focal / 2 + 3, centre, -centre))
    path = tmp_path_factory.mktemp("cameras") / "cameras.txt"
    for form in ("17", "re10k"):
        write_cameras(path, cameras, form)
        read = read_cameras(path, H, W)
        torch.testing.assert_close(read.extrinsics, cameras.extrinsics, atol=1e-12, rtol=0)
        torch.testing.assert_close(read.intrinsics, cameras.intrinsics, atol=1e-10, rtol=0)


def test_float32_cameras_come_back(tmp_path: Path) -> None:
    cameras = clip().to(torch.float32)
    write_cameras(tmp_path / "cameras.txt", cameras, "re10k")
    read = read_cameras(tmp_path / "cameras.txt", H, W)
    torch.testing.assert_close(read.extrinsics.float(), cameras.extrinsics, atol=1e-6, rtol=0)


def test_real_estate_10k_by_hand(tmp_path: Path) -> None:
    """Its principal point counts from the picture's edge: 0.5 is the middle, (W-1)/2 where pixel centres are whole."""
    line = f"43376667 0.5 0.9 0.5 0.5 0 0 {IDENTITY[:-1]}7\n"
    path = written(tmp_path, f"https://www.youtube.com/watch?v=x\n\n{line}")
    read = read_cameras(path, H, W, frames=1)
    expected = [0.5 * W, 0.9 * H, (W - 1) / 2, (H - 1) / 2]
    torch.testing.assert_close(read.intrinsics[0], torch.tensor(expected, dtype=torch.float64))
    assert read.extrinsics[0, :, 3].tolist() == [0, 0, 7]


def test_the_guide_s_default_prefix(tmp_path: Path) -> None:
    path = written(tmp_path, f"0 0.532139961 0.946026558 0.5 0.5 0 0 {IDENTITY}\r\n" * 2)
    read = read_cameras(path, 336, 592, frames=2)
    torch.testing.assert_close(read.intrinsics[1, :2], torch.tensor([315.0268569, 317.8649235], dtype=torch.float64))


def test_the_release_s_json(tmp_path: Path) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = (1, 2, 3)
    keys = {"focal_length": 50, "scale": 1, "cameras": [], "cameras_interp": [np.eye(4).tolist(), matrix.tolist()]}
    read = read_cameras(written(tmp_path, json.dumps(keys)), H, W)
    assert read.intrinsics[0].tolist() == [50, 50, 31.5, 23.5]
    assert read.centres()[1].tolist() == [1, 2, 3]  # camera→world: the last column is the position


def test_the_convention_given_counts_more_than_the_form_s(tmp_path: Path) -> None:
    cameras = clip()
    write_cameras(tmp_path / "cameras.txt", cameras, "17")
    other_way = read_cameras(tmp_path / "cameras.txt", H, W, "c2w")
    torch.testing.assert_close(other_way.extrinsics, inverse(cameras.extrinsics))


@pytest.mark.parametrize("form", ["12", "16"])
def test_matrices_alone_need_convention_and_intrinsics(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "cameras.txt"
    write_cameras(path, clip(), form)
    with pytest.raises(ConfigError, match=r"data\.camera_convention to w2c .* or c2w"):
        read_cameras(path, H, W, intrinsics=INTRINSICS)
    with pytest.raises(ConfigError, match=r"data\.camera_intrinsics to fx, fy, cx, cy"):
        read_cameras(path, H, W, "w2c")
    with pytest.raises(ConfigError, match="finite"):
        read_cameras(path, H, W, "w2c", intrinsics=(1.0, float("nan"), 1.0, 1.0))


def test_rotations_with_few_digits_become_exact(tmp_path: Path) -> None:
    cameras = clip(8)
    rows = np.round(cameras.extrinsics.numpy().reshape(8, 12), 4)
    path = written(tmp_path, "".join(" ".join(map(str, row)) + "\n" for row in rows))
    rotation = read_cameras(path, H, W, "w2c", intrinsics=INTRINSICS).extrinsics[..., :3]
    identity = torch.eye(3, dtype=torch.float64).expand(8, 3, 3)
    torch.testing.assert_close(rotation.mT @ rotation, identity, atol=1e-14, rtol=0)
    torch.testing.assert_close(rotation, cameras.extrinsics[..., :3], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cam_nan", ("line 5", "nan", "finite")),
        ("cam_inf", ("line 3", "inf", "finite")),
        ("cam_too_few_lines", ("line 6", "6 frames", "9 frames")),
        ("cam_too_many_lines", ("line 10", "frame number 0", "9 is due")),
        ("cam_wrong_columns", ("line 4", "16 numbers", "17")),
        ("cam_not_rotation", ("line 1", "not a rotation", "1.25")),
        ("cam_reflection", ("line 1", "reflection", "-1")),
        ("cam_zero_focal", ("line 1", "fx 0, fy 0", "above 0")),
        ("cam_index_order", ("line 3", "frame number 3", "2 is due")),
        ("cam_not_numbers", ("line 2", "'abc'", "not a number")),
        ("cam_empty", ("empty",)),
    ],
)
def test_broken_files_are_refused(shared: Path, name: str, words: tuple[str, ...]) -> None:
    refused(shared / f"data/broken/rgbd/{name}/sample_900/camera_params.txt", *words, frames=9)


def test_real_files_are_read(shared: Path) -> None:
    root = shared / "data/rgbd"
    for entry in json.loads((root / "metadata.json").read_text(encoding="utf-8")):
        read = read_cameras(root / entry["camera_params"], entry["height"], entry["width"], frames=entry["num_frames"])
        assert read.extrinsics.shape == (entry["num_frames"], 3, 4)
    assert (
        len(read_cameras(shared / "data/broken/rgbd/good/sample_900/camera_params.txt", 192, 256, frames=9).extrinsics)
        == 9
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 1 2\n", ("line 1", "3 numbers", "12", "16", "17", "19")),
        ("# index fx fy\n", ("line 1", "'#'")),
        (f"https://a.example/b\n0 0.5 0.9 0.5 0.5 0.1 0 {IDENTITY}\n", ("line 2", "lens distortion")),
        ("https://a.example/b\n", ("empty",)),
        (f"0 50 55 30 20 0 0 {IDENTITY}\n", ("line 1", "fx is 3200 pixels", "lines of 19")),
        (f"0 0.5 0.9 0.5 0.5 {IDENTITY}\n", ("line 1", "fx is 0.5 pixels", "178")),
        (f"0 50 -55 30 20 {IDENTITY}\n", ("line 1", "fy -55", "above 0")),
        (f"1 50 55 30 20 {IDENTITY}\n", ("line 1", "frame number 1", "0 is due")),
        (f"{IDENTITY} 0 0 0 2\n", ("line 1", "last row", "0 0 0 2")),
        (f"{IDENTITY}\n\n{IDENTITY.replace('1', '1e200')}\n", ("line 3", "not a rotation")),
    ],
)
def test_faulty_lines_are_refused(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    refused(written(tmp_path, text), *words)


@pytest.mark.parametrize("form", get_args(Form))
def test_the_number_of_cameras_is_that_of_the_frames(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "cameras.txt"
    write_cameras(path, clip(5, intrinsics=(50.0, 50.0, (W - 1) / 2, (H - 1) / 2)), form)
    refused(path, "cameras of 5 frames", "cameras_interp[4]" if form == "json" else "line 5", "3 frames", frames=3)
    refused(path, "cameras of 5 frames", "6 frames", frames=6)


def _without_focal(keys: dict) -> object:
    return {"cameras_interp": keys["cameras_interp"]}


def _with(name: str, value: object) -> Callable[[dict], object]:
    return lambda keys: {**keys, name: value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda keys: [keys], ("object", "focal_length", "cameras_interp")),
        (_without_focal, ("focal_length",)),
        (_with("focal_length", True), ("focal_length", "number")),
        (_with("focal_length", float("inf")), ("focal_length", "inf")),
        (_with("focal_length", 0), ("cameras_interp[0]", "above 0")),
        (_with("cameras_interp", []), ("cameras_interp", "list")),
        (_with("cameras_interp", [np.eye(4).tolist(), np.eye(3).tolist()]), ("cameras_interp[1]", "4×4")),
        (_with("cameras_interp", [[["a"] * 4] * 4]), ("cameras_interp[0]", "numbers")),
        (_with("cameras_interp", [(2 * np.eye(4)).tolist()]), ("cameras_interp[0]", "last row")),
        (_with("cameras_interp", [np.diag([1, 1, -1, 1]).tolist()]), ("cameras_interp[0]", "reflection")),
    ],
)
def test_faulty_json_is_refused(tmp_path: Path, change: Callable[[dict], object], words: tuple[str, ...]) -> None:
    keys = {"focal_length": 50, "scale": 1, "cameras_interp": [np.eye(4).tolist()]}
    refused(written(tmp_path, json.dumps(change(keys))), *words)


def test_json_that_is_cut_or_too_deep_is_refused(tmp_path: Path) -> None:
    refused(written(tmp_path, '{"focal_length": 50,\n "cameras_interp": [['), "line 2", "JSON")
    refused(written(tmp_path, "[" * 100_000), "JSON")


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "cameras.txt"
    with pytest.raises(MissingFileError, match=r"cameras\.txt"):
        read_cameras(path, H, W)
    path.write_bytes(b"0 1 \xff\xfe\n")
    refused(path, "UTF-8", "byte 4")


def test_json_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    with pytest.raises(DataError, match="re10k"):
        write_cameras(path, clip(), "json")
    assert not path.exists()


def test_batches_are_not_written(tmp_path: Path) -> None:
    cameras = clip()
    batch = Cameras(cameras.extrinsics[None], cameras.intrinsics[None], H, W)
    with pytest.raises(ValueError, match="one clip"):
        write_cameras(tmp_path / "cameras.txt", batch, "17")
