"""Written video reads back as what it was: frames, colours, tags; and a file is complete or absent."""

from pathlib import Path

import av
import numpy as np
import pytest

from tinyworld.core.errors import DataError
from tinyworld.media.read import iter_frames, probe, read_frames
from tinyworld.media.write import VideoWriter, write_video


def flat(colour: tuple[int, int, int], height: int, width: int, frames: int = 3) -> np.ndarray:
    return np.broadcast_to(np.array(colour, dtype=np.uint8), (frames, height, width, 3))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (720, 1280)])
@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 30, 90)])
def test_colours_survive_in_both_matrices(
    colour: tuple[int, int, int], height: int, width: int, tmp_path: Path
) -> None:
    write_video(tmp_path / "c.mp4", flat(colour, height, width), 24, crf=1)
    back = read_frames(tmp_path / "c.mp4", [1])[0].astype(int)
    assert np.abs(back - np.array(colour)).max() <= 3


@pytest.mark.parametrize(
    ("height", "width", "tags"), [(128, 228, (6, 1, 6, 6)), (720, 1280, (1, 1, 1, 1)), (600, 400, (1, 1, 1, 1))]
)
def test_colour_tags(height: int, width: int, tags: tuple[int, ...], tmp_path: Path) -> None:
    """Matrix, range (1: limited), primaries, transfer: 1 is BT.709, 6 SMPTE 170M (BT.601)."""
    write_video(tmp_path / "c.mp4", flat((9, 8, 7), height, width), 24)
    with av.open(str(tmp_path / "c.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == tags
        assert context.name == "h264"
        assert context.pix_fmt == "yuv420p"
        assert not container.streams.audio


@pytest.mark.shared
def test_a_real_picture_survives(shared: Path, tmp_path: Path) -> None:
    frames = read_frames(shared / "data/clips/davis_camel.mp4", range(4))
    for crf, floor in ((1, 46.0), (18, 34.0)):
        write_video(tmp_path / "c.mp4", frames, 24, crf=crf)
        error = np.stack(list(iter_frames(tmp_path / "c.mp4"))).astype(float) - frames
        assert 10 * np.log10(255**2 / np.mean(error**2)) > floor
        assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.5  # no colour shift


@pytest.mark.parametrize(("height", "width"), [(63, 65), (64, 65), (1, 1)])
def test_odd_sizes_are_padded_with_their_edge(height: int, width: int, tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None] * 3, (height, width, 3))
    write_video(tmp_path / "odd.mp4", [ramp] * 2, 24, crf=1)
    info = probe(tmp_path / "odd.mp4")
    assert (info.height, info.width) == (height + height % 2, width + width % 2)
    back = read_frames(tmp_path / "odd.mp4", [0])[0].astype(int)
    assert np.abs(back[:height, :width] - ramp).max() <= 8
    assert np.abs(back[-1, -1] - ramp[-1, -1]).max() <= 8


@pytest.mark.parametrize(("fps", "read"), [(24, 24), (30000 / 1001, 30000 / 1001), (12.5, 12.5), (8, 8)])
def test_frame_rates(fps: float, read: float, tmp_path: Path) -> None:
    write_video(tmp_path / "c.mp4", flat((1, 2, 3), 32, 32, frames=20), fps)
    assert probe(tmp_path / "c.mp4").fps == pytest.approx(read, abs=1e-9)
    assert probe(tmp_path / "c.mp4").frames == 20


def test_the_index_is_at_the_front(tmp_path: Path) -> None:
    write_video(tmp_path / "c.mp4", flat((1, 2, 3), 32, 32), 24)
    data = (tmp_path / "c.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, 24)
    write_video(tmp_path / "b.mp4", iter(frames), 24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_exception_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    with pytest.raises(RuntimeError, match="mine"), VideoWriter(path, 32, 32, 24) as writer:
        writer.write(flat((1, 2, 3), 32, 32)[0])
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []
    write_video(path, flat((1, 2, 3), 32, 32), 24)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="frame is uint8"), VideoWriter(path, 32, 32, 24) as writer:
        writer.write(flat((1, 2, 3), 16, 32)[0])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_no_frames_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "c.mp4", [], 24)
    with pytest.raises(ValueError, match="no frame was written"), VideoWriter(tmp_path / "c.mp4", 32, 32, 24):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("width", "height", "fps", "crf"), [(0, 8, 24, 18), (8, 8, 0, 18), (8, 8, float("nan"), 18), (8, 8, 24, 60)]
)
def test_impossible_settings_are_refused(width: int, height: int, fps: float, crf: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot write"):
        VideoWriter(tmp_path / "c.mp4", width, height, fps, crf)


def test_a_folder_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").mkdir()
    with pytest.raises(DataError, match=r"c\.mp4: cannot be written"):
        write_video(tmp_path / "c.mp4", flat((1, 2, 3), 32, 32), 24)
