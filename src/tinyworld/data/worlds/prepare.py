"""Recordings of other data sets written in the layout that training reads: sample_xxx/{video.mp4, depth/, camera_params.txt}.

The data set appears under its name when it is complete. Depth becomes 16-bit PNG in millimetres, cameras lines of 17 numbers
(world→camera, OpenCV's axes, pixels of the written video). Sources: `tum`, `seven_scenes`, `re10k`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.files import staged_folder, write_json
from tinyworld.core.geometry import Cameras, resize_depth
from tinyworld.media.camera_files import write_cameras
from tinyworld.media.png import write_depth_png
from tinyworld.media.write import VideoWriter

CRF = 16
Shot = tuple[np.ndarray, np.ndarray | None]
"""Colour uint8 H W 3, and depth float32 H W in metres (0 = none) or None."""


@dataclass(frozen=True)
class Recording:
    """One clip of a source. cameras: of its frames, for pictures of the source's size. shots: reads the frames in order.

    name: where it comes from, as a person would write it. fps: of the chosen frames. scene: the place it shows. left_out:
    what was not taken and why, in words.
    """

    name: str
    cameras: Cameras
    fps: float
    shots: Callable[[], Iterator[Shot]]
    has_depth: bool
    scene: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which frames are taken: every `step`-th, at most `max_frames` of them (None: all)."""

    step: int = 1
    max_frames: int | None = None

    def __post_init__(self) -> None:
        problems = [f"--step {self.step}: 1 or more frames"] if self.step < 1 else []
        if self.max_frames is not None and self.max_frames < 1:
            problems.append(f"--max_frames {self.max_frames}: 1 or more")
        if problems:
            raise ConfigError(problems)

    def of(self, count: int) -> list[int]:
        """The numbers of the frames taken from `count`."""
        return list(range(0, count, self.step))[: self.max_frames]


@dataclass(frozen=True)
class Framing:
    """The middle part of a picture (top, left, height, width in pixels), which is resized to out_height × out_width."""

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int

    def cameras(self, cameras: Cameras) -> Cameras:
        cut = cameras.cropped(self.top, self.left, self.height, self.width)
        return cut.resized(self.out_height, self.out_width)

    def colour(self, picture: np.ndarray) -> np.ndarray:
        """uint8 H W 3; area averaging where it gets smaller."""
        part = np.ascontiguousarray(self._part(picture))
        if part.shape[:2] == (self.out_height, self.out_width):
            return part
        shrinks = self.out_height <= self.height
        method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
        return np.asarray(Image.fromarray(part).resize((self.out_width, self.out_height), method))

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """Nearest pixel: a mean of two surfaces would lie on neither."""
        part = torch.from_numpy(np.ascontiguousarray(self._part(depth)))
        return resize_depth(part, self.out_height, self.out_width).numpy()

    def _part(self, values: np.ndarray) -> np.ndarray:
        return values[self.top : self.top + self.height, self.left : self.left + self.width]


def plan_framing(height: int, width: int, out_height: int | None, out_width: int | None) -> Framing:
    """How a source picture is cut and resized. One size given: the other follows from the picture's shape, made even; none:
    the picture as it is, odd sides less one pixel. Raises ConfigError for odd or too large sizes."""
    problems = [
        f"{name} {value}: video needs even sizes above 0. Use {max(2, value - value % 2)}."
        for name, value in (("--height", out_height), ("--width", out_width))
        if value is not None and (value < 2 or value % 2)
    ]
    if problems:
        raise ConfigError(problems)
    if out_height is None:
        out_height = height - height % 2 if out_width is None else max(2, round(height * out_width / width / 2) * 2)
    if out_width is None:
        whole = out_height == height - height % 2
        out_width = width - width % 2 if whole else max(2, round(width * out_height / height / 2) * 2)
    factor = min(height / out_height, width / out_width)
    cut_height, cut_width = min(height, round(out_height * factor)), min(width, round(out_width * factor))
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    return Framing(top, left, cut_height, cut_width, out_height, out_width)


def prepare(
    recordings: Sequence[Recording],
    out: Path,
    height: int | None = None,
    width: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write recordings as a data set; returns what a person should know: of each sample its frames, and what was left out.

    height, width: of the written pictures; the middle part of that shape is taken (see `plan_framing`). on_progress is called
    with (recordings done, recordings in all). Raises DataError when `out` is there already, and whatever reading raises;
    nothing is left at `out` then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already and is not replaced. Choose another folder, or remove it first.")
    said = []
    with staged_folder(out, {"prepared": [recording.name for recording in recordings]}) as root:
        entries = []
        for number, recording in enumerate(recordings):
            entry = _write_sample(root, f"sample_{number:03d}", recording, height, width)
            entries.append(entry)
            said.append(f"{entry['id']}: {entry['num_frames']} frames of {recording.name}")
            said += [f"{entry['id']}: {words}" for words in recording.left_out]
            if on_progress is not None:
                on_progress(number + 1, len(recordings))
        write_json(root / "metadata.json", entries)
    return said


def _write_sample(root: Path, name: str, recording: Recording, height: int | None, width: int | None) -> dict[str, Any]:
    source = recording.cameras
    framing = plan_framing(source.height, source.width, height, width)
    folder = root / name
    frames = 0
    with VideoWriter(folder / "video.mp4", framing.out_width, framing.out_height, recording.fps, crf=CRF) as video:
        for colour, depth in recording.shots():
            _check_size(recording, frames, colour, depth)
            video.write(framing.colour(colour))
            if depth is not None:
                write_depth_png(folder / "depth" / f"{frames:06d}.png", framing.depth(depth))
            frames += 1
    if frames != len(source.extrinsics):
        raise DataError(f"{recording.name}: {frames} frames could be read for {len(source.extrinsics)} cameras")
    write_cameras(folder / "camera_params.txt", framing.cameras(source.relative()), "17")
    entry = {
        "id": name,
        "video": f"{name}/video.mp4",
        "camera_params": f"{name}/camera_params.txt",
        "camera_convention": "w2c",
        "num_frames": frames,
        "width": framing.out_width,
        "height": framing.out_height,
        "fps": recording.fps,
        "scene": recording.scene,
        "source": recording.name,
        "caption": "",
    }
    return entry | ({"depth_dir": f"{name}/depth"} if recording.has_depth else {})


def _check_size(recording: Recording, number: int, colour: np.ndarray, depth: np.ndarray | None) -> None:
    height, width = recording.cameras.height, recording.cameras.width
    for what, values in (("colour", colour), ("depth", depth)):
        if values is not None and values.shape[:2] != (height, width):
            raise DataError(
                f"{recording.name}: the {what} picture of frame {number} has {values.shape[1]}x{values.shape[0]} pixels "
                f"(w x h), the first frame {width}x{height}"
            )


def read_colour(path: Path) -> np.ndarray:
    """A colour picture, uint8 H W 3. Raises DataError for a file that is no picture or damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from error


def rigid_inverse_of(c2w: np.ndarray) -> torch.Tensor:
    """Camera→world matrices T 4 4 or T 3 4 as extrinsics, T 3 4 float64 world→camera, their rotations made exact."""
    left, _, right = np.linalg.svd(c2w[:, :3, :3])
    rotation = (left @ right).transpose(0, 2, 1)
    return torch.from_numpy(np.concatenate([rotation, -rotation @ c2w[:, :3, 3:4]], axis=2))
