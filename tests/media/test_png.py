"""Pictures and 16-bit depth maps in PNG files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.media.png import read_png16, write_depth_png, write_png


@given(
    depth=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(-1, 80, width=32)
    )
)
def test_depth_is_millimetres_and_what_cannot_be_held_is_zero(
    depth: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "depth.png"
    write_depth_png(path, depth)
    back = read_png16(path)
    assert back.dtype == np.uint16
    millimetres = np.rint(depth.astype(np.float64) * 1000)
    inside = (millimetres >= 1) & (millimetres <= 65535)
    np.testing.assert_array_equal(back[inside], millimetres[inside])
    assert not back[~inside].any()


def test_no_measurement(tmp_path: Path) -> None:
    write_depth_png(tmp_path / "d.png", np.array([[np.nan, np.inf, -np.inf, 0.0, -3.0, 65.536, 65.535]]))
    assert read_png16(tmp_path / "d.png").tolist() == [[0, 0, 0, 0, 0, 0, 65535]]


def test_pictures(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "new/folder/p.png", picture)
    with Image.open(tmp_path / "new/folder/p.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    write_png(tmp_path / "g.png", picture[..., 0])
    with Image.open(tmp_path / "g.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture[..., 0])


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_wrong_arrays_are_refused(wrong: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a PNG picture is"):
        write_png(tmp_path / "p.png", wrong)
    with pytest.raises(ValueError, match="a depth map is"):
        write_depth_png(tmp_path / "p.png", wrong.astype(np.int64))


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    write_depth_png(tmp_path / "good.png", np.random.default_rng(0).random((40, 40)) * 9)
    data = (tmp_path / "good.png").read_bytes()
    cases = {
        "cut.png": (data[: len(data) // 2], "damaged PNG"),
        "flipped.png": (data[:200] + bytes(byte ^ 255 for byte in data[200:260]) + data[260:], "damaged PNG"),
        "text.png": (b"not a picture", "not a PNG"),
        "empty.png": (b"", "not a PNG"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_png16(tmp_path / name)
    write_png(tmp_path / "colour.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="mode RGB"):
        read_png16(tmp_path / "colour.png")
    write_png(tmp_path / "grey.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="mode L,"):
        read_png16(tmp_path / "grey.png")
    with pytest.raises(MissingFileError):
        read_png16(tmp_path / "absent.png")


@pytest.mark.shared
def test_real_depth(shared: Path) -> None:
    values = read_png16(shared / "data/rgbd/sample_000/depth/000000.png")
    assert values.shape == (192, 256)
    assert 500 < np.median(values[values > 0]) < 20000
    with pytest.raises(DataError, match="damaged PNG"):
        read_png16(next((shared / "data/broken/rgbd/depth_truncated_png").rglob("*2.png")))
