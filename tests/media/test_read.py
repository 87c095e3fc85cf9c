"""Frame-exact reading in every common container, and one clear refusal for every kind of damage."""

import logging
import random
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from tests.media.numbered_clips import HEIGHT, WIDTH, number_of
from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.media import read
from tinyworld.media.container import decode
from tinyworld.media.read import iter_frames, probe, read_frames

FORMATS = {
    "b_frames.mp4": {},
    "one_gop.mp4": {"gop": 250},
    "quicktime.mov": {"codec": "mpeg4"},
    "matroska.mkv": {},
    "open_gop.mkv": {"x264-params": "open-gop=1"},
    "transport.ts": {},
    "open_gop.ts": {"x264-params": "open-gop=1"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "late_start.ts": {"times": [500 + i for i in range(40)]},
    "late_start.mp4": {"times": [77 + i for i in range(40)]},
    "variable_rate.mp4": {"times": [i * i for i in range(40)]},
    "variable_rate.mkv": {"times": [9 + i * (i + 1) // 2 for i in range(40)]},
    "hidden_frames.webm": {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "16"},
    "vp9.webm": {"codec": "libvpx-vp9", "lag-in-frames": "16"},
    "asp.avi": {"codec": "mpeg4"},
    "flash.flv": {},
    "fragments.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "no_times.h264": {},
}


@pytest.mark.parametrize("name", FORMATS)
def test_any_frames_in_any_order_are_the_frames_of_a_straight_read(name: str, make_clip: Callable[..., Path]) -> None:
    path = make_clip(name, 40, **FORMATS[name])
    straight = np.stack(list(iter_frames(path)))
    assert [number_of(frame) for frame in straight] == list(range(40))
    info = probe(path)
    assert (info.frames, info.width, info.height) == (40, WIDTH, HEIGHT)
    rng = random.Random(name)
    for indices in (
        [0],
        [39],
        [39, 0, 17, 17],
        list(range(10, 22)),
        *([rng.randrange(40) for _ in range(5)] for _ in range(6)),
    ):
        np.testing.assert_array_equal(read_frames(path, indices), straight[indices])


@pytest.mark.parametrize("name", ["b_frames.mp4", "matroska.mkv", "transport.ts", "vp9.webm", "open_gop.mkv"])
def test_reading_starts_at_the_keyframe_before(
    name: str, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(name, 80, **FORMATS[name])
    fed: list[object] = []
    decode = read.decode

    def counting(path: Path, packets: Iterator[object], start: int | None = None) -> Iterator[object]:
        return decode(path, (fed.append(packet) or packet for packet in packets), start)

    monkeypatch.setattr(read, "decode", counting)
    assert number_of(read_frames(path, [70])[0]) == 70
    assert len(fed) <= 20  # keyframes come every 8 frames; a few packets more are needed until frame 70 comes out


def test_frames_from_before_the_keyframe_are_left_out_damaged_or_not() -> None:
    """After a seek to an open group of pictures, its leading frames lack what they are predicted from."""

    class Frame:
        def __init__(self, pts: int, is_corrupt: bool) -> None:
            self.pts, self.is_corrupt, self.time = pts, is_corrupt, pts / 25

    class Packet:
        def __init__(self, *frames: Frame) -> None:
            self.decode = lambda: list(frames)

    leading = [Packet(Frame(8, True)), Packet(Frame(9, False), Frame(10, False))]
    assert [frame.pts for frame in decode(Path("x"), iter([*leading, Packet(Frame(11, False))]), start=10)] == [10, 11]
    with pytest.raises(DataError, match=r"damaged video data near 0\.44 s: the decoder had to conceal errors"):
        list(decode(Path("x"), iter([*leading, Packet(Frame(11, True))]), start=10))


def test_packets_that_show_nothing_are_no_frames(make_clip: Callable[..., Path]) -> None:
    """VP8 keeps references in packets that are decoded but not shown: here one is put in between."""
    path = make_clip("plain.webm", 20, codec="libvpx")
    hiding = path.with_name("hiding.webm")
    with av.open(str(path)) as source, av.open(str(hiding), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            time, data = packet.pts, bytearray(bytes(packet))
            packet.stream = stream
            target.mux(packet)
            if time == 0:
                data[0] &= ~0x10  # the show_frame bit
                hidden = av.Packet(bytes(data))
                hidden.stream, hidden.pts, hidden.dts, hidden.time_base = stream, 20, 20, Fraction(1, 1000)
                target.mux(hidden)
    with av.open(str(hiding)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 21
    assert probe(hiding).frames == 20
    assert [number_of(frame) for frame in iter_frames(hiding)] == list(range(20))
    assert [number_of(frame) for frame in read_frames(hiding, [0, 1, 9, 19])] == [0, 1, 9, 19]


@pytest.mark.parametrize(
    ("height", "width", "codec", "pixels", "matrix"),
    [
        (64, 64, "libx264", "yuv420p", Colorspace.ITU601),
        (64, 1280, "libx264", "yuv420p", Colorspace.ITU709),
        (578, 64, "libx264", "yuv420p", Colorspace.ITU709),
        (64, 64, "mjpeg", "yuvj420p", Colorspace.ITU601),
    ],
)
def test_untagged_colours_are_taken_as_players_take_them(
    height: int, width: int, codec: str, pixels: str, matrix: Colorspace, tmp_path: Path
) -> None:
    colour = (180, 60, 20)
    picture = np.broadcast_to(np.array(colour, dtype=np.uint8), (height, width, 3))
    full = ColorRange.JPEG if pixels == "yuvj420p" else ColorRange.MPEG
    with av.open(str(tmp_path / "c.avi"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=full)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "c.avi")) as container:
        assert next(container.decode(video=0)).colorspace in (2, 5)  # unspecified; JPEG is BT.601 by definition
    assert np.abs(read_frames(tmp_path / "c.avi", [0])[0].astype(int) - np.array(colour)).max() <= 4


def test_a_seek_that_lands_too_late_is_noticed_and_mended(
    make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip("clip.mkv", 40)

    class Late:
        """A container whose seek always lands at the end of the file."""

        def __init__(self, container: object) -> None:
            self.container = container

        def __getattr__(self, name: str) -> object:
            return getattr(self.container, name)

        def seek(self, time: int, **kwargs: object) -> None:
            self.container.seek(10**6, **kwargs)

    open_video = read.open_video

    class opened:
        def __init__(self, path: Path) -> None:
            self.inner = open_video(path)

        def __enter__(self) -> tuple[object, object]:
            container, stream = self.inner.__enter__()
            return Late(container), stream

        def __exit__(self, *exc: object) -> object:
            return self.inner.__exit__(*exc)

    monkeypatch.setattr(read, "open_video", opened)
    assert [number_of(frame) for frame in read_frames(path, [20, 25])] == [20, 25]


def test_a_phone_clip_comes_upright(make_clip: Callable[..., Path]) -> None:
    path = make_clip("phone.mp4", 12)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: the 3x3 matrix follows 40 bytes of times, ids and volume
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(
        ">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30
    )  # a quarter turn clockwise
    turned = path.with_name("turned.mp4")
    turned.write_bytes(data)
    assert (probe(turned).width, probe(turned).height) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(read_frames(turned, [5])[0], np.rot90(read_frames(path, [5])[0], -1))


@pytest.mark.parametrize("indices", [[40], [-1], [0, 99]])
def test_a_frame_outside_the_file_is_refused(indices: list[int], make_clip: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"was asked for, the file has 40 \(0 to 39\)"):
        read_frames(make_clip("clip.mp4", 40), indices)


def test_a_region_is_cut_out_of_each_frame(make_clip: Callable[..., Path]) -> None:
    path = make_clip("clip.mp4", 10)
    whole = read_frames(path, [7, 2])
    np.testing.assert_array_equal(read_frames(path, [7, 2], (8, 30, 40, 60)), whole[:, 8:48, 30:90])
    for region in ((-1, 0, 8, 8), (0, 0, HEIGHT + 1, 8), (0, WIDTH - 7, 8, 8)):
        with pytest.raises(DataError, match=f"do not lie in {WIDTH}x{HEIGHT}"):
            read_frames(path, [0], region)


def test_no_index_is_a_programming_error(make_clip: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="at least one index"):
        read_frames(make_clip("clip.mp4", 4), [])


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        probe(tmp_path / "absent.mp4")
    with pytest.raises(DataError, match="not a file"):
        probe(tmp_path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cut.mkv", {}),
        ("cut.webm", {"codec": "libvpx"}),
        ("cut.avi", {"codec": "mpeg4"}),
        ("cut.mp4", {"muxer": {"movflags": "faststart"}}),
        ("cut.mpg", {"codec": "mpeg2video"}),
    ],
)
def test_a_cut_file_is_noticed_although_it_decodes(name: str, options: dict, make_clip: Callable[..., Path]) -> None:
    path = make_clip(name, 200, **options)
    path.write_bytes(path.read_bytes()[: int(0.55 * path.stat().st_size)])
    with pytest.raises(
        DataError, match=r"the file was cut: its header promises|video packets are damaged or incomplete"
    ):
        probe(path)


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "c.ts", "d.webm"])
def test_random_damage_never_escapes_as_another_error(name: str, make_clip: Callable[..., Path]) -> None:
    path = make_clip(name, 60, codec="libvpx" if name == "d.webm" else "libx264")
    good = path.read_bytes()
    found = 0
    for seed in range(12):
        rng = random.Random(seed)
        data = bytearray(good)
        for _ in range(30):
            data[rng.randrange(len(data))] = rng.randrange(256)
        damaged = path.with_name(f"{seed}-{name}")
        damaged.write_bytes(data)
        try:
            count = probe(damaged).frames
            assert len(list(iter_frames(damaged))) == count
        except DataError as error:
            assert str(damaged) in str(error)
            found += 1
    assert found >= 8


REASONS = {
    "truncated_no_moov.mp4": "cannot be opened: moov atom not found",
    "truncated_faststart.mp4": "header promises 49 frames, it holds 18",
    "zero_byte.mp4": "the file is empty",
    "audio_only.mp4": r"no video stream \(it holds: audio\)",
    "text.mp4": "cannot be opened: .*Invalid data found",
    "corrupt_bits.mp4": "damaged video data near .* s: error while decoding MB",
    "variable_resolution.ts": "picture size changes from 384x256 to 256x160 at frame 17",
    "variable_resolution.mp4": "picture size changes from 384x256 to 256x160 at frame 17",
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REASONS)
def test_broken_clips_are_refused_with_libavs_reason(
    name: str, shared: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = shared / "data/broken/clips" / name
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):  # the second time must not be less clear than the first
            with pytest.raises(DataError, match=REASONS[name]) as caught:
                list(iter_frames(path))
            assert str(path) in str(caught.value)
            with pytest.raises(DataError):
                read_frames(path, [0, 20, 40])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.shared
def test_a_size_other_than_the_first_frames_is_refused_wherever_reading_starts(shared: Path) -> None:
    path = shared / "data/broken/clips/variable_resolution.ts"
    assert read_frames(path, range(12)).shape == (12, 256, 384, 3)
    for window in (range(10, 22), range(20, 30), range(40, 49)):
        with pytest.raises(DataError, match="picture size changes from 384x256 to"):
            read_frames(path, window)


@pytest.mark.shared
def test_short_and_tiny_clips_are_what_they_are(shared: Path) -> None:
    folder = shared / "data/broken/clips"
    assert [probe(folder / f"{name}.mp4").frames for name in ("one_frame", "three_frames", "tiny_16x16")] == [1, 3, 33]
    assert read_frames(folder / "tiny_16x16.mp4", [32]).shape == (1, 16, 16, 3)


@pytest.mark.shared
def test_real_clips_read_exactly(shared: Path) -> None:
    for name in ("davis_camel", "mdn_flower", "nasa_jwst"):
        path = shared / f"data/clips/{name}.mp4"
        straight = np.stack(list(iter_frames(path)))
        assert len(straight) == probe(path).frames
        indices = [len(straight) - 1, 3, 40, 41]
        np.testing.assert_array_equal(read_frames(path, indices), straight[indices])
