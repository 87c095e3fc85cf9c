"""TUM RGB-D sequences: rgb.txt, depth.txt, groundtruth.txt, three clocks brought together by their time stamps.

Format (Computer Vision Group, TU Munich, "RGB-D SLAM Dataset and Benchmark"): lists of "timestamp file" in seconds, lines
that begin with # are comments; depth as 16-bit PNG, 5000 per metre, 0 = none, registered to colour; groundtruth.txt
"timestamp tx ty tz qx qy qz qw", the camera's position and orientation in the world.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.core.geometry import Cameras, quaternion_to_matrix
from tinyworld.data.worlds.prepare import Recording, Selection, Shot, read_colour, rigid_inverse_of
from tinyworld.media.png import read_png16

PER_METRE = 5000.0
TOGETHER = 0.02
"""Seconds by which a depth map or a pose may be off a colour picture."""
INTRINSICS = {
    "1": (517.3, 516.5, 318.6, 255.3),
    "2": (520.9, 521.0, 325.1, 249.7),
    "3": (535.4, 539.2, 320.1, 247.6),
}
"""fx fy cx cy of the three cameras, by the number in "freiburg1" …; lens distortion of the first two is not modelled."""
DEFAULT = (525.0, 525.0, 319.5, 239.5)
"""The drivers' own numbers, for sequences of no known camera."""
LISTS = ("rgb.txt", "depth.txt", "groundtruth.txt")


def read_tum(
    folder: Path, selection: Selection, intrinsics: tuple[float, float, float, float] | None = None
) -> list[Recording]:
    """The sequence in `folder`, or the sequences in the folders right below it.

    intrinsics: fx, fy, cx, cy in pixels instead of those of the freiburg number in the folder's name. Raises
    MissingFileError where there is no sequence, DataError for lists that cannot be read or have too little in common.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    folders = [folder] if (folder / LISTS[0]).is_file() else sorted(p.parent for p in folder.glob(f"*/{LISTS[0]}"))
    if not folders:
        raise MissingFileError(f"{folder}: no TUM sequence; one has {', '.join(LISTS)} in it")
    return [_recording(each, selection, intrinsics) for each in folders]


def _recording(folder: Path, selection: Selection, intrinsics: tuple[float, float, float, float] | None) -> Recording:
    colours, depths, poses = (_read_list(folder / name) for name in LISTS)
    pose_times = np.array([time for time, _ in poses])
    depth_times = np.array([time for time, _ in depths])
    values = _pose_values(folder / LISTS[2], poses)
    matched = []
    for time, (name, *_) in colours:
        at, pose = _nearest(depth_times, time), _nearest(pose_times, time)
        if at is not None and pose is not None:
            matched.append((time, folder / name, folder / depths[at][1][0], values[pose]))
    if not matched:
        raise DataError(
            f"{folder}: no colour picture has a depth map and a pose within {TOGETHER} s; are the lists of one sequence?"
        )
    chosen = [matched[number] for number in selection.of(len(matched))]
    times = np.array([time for time, _, _, _ in chosen])
    height, width = read_colour(chosen[0][1]).shape[:2]
    lost = len(colours) - len(matched)
    return Recording(
        name=folder.resolve().name,
        cameras=_cameras(folder, np.stack([pose for _, _, _, pose in chosen]), height, width, intrinsics),
        fps=_rate(times),
        shots=lambda: _shots([(colour, depth) for _, colour, depth, _ in chosen]),
        has_depth=True,
        scene=folder.resolve().name,
        left_out=(f"{lost} of {len(colours)} pictures have no depth or pose within {TOGETHER} s",) if lost else (),
    )


def _read_list(path: Path) -> list[tuple[float, list[str]]]:
    """(time stamp, the rest of the line) of each line, in the order of time."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a TUM sequence has {', '.join(LISTS)}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            time = float(words[0])
        except ValueError:
            time = math.nan
        if not math.isfinite(time) or len(words) < 2:
            raise DataError(f"{path}, line {number}: {line.strip()!r} does not begin with a time stamp and a value")
        rows.append((time, words[1:]))
    if not rows:
        raise DataError(f"{path}: no entries")
    return sorted(rows, key=lambda row: row[0])


def _pose_values(path: Path, poses: list[tuple[float, list[str]]]) -> np.ndarray:
    """Rows of tx ty tz qx qy qz qw."""
    try:
        values = np.array([[float(word) for word in words] for _, words in poses], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path}: a line has not 8 numbers (timestamp tx ty tz qx qy qz qw): {error}") from error
    if values.ndim != 2 or values.shape[1] != 7 or not np.isfinite(values).all():
        raise DataError(f"{path}: every line needs 8 finite numbers: timestamp tx ty tz qx qy qz qw")
    if not (np.linalg.norm(values[:, 3:], axis=1) > 0.5).all():
        raise DataError(f"{path}: a quaternion has a length far from 1; the order is qx qy qz qw")
    return values


def _nearest(times: np.ndarray, time: float) -> int | None:
    """Which of the increasing times is nearest, None when it is too far."""
    after = int(np.searchsorted(times, time))
    best = min((k for k in (after - 1, after) if 0 <= k < len(times)), key=lambda k: abs(times[k] - time))
    return best if abs(times[best] - time) <= TOGETHER else None


def _cameras(
    folder: Path,
    poses: np.ndarray,
    height: int,
    width: int,
    intrinsics: tuple[float, float, float, float] | None,
) -> Cameras:
    found = re.search(r"(?:freiburg|fr)([123])", folder.resolve().name.lower())
    values = intrinsics or (INTRINSICS[found[1]] if found else DEFAULT)
    rotation = quaternion_to_matrix(torch.from_numpy(poses[:, 3:])).numpy()
    c2w = np.concatenate([rotation, poses[:, :3, None]], axis=2)
    each = torch.tensor(values, dtype=torch.float64).expand(len(poses), 4)
    return Cameras(rigid_inverse_of(c2w), each, height, width)


def _rate(times: np.ndarray) -> float:
    """Frames a second, from the middle of the gaps; 30 for a single frame."""
    return round(1 / max(float(np.median(np.diff(times))), 1e-3), 2) if len(times) > 1 else 30.0


def _shots(files: list[tuple[Path, Path]]) -> Iterator[Shot]:
    for colour, depth in files:
        yield read_colour(colour), (read_png16(depth) / PER_METRE).astype(np.float32)
