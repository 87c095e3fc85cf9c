"""7-Scenes sequences: frame-XXXXXX.color.png, .depth.png, .pose.txt.

Format (Microsoft Research, "RGB-D Dataset 7-Scenes"): depth as 16-bit PNG in millimetres, 65535 = none; poses are 4×4
camera→world matrices in metres; the camera has focal length 585 and its principal point at (320, 240) for 640×480. Colour and
depth are not registered exactly: the photometric error of such a clip stays larger than that of its depth.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.core.geometry import Cameras
from tinyworld.data.worlds.prepare import Recording, Selection, Shot, read_colour, rigid_inverse_of
from tinyworld.media.png import read_png16

FOCAL, CENTRE_X, CENTRE_Y = 585.0, 320.0, 240.0
NO_DEPTH = 65535
FPS = 30.0
ROTATION_TOLERANCE = 1e-2
POSE, COLOUR, DEPTH = ".pose.txt", ".color.png", ".depth.png"


def read_seven_scenes(
    folder: Path, selection: Selection, intrinsics: tuple[float, float, float, float] | None = None
) -> list[Recording]:
    """The sequence in `folder`, or those in the folders (seq-01, …) below it.

    intrinsics: fx, fy, cx, cy in pixels instead of the published ones. Raises MissingFileError where there is no sequence,
    DataError for poses and pictures that cannot be read. Frames whose pose is not finite (tracking was lost) are left out.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    folders = sorted({path.parent for path in folder.rglob(f"*{POSE}")})
    if not folders:
        raise MissingFileError(
            f"{folder}: no 7-Scenes sequence; one has frame-000000{COLOUR}, {DEPTH} and {POSE} files"
        )
    return [_recording(each, selection, intrinsics) for each in folders]


def _recording(folder: Path, selection: Selection, intrinsics: tuple[float, float, float, float] | None) -> Recording:
    stems = sorted(path.name.removesuffix(POSE) for path in folder.glob(f"*{POSE}"))
    for stem in stems:
        for suffix in (COLOUR, DEPTH):
            if not (folder / f"{stem}{suffix}").is_file():
                raise MissingFileError(f"{folder / (stem + suffix)}: no such file beside {stem}{POSE}")
    poses = [_read_pose(folder / f"{stem}{POSE}") for stem in stems]
    tracked = [number for number, pose in enumerate(poses) if pose is not None]
    if not tracked:
        raise DataError(f"{folder}: no frame has a finite pose")
    chosen = [tracked[number] for number in selection.of(len(tracked))]
    height, width = read_colour(folder / f"{stems[chosen[0]]}{COLOUR}").shape[:2]
    values = intrinsics or (FOCAL, FOCAL, CENTRE_X, CENTRE_Y)
    each = torch.tensor(values, dtype=torch.float64).expand(len(chosen), 4)
    matrices = np.stack([pose for number in chosen if (pose := poses[number]) is not None])
    lost = len(stems) - len(tracked)
    whole = folder.resolve()
    return Recording(
        name=f"{whole.parent.name}/{whole.name}",
        cameras=Cameras(rigid_inverse_of(matrices), each, height, width),
        fps=FPS / selection.step,
        shots=lambda: _shots(folder, [stems[number] for number in chosen]),
        has_depth=True,
        scene=whole.parent.name if whole.name.startswith("seq") else whole.name,
        left_out=(f"{lost} of {len(stems)} frames have no finite pose",) if lost else (),
    )


def _read_pose(path: Path) -> np.ndarray | None:
    """4 4 float64 camera→world; None where it is not finite."""
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path}: not 16 numbers: {error}") from error
    if values.size != 16:
        raise DataError(f"{path}: {values.size} numbers; a pose is a 4×4 matrix of 16")
    matrix = values.reshape(4, 4)
    if not np.isfinite(matrix).all():
        return None
    rotation = matrix[:3, :3]
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise DataError(f"{path}: the 3×3 part is not a rotation")
    return matrix


def _shots(folder: Path, stems: list[str]) -> Iterator[Shot]:
    for stem in stems:
        millimetres = read_png16(folder / f"{stem}{DEPTH}")
        depth = np.where(millimetres == NO_DEPTH, 0, millimetres).astype(np.float32) / np.float32(1000)
        yield read_colour(folder / f"{stem}{COLOUR}"), depth
