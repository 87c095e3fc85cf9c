"""Opening a video file with libav, and the table of the frames that are really in it.

libav's own messages never reach the terminal; they are captured and become the reason in our errors.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tinyworld.core.errors import DataError, MissingFileError

MOV = "mov,mp4,m4a,3gp,3g2,mj2"
DURATION_IN_HEADER = (MOV, "matroska,webm")
"""Demuxers whose duration is what the file's header says, not an estimate from the bit rate."""
MIN_COVERED = 0.9
"""A file whose packets cover less than this part of the duration in its header was cut."""
HIDDEN_FRAMES = ("vp8",)
"""Codecs with packets that are decoded but never shown, so that packets cannot be counted as frames."""

logging.getLogger("libav").addHandler(logging.NullHandler())

Shown = tuple[int | None, int | None, bool]
"""Of a packet that shows a frame: presentation time, decoding time, is it a keyframe."""


@contextmanager
def libav_errors(path: Path, doing: str) -> Iterator[list[tuple[int, str, str]]]:
    """Turn a libav error into a DataError "<path>: <doing>: <libav's reason>", and keep libav's log to ourselves.

    Yields the list of (level, part, message) that libav logs inside the block.
    """
    if av.logging.get_level() is None:
        av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # else the reason is lost when two files in a row fail in the same way
    with av.logging.Capture() as logs:
        try:
            yield logs
        except av.FFmpegError as error:
            said = [message.strip() for _, _, message in logs][-2:]
            reason = "; ".join(dict.fromkeys([*said, error.strerror or type(error).__name__]))
            raise DataError(f"{path}: {doing}: {reason}") from error
        except IndexError as error:  # PyAV's answer to a packet of a stream that the file had not announced
            raise DataError(f"{path}: {doing}: a packet belongs to a stream that the file does not have") from error


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first real video stream (cover pictures do not count), decoding on one thread.

    Only local files are opened, also where a playlist inside the file names others. Raises MissingFileError or
    DataError (not a file, not a container libav knows, no video stream, no decoder for it).
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: not a file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    options = {"protocol_whitelist": "file"}
    with libav_errors(path, "cannot be opened"):
        container = av.open(str(path.absolute()), "r", container_options=options, metadata_errors="replace")
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            held = ", ".join(sorted({s.type for s in container.streams})) or "no stream at all"
            raise DataError(f"{path}: no video stream (it holds: {held})")
        if streams[0].codec_context is None:
            raise DataError(f"{path}: libav has no decoder for its video stream")
        streams[0].codec_context.thread_count = 1  # the loader's workers are the parallelism
        yield container, streams[0]


def decode(path: Path, packets: Iterator[Packet], start: int | None = None) -> Iterator[VideoFrame]:
    """The frames of `packets` in presentation order, those before the time `start` left out.

    Raises DataError where libav gives up, and for a frame in which the decoder had to conceal damage: later frames are
    predicted from it. Frames before `start` may lack what they are predicted from; that is no damage.
    """
    concealed = "the decoder had to conceal errors"
    near = 0.0
    while True:
        with libav_errors(path, f"damaged video data near {near:.2f} s") as logs:
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else []
        if packet is None:
            return
        if logs:
            concealed = logs[-1][2].strip()
        for frame in frames:
            if start is not None and frame.pts is not None and frame.pts < start:
                continue
            near = frame.time or near
            if frame.is_corrupt:
                raise DataError(f"{path}: damaged video data near {near:.2f} s: {concealed}")
            yield frame


@dataclass(frozen=True)
class FrameTable:
    """Which frames a file really holds, in presentation order.

    frames: how many. times: their presentation times in the stream's time base, increasing; None where the container
    has no usable times (then frames are counted from the start of the file). keys, 2 x K: the presentation times of the
    keyframes, and the times at which they enter the decoder (earlier, where frames are reordered). width, height: of
    the first frame, upright, pixels. fps: mean frame rate, 0 where unknown.
    """

    frames: int
    times: np.ndarray | None
    keys: np.ndarray
    width: int = 0
    height: int = 0
    fps: float = 0.0


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """(width, height) after the rotation tag is applied."""
    return (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)


def quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns that bring the stored picture upright."""
    return round(frame.rotation / 90) % 4


def frame_table(path: Path) -> FrameTable:
    """The table of a file, kept in memory until the file's size or time changes. Raises as `probe` in read.py does."""
    state = path.stat() if path.is_file() else None
    return _frame_table(path, state.st_size if state else 0, state.st_mtime_ns if state else 0)


@functools.lru_cache(maxsize=4096)
def _frame_table(path: Path, size: int, modified_ns: int) -> FrameTable:
    with open_video(path) as (container, stream):
        shown = _demux(path, container, stream)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        codec = stream.codec_context.name
    table = _table(shown)
    with open_video(path) as (container, stream):
        frames = decode(path, container.demux(stream), int(table.keys[0, 0]) if table.keys.size else None)
        first = next(frames, None)
        if first is None:
            raise DataError(f"{path}: the video stream holds no frame that can be decoded")
        width, height = upright_size(first)
        if table.times is None or codec in HIDDEN_FRAMES:
            table = _table([(frame.pts, frame.pts, frame.key_frame) for frame in itertools.chain([first], frames)])
    return dataclasses.replace(table, width=width, height=height, fps=fps)


def _demux(path: Path, container: InputContainer, stream: VideoStream) -> list[Shown]:
    """Every packet that shows a frame; refuses a file that was cut or has damaged packets."""
    promised = len(stream.index_entries) if container.format.name == MOV else stream.frames
    duration = (container.duration or 0) / 1e6 if container.format.name in DURATION_IN_HEADER else 0.0
    shown: list[Shown] = []
    found = damaged = 0
    end = 0.0
    with libav_errors(path, "damaged container"):
        for packet in container.demux():
            if packet.pts is not None and packet.time_base:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index or (packet.dts is None and not packet.size):  # libav's flush packet
                continue
            found += 1
            damaged += packet.is_corrupt
            if packet.size and not packet.is_discard:
                shown.append((packet.pts, packet.dts, packet.is_keyframe))
    if found < promised:
        raise DataError(f"{path}: the file was cut: its header promises {promised} frames, it holds {found}")
    if damaged:
        raise DataError(f"{path}: {damaged} of {found} video packets are damaged or incomplete")
    covered = end - max((container.start_time or 0) / 1e6, 0.0)
    if covered < MIN_COVERED * duration:
        raise DataError(f"{path}: the file was cut: its header promises {duration:.2f} s, it holds {covered:.2f} s")
    return shown


def _table(shown: list[Shown]) -> FrameTable:
    times = sorted(time for time, _, _ in shown if time is not None)
    if len(times) < len(shown) or len(set(times)) < len(times):
        return FrameTable(len(shown), None, np.zeros((2, 0), dtype=np.int64))
    keys = sorted((t, t if dts is None else dts) for t, dts, is_key in shown if is_key and t is not None)
    if not keys:  # a container that marks none: read it from the start
        keys = [(times[0], times[0])] if times else []
    # What comes before the first keyframe cannot be decoded (a broadcast stream joined in the middle): not a frame.
    decodable = [time for time in times if time >= keys[0][0]]
    return FrameTable(len(decodable), np.array(decodable, dtype=np.int64), np.array(keys, dtype=np.int64).T)
