"""RealEstate10K camera lists with local videos: their time stamps choose the frames; there is no depth.

Format (Google, "RealEstate10K"): one text file per clip; its first line is the address of the video, every other line has 19
columns: time stamp in microseconds, fx fy cx cy as parts of the picture's width and height, two zeros, and the 3×4
world→camera matrix. Several clips may come from one video. Its frames have to be there as a file already.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.data.worlds.prepare import Recording, Selection, Shot
from tinyworld.media.camera_files import read_cameras
from tinyworld.media.container import open_video
from tinyworld.media.read import probe, read_frames

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
AT_ONCE = 16
"""Frames that are read together."""
NAME = re.compile(r"(?:v=|youtu\.be/|/)([\w-]+)/?$")


def read_re10k(cameras: Path, videos: Path, selection: Selection) -> list[Recording]:
    """A recording for each list in `cameras` whose video is in `videos`, named by the video's id or as the list is.

    Raises MissingFileError for missing folders and when no list has a video, DataError for lists and videos that cannot be
    read or do not belong together.
    """
    for folder in (cameras, videos):
        if not folder.is_dir():
            raise MissingFileError(f"{folder}: no such folder")
    lists = sorted(cameras.glob("*.txt"))
    if not lists:
        raise MissingFileError(f"{cameras}: no camera lists (*.txt)")
    found = [(each, video) for each in lists if (video := _video_of(each, videos)) is not None]
    if not found:
        name = _video_name(lists[0])
        raise MissingFileError(f"{videos}: no video of the {len(lists)} lists, such as {name}.mp4 for {lists[0].name}")
    recordings = [_recording(each, video, selection) for each, video in found]
    lost = len(lists) - len(found)
    if lost:
        first = recordings[0]
        words = f"{lost} of {len(lists)} lists have no video in {videos}"
        recordings[0] = Recording(**{**vars(first), "left_out": (*first.left_out, words)})
    return recordings


def _video_name(path: Path) -> str:
    """The id of a list's video; the list's own name where it has no address."""
    with path.open(encoding="utf-8", errors="replace") as file:
        match = NAME.search(file.readline().strip())
    return match[1] if match else path.stem


def _video_of(path: Path, videos: Path) -> Path | None:
    names = dict.fromkeys((_video_name(path), path.stem))
    candidates = (videos / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    return next((each for each in candidates if each.is_file()), None)


def _recording(path: Path, video: Path, selection: Selection) -> Recording:
    info = probe(video)
    cameras = read_cameras(path, info.height, info.width, "w2c")
    stamps = _time_stamps(path)
    chosen = selection.of(len(stamps))
    times = _frame_times(video, info.frames, info.fps)
    numbers = [_frame_at(path, video, times, stamps[index]) for index in chosen]
    gaps = np.diff(stamps[chosen])
    return Recording(
        name=f"{path.name} of {video.name}",
        cameras=cameras.select(chosen),
        fps=round(1e6 / float(np.median(gaps)), 2) if len(gaps) else info.fps or 30.0,
        shots=lambda: _shots(video, numbers),
        has_depth=False,
        scene=video.stem,
    )


def _time_stamps(path: Path) -> np.ndarray:
    """Microseconds, increasing."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    try:
        stamps = np.array([float(row[0]) for row in rows if len(row) == 19])
    except ValueError as error:
        raise DataError(f"{path}: a line does not begin with a time stamp: {error}") from error
    if not len(stamps) or not np.isfinite(stamps).all() or not (np.diff(stamps) > 0).all():
        raise DataError(f"{path}: time stamps (first column, microseconds) must increase")
    return stamps


def _frame_times(video: Path, frames: int, fps: float) -> np.ndarray:
    """Seconds at which the frames of a video are shown, the first at 0."""
    with open_video(video) as (container, stream):
        base = float(stream.time_base or 0)
        shown = sorted(p.pts for p in container.demux(stream) if p.pts is not None and not p.is_discard)
    if base and len(shown) == frames:
        return (np.array(shown) - shown[0]) * base
    if not fps:
        raise DataError(f"{video}: its frames have no times, so that time stamps choose none")
    return np.arange(frames) / fps


def _frame_at(path: Path, video: Path, times: np.ndarray, stamp: float) -> int:
    seconds = stamp / 1e6
    number = int(np.abs(times - seconds).argmin())
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    if abs(times[number] - seconds) > gap:
        raise DataError(
            f"{path}: time stamp {stamp:.0f} (at {seconds:.3f} s) has no frame in {video}, which ends at {times[-1]:.3f} s; "
            "is it the whole video, uncut?"
        )
    return number


def _shots(video: Path, numbers: list[int]) -> Iterator[Shot]:
    for start in range(0, len(numbers), AT_ONCE):
        for frame in read_frames(video, numbers[start : start + AT_ONCE]):
            yield frame, None
