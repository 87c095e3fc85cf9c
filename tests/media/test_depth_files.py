"""Depth and point files: units, what counts as no measurement, and damaged files named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.media.depth_files import list_frames, read_depth, read_points
from tinyworld.media.png import write_depth_png

DEPTH = np.array([[0.0, 1.5, 2.25], [0.001, 65.535, 3.0]], dtype=np.float32)


def test_png_is_in_millimetres(tmp_path: Path) -> None:
    path = tmp_path / "000000.png"
    write_depth_png(path, DEPTH)
    read = read_depth(path)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, DEPTH, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_arrays_are_in_metres(tmp_path: Path, kind: type) -> None:
    values = np.array([[0.5, 1.5], [2.0, 4.0]], dtype=kind)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "one.npz", anything=values)
    np.savez_compressed(tmp_path / "two.npz", depth=values, confidence=-values)
    for name in ("a.npy", "one.npz", "two.npz"):
        read = read_depth(tmp_path / name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values)


def test_what_is_no_measurement_becomes_0(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[np.nan, np.inf, -np.inf], [-1.0, 0.0, 1e300]]))
    assert not read_depth(tmp_path / "a.npy").any()


def test_points_are_wholly_valid_or_wholly_nan(tmp_path: Path) -> None:
    points = np.ones((2, 2, 3))
    points[0, 0, 1], points[1, 1, 2] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", points=points, other=points)
    read = read_points(tmp_path / "a.npz")
    assert read.dtype == np.float32
    assert np.isnan(read).all(axis=2).tolist() == [[True, False], [False, True]]
    assert (read[0, 1] == 1).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((2, 2), dtype=np.uint16), "uint16.*floats in metres.*1000"),
        (np.ones((2, 2), dtype=complex), "complex"),
        (np.ones((1, 2, 2)), "two dimensions.*1×2×2"),
        (np.ones(()), "two dimensions.*single number"),
        (np.ones((0, 4)), "two dimensions.*0×4"),
        (np.array([{}, 1], dtype=object), "damaged"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, values: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(DataError, match=rf"a\.npy: .*{words}"):
        read_depth(tmp_path / "a.npy")


def test_other_points_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 4), dtype=np.float32))
    with pytest.raises(DataError, match=r"a\.npy: .*3 coordinates, not 4×4"):
        read_points(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.ones((4, 4, 3), dtype=np.int32))
    with pytest.raises(DataError, match=r"b\.npy: .*int32"):
        read_points(tmp_path / "b.npy")
    with pytest.raises(MissingFileError, match=r"c\.npy"):
        read_points(tmp_path / "c.npy")


def test_archives_with_other_names_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", left=DEPTH, right=DEPTH)
    with pytest.raises(DataError, match=r"holds left, right; it must hold the array depth"):
        read_depth(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_cut_and_foreign_files_are_refused(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    values = np.random.default_rng(0).random((40, 40), dtype=np.float32)
    {".npy": np.save, ".npz": np.savez, ".png": write_depth_png}[suffix](whole, values)
    data = whole.read_bytes()
    contents = [data[:length] for length in (0, 5, 60, len(data) // 2, len(data) - 30)]
    for content in [*contents, b"no such format" * 20]:
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"bad\{suffix}: "):
            read_depth(path)


def test_headers_that_promise_too_much_are_refused(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 10000000), }".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header + b"0000")
    with pytest.raises(DataError, match="damaged"):
        read_depth(tmp_path / "a.npy")


def test_pictures_that_are_no_depth_are_refused(tmp_path: Path) -> None:
    for mode in ("L", "RGB", "RGBA", "P"):
        Image.new(mode, (4, 4)).save(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"a\.png: .*16 bits"):
            read_depth(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.exr: .*\.png, \.npy, \.npz"):
        (tmp_path / "a.exr").write_bytes(b"v/1\x01")
        read_depth(tmp_path / "a.exr")


def test_real_depth_is_read(shared: Path) -> None:
    files = list_frames(shared / "data/rgbd/sample_000/depth")
    assert [file.name for file in files[:2]] == ["000000.png", "000001.png"]
    depth = read_depth(files[0])
    assert depth.shape == (192, 256)
    assert 0.3 < np.median(depth[depth > 0]) < 10


@pytest.mark.parametrize(
    ("name", "file"), [("depth_8bit", "000000"), ("depth_rgb", "000000"), ("depth_truncated_png", "000002")]
)
def test_broken_depth_is_refused(shared: Path, name: str, file: str) -> None:
    files = list_frames(shared / f"data/broken/rgbd/{name}/sample_900/depth")
    with pytest.raises(DataError, match=file):
        [read_depth(path) for path in files]


def test_the_missing_frame_is_named(shared: Path) -> None:
    with pytest.raises(DataError, match="frame 3 is missing among 8 files up to 000008.png"):
        list_frames(shared / "data/broken/rgbd/depth_missing_frame/sample_900/depth")


@pytest.mark.parametrize(
    "names",
    [
        [f"frame_{number:04d}.npy" for number in range(12)],
        [f"{number}.png" for number in range(1, 12)],
        ["depth-9.npz", *(f"depth-{number}.npz" for number in range(9)), "depth-10.npz"],
    ],
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    for name in [*names, ".frame_0000.npy", "readme.txt"]:
        (tmp_path / name).touch()
    order = sorted(names, key=lambda name: int("".join(letter for letter in name if letter.isdigit())))
    assert [path.name for path in list_frames(tmp_path)] == order


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no file with a name that ends in .png or .npy or .npz"),
        (["frame_0000.npy", "frame_0002.npy"], "frame 1 is missing"),
        (["frame_0002.npy", "frame_0003.npy"], "frame 1 is missing"),
        (["frame_0.npy", "frame_1.png"], "two kinds, frame_0.npy and frame_1.png"),
        (["depth_0.npy", "conf_0.npy"], "two kinds, conf_0.npy and depth_0.npy"),
        (["frame_1.npy", "frame_01.npy"], "frame_01.npy and frame_1.npy have the same number"),
        (["frame.npy"], "frame.npy.*does not end in a frame number"),
    ],
)
def test_folders_with_faults_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=words):
        list_frames(tmp_path)


def test_the_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="depth"):
        list_frames(tmp_path / "depth")
