"""Pictures of clips that stand beside each other: maps of a difference, and one small video of many parts."""

import base64
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tinyworld.media.colour import ANCHORS
from tinyworld.media.read import iter_frames
from tinyworld.media.write import write_video

MOST_FRAMES = 48
TILE = 320
"""Pixels: the widest that one part is kept."""
CRF = 23


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float32 T H W: mean absolute difference over the colours, 0 to 255."""
    found: np.ndarray = np.abs(one.astype(np.float32) - other.astype(np.float32)).mean(-1)
    return found


def heat(gap: np.ndarray, factor: int) -> np.ndarray:
    """uint8 ... 3: dark for no difference, bright from 255 / factor on. gap: 0 to 255. The ramp rises in lightness all along, so
    it reads without colours too."""
    place = np.clip(gap * factor / 255, 0, 1) * (len(ANCHORS) - 1)
    known = np.arange(len(ANCHORS))
    return np.stack([np.interp(place, known, ANCHORS[::-1, c]) for c in range(3)], -1).round().astype(np.uint8)


def first_frames(path: Path) -> np.ndarray:
    """uint8 T H W 3: at most MOST_FRAMES from the first."""
    taken = []
    for frame in iter_frames(path):
        taken.append(frame)
        if len(taken) == MOST_FRAMES:
            break
    return np.stack(taken)


def shrunk(clip: np.ndarray) -> np.ndarray:
    """The clip at most TILE wide, with even sides as the video's colours need them."""
    height, width = clip.shape[1:3]
    scale = min(1.0, TILE / width)
    wide, high = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    if (wide, high) == (width, height):
        return clip
    made = [np.asarray(Image.fromarray(frame).resize((wide, high), Image.Resampling.BILINEAR)) for frame in clip]
    return np.stack(made)


def video_uri(frames: np.ndarray, fps: float) -> str:
    """A video of frames uint8 T H W 3, both sides even, as a data URI."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, iter(frames), fps, CRF)
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
