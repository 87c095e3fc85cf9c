"""Writing video: H.264 in mp4 that every player and browser shows with the right colours."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from tinyworld.core.errors import DataError
from tinyworld.core.files import STAGING_PREFIX
from tinyworld.media.container import libav_errors

AVCOL_SPC_BT709, AVCOL_SPC_SMPTE170M = 1, 6
CHROMA = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP


class VideoWriter:
    """Writes RGB frames to an H.264 mp4 (yuv420p, limited range, no audio, index at the front for streaming).

    width, height: of the frames, pixels; an odd side is padded by repeating its last row or column, since 4:2:0 needs
    even sides. fps: frames a second. crf: x264's constant quality, 0 (lossless) to 51; 18 is visually lossless. Colours
    are converted to and tagged as BT.709 from 1280 wide or 577 high, else BT.601. The encoder runs on one thread
    and without macroblock-tree rate control, which reads past its buffers at some sizes: the same frames give the same
    file, on one machine.

    Use as a context manager. The file appears under its name only when the block ends without an exception; a file
    that was there before stays until then. Raises ValueError for a size, rate or frame that does not fit, DataError
    where libav refuses.
    """

    def __init__(self, path: str | Path, width: int, height: int, fps: float, crf: int = 18) -> None:
        if width < 1 or height < 1 or not fps > 0 or not 0 <= crf <= 51:
            raise ValueError(
                f"cannot write {width}x{height} at {fps} frames a second, crf {crf}: sizes and rate above 0, crf 0-51"
            )
        self.path = Path(path)
        self.width, self.height, self.crf = width, height, crf
        self.rate = Fraction(fps).limit_denominator(1001)
        self.frames = 0
        self._staging = self.path.with_name(f"{STAGING_PREFIX}{os.getpid()}-{self.path.name}")
        self._reformatter = VideoReformatter()

    def __enter__(self) -> "VideoWriter":
        if self.path.is_dir():
            raise DataError(f"{self.path}: cannot be written: it is a folder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with libav_errors(self.path, "cannot be written"):
            self._container = av.open(
                str(self._staging), "w", format="mp4", container_options={"movflags": "faststart"}
            )
            self._stream = self._add_stream()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, uint8 H W 3 in RGB."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, not uint8 {(self.height, self.width, 3)}")
        if self.width % 2 or self.height % 2:
            frame = np.pad(frame, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        with libav_errors(self.path, "cannot be written"):
            picture = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
                format="yuv420p",
                interpolation=CHROMA,
                dst_colorspace=Colorspace.ITU709 if self._high else Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            picture.pts = self.frames
            picture.time_base = 1 / self.rate
            self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with libav_errors(self.path, "cannot be written"):
                if kind is None and self.frames:
                    self._container.mux(self._stream.encode(None))
                self._container.close()
            if kind is None and self.frames:
                self._staging.replace(self.path)
            elif kind is None:
                raise ValueError(f"{self.path}: no frame was written")
        finally:
            self._staging.unlink(missing_ok=True)

    @property
    def _high(self) -> bool:
        return self.width >= 1280 or self.height > 576

    def _add_stream(self) -> VideoStream:
        stream = self._container.add_stream(
            "libx264", rate=self.rate, options={"crf": str(self.crf), "x264-params": "mbtree=0"}
        )
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.colorspace = AVCOL_SPC_BT709 if self._high else AVCOL_SPC_SMPTE170M
        stream.codec_context.color_primaries = ColorPrimaries.BT709 if self._high else ColorPrimaries.SMPTE170M
        stream.codec_context.color_trc = ColorTrc.BT709 if self._high else ColorTrc.SMPTE170M
        return stream


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, crf: int = 18) -> None:
    """Write frames (each uint8 H W 3, or one T H W 3 array) as `VideoWriter` does. Raises ValueError for no frames."""
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: there are no frames to write")
    with VideoWriter(path, first.shape[1], first.shape[0], fps, crf) as writer:
        writer.write(first)
        for frame in iterator:
            writer.write(frame)
