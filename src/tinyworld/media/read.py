"""Reading video: what is in a file, chosen frames exactly, all frames in order.

Conventions. Frames are RGB uint8 H W C in [0, 255], upright (a phone's rotation tag is applied in steps of 90 degrees),
pixels as stored (no correction of non-square pixels, no deinterlacing, no tone mapping of HDR). Untagged colours are
taken as players take them: BT.709 from 1280 wide or 577 high, else BT.601; limited range unless the format says full.
Frames are numbered from 0 in presentation order, whatever their time stamps (variable frame rates included).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from tinyworld.core.errors import DataError
from tinyworld.media.container import (
    FrameTable,
    decode,
    frame_table,
    libav_errors,
    open_video,
    quarter_turns,
    upright_size,
)

Region = tuple[int, int, int, int]

AVCOL_SPC_UNSPECIFIED = 2
CHROMA = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class VideoInfo:
    """What a file really holds. width, height: of the upright picture, pixels. fps: mean frame rate (0 if unknown)."""

    path: Path
    width: int
    height: int
    fps: float
    frames: int


def probe(path: str | Path) -> VideoInfo:
    """Look at a file without decoding it all: every packet is read, one frame is decoded.

    Raises MissingFileError, or DataError with libav's reason: unreadable, empty, no video stream, damaged packets, a
    header that promises more frames (or more seconds) than are there, no frame that can be decoded.
    """
    path = Path(path)
    table = frame_table(path)
    return VideoInfo(path, table.width, table.height, table.fps, table.frames)


def read_frames(path: str | Path, indices: Sequence[int], region: Region | None = None) -> np.ndarray:
    """The frames `indices` (any order, repeats allowed) as uint8 T H W C.

    region: (top, left, height, width) in pixels, cut out of each frame as it is decoded: a crop of a large video costs
    the memory of the crop.

    Reading starts at the keyframe before the first wanted frame; every frame is matched by its presentation time, so
    the result does not depend on how well the container seeks. Raises ValueError for no index; DataError for an index
    outside the file, a region outside the picture, damaged data up to the last wanted frame, a picture size that is not
    that of the first frame.
    """
    path = Path(path)
    table = frame_table(path)
    wanted = set(indices)
    if not wanted:
        raise ValueError("read_frames needs at least one index")
    if min(wanted) < 0 or max(wanted) >= table.frames:
        bad = min(wanted) if min(wanted) < 0 else max(wanted)
        raise DataError(f"{path}: frame {bad} was asked for, the file has {table.frames} (0 to {table.frames - 1})")
    top, left, height, width = region or (0, 0, table.height, table.width)
    if top < 0 or left < 0 or top + height > table.height or left + width > table.width:
        raise DataError(
            f"{path}: {width}x{height} pixels at ({left}, {top}) do not lie in {table.width}x{table.height}"
        )
    cut = (slice(top, top + height), slice(left, left + width))
    found = _read(path, table, wanted, min(wanted), cut)
    if len(found) < len(wanted):  # the container's seek missed its keyframe: decode from the start of the file
        found = _read(path, table, wanted, 0, cut)
    if len(found) < len(wanted):
        lost = min(wanted - set(found))
        raise DataError(f"{path}: damaged video data: frame {lost} of {table.frames} cannot be decoded")
    return np.stack([found[index] for index in indices])


def iter_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order as uint8 H W C, one in memory at a time. Raises DataError as `read_frames` does."""
    path = Path(path)
    table = frame_table(path)
    to_picture = _ToPicture(path, table)
    expected = 0
    for index, frame in _numbered(path, table, 0):
        if index != expected:
            break
        to_picture.check_size(frame, index)
        yield np.ascontiguousarray(to_picture(frame))
        expected += 1
    if expected < table.frames:
        raise DataError(f"{path}: damaged video data: frame {expected} of {table.frames} cannot be decoded")


def _read(
    path: Path, table: FrameTable, wanted: set[int], first: int, cut: tuple[slice, slice]
) -> dict[int, np.ndarray]:
    """Those of the wanted frames that decoding from the keyframe before frame `first` brings, `cut` out of each."""
    to_picture = _ToPicture(path, table)
    found: dict[int, np.ndarray] = {}
    for index, frame in _numbered(path, table, first):
        to_picture.check_size(frame, index)
        if index in wanted:
            found[index] = to_picture(frame)[cut].copy()
        if len(found) == len(wanted):
            break
    return found


def _numbered(path: Path, table: FrameTable, first: int) -> Iterator[tuple[int, VideoFrame]]:
    """(index, frame) from the keyframe before frame `first` to the end; nothing where the seek lands behind it."""
    with open_video(path) as (container, stream):
        packets = container.demux(stream)
        if table.times is None:
            yield from enumerate(decode(path, packets))
            return
        key = np.searchsorted(table.keys[0], table.times[first], side="right") - 1
        start = int(table.keys[0, key])
        if key > 0:
            head = None
            with libav_errors(path, "cannot be searched"):
                for target in table.keys[:, key]:  # some containers search by presentation time, some by decoding time
                    container.seek(int(target), stream=stream, backward=True)
                    packets = container.demux(stream)
                    # MPEG-TS lands between keyframes, where decoding would begin with garbage.
                    head = next((packet for packet in packets if packet.is_keyframe), None)
                    if head is not None and head.pts is not None and head.pts <= start:
                        break
                else:
                    return
            packets = itertools.chain([head], packets)
        for frame in decode(path, packets, start):
            index = int(np.searchsorted(table.times, frame.pts)) if frame.pts is not None else table.frames
            if index < table.frames and table.times[index] == frame.pts:
                yield index, frame


class _ToPicture:
    """Turns the decoded frames of one file into upright RGB arrays of one size."""

    def __init__(self, path: Path, table: FrameTable) -> None:
        self.path = path
        self.size = (table.width, table.height)
        self.reformatter = VideoReformatter()

    def check_size(self, frame: VideoFrame, index: int) -> None:
        size = upright_size(frame)
        if size != self.size:
            (width, height), (new_width, new_height) = self.size, size
            raise DataError(
                f"{self.path}: picture size changes from {width}x{height} to {new_width}x{new_height} at frame {index}"
            )

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """uint8 H W 3."""
        matrix = None  # as tagged
        if frame.colorspace == AVCOL_SPC_UNSPECIFIED and not frame.format.is_rgb:
            matrix = Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
        rgb = self.reformatter.reformat(
            frame, format="rgb24", src_colorspace=matrix, interpolation=CHROMA, threads=1
        ).to_ndarray()
        return np.rot90(rgb, quarter_turns(frame))
