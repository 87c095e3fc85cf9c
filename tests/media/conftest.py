"""Clips whose frame number can be read back from the picture, in any container and codec."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.media.numbered_clips import HEIGHT, WIDTH, numbered_frame


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """make_clip(name, count, codec=..., times=None, gop=8, **encoder options) -> path of a numbered clip."""

    def make(
        name: str,
        count: int,
        codec: str = "libx264",
        times: Sequence[int] | None = None,
        gop: int = 8,
        b_frames: int = 2,
        muxer: dict[str, str] | None = None,
        **options: str,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", container_options=muxer or {}) as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.codec_context.gop_size = gop
            stream.codec_context.thread_count = 1
            if codec in ("libx264", "mpeg4", "mpeg2video"):
                stream.codec_context.max_b_frames = b_frames
            for index in range(count):
                frame = av.VideoFrame.from_ndarray(numbered_frame(index), format="rgb24")
                frame.pts = times[index] if times else index
                frame.time_base = Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
