"""Small videos made on the spot: each frame's grey level says which video and which frame it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinyworld.data.scan import ClipRef
from tinyworld.media.write import write_video


def numbered_frames(frames: int, height: int, width: int, tint: int = 0) -> np.ndarray:
    """uint8 T H W 3: red is 3 x the frame number, green runs from left to right, blue is `tint`."""
    video = np.zeros((frames, height, width, 3), dtype=np.uint8)
    video[..., 0] = (3 * np.arange(frames) % 256)[:, None, None]
    video[..., 1] = np.linspace(40, 200, width, dtype=np.uint8)[None, None, :]
    video[..., 2] = tint
    return video


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 10, 20, … 60 frames, 64 high and 96 wide, named clip_0 … clip_5."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        write_video(folder / f"clip_{number}.mp4", numbered_frames(10 * (number + 1), 64, 96, 40 * number), 24, crf=4)
    return folder


@pytest.fixture
def clip_refs(video_folder: Path) -> list[ClipRef]:
    """The references of `video_folder`, as a scan finds them."""
    return [ClipRef(f"clip_{n}", video_folder / f"clip_{n}.mp4", 10 * (n + 1), 96, 64, 24.0) for n in range(6)]


@pytest.fixture
def make_ref() -> Callable[..., ClipRef]:
    """A reference to a video that need not exist."""

    def make(name: str = "a", frames: int = 40, width: int = 96, height: int = 64) -> ClipRef:
        return ClipRef(name, Path(f"/nowhere/{name}.mp4"), frames, width, height, 24.0)

    return make
