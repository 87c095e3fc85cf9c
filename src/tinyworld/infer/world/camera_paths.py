"""Cameras to ask for: a named path, a path in words, or a file.

All paths begin at the identity, at rest, and end at rest (their speed follows 3s² - 2s³). Their matrices are rotations, always.
Lengths are in the scene's unit: 1 is the mean distance of what the clip shows. Axes are OpenCV's (x right, y down, z forward).

| name | amount | the camera |
|---|---|---|
| orbit | 30deg | goes round the point 1 unit ahead, to the right, and keeps looking at it |
| dolly | 0.5 | moves forward |
| truck | 0.3 | moves to the right |
| crane | 0.3 | moves up |
| pan | 30deg | turns to the right where it stands |
| tilt | 15deg | turns up where it stands |
| spiral | 0.15 | flies one turn of a helix of this radius, forward by twice the radius, looking at the point 1 unit ahead |

Negative amounts go the other way.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tinyworld.core.errors import ConfigError, DataError, nearest_name
from tinyworld.core.geometry import Cameras, inverse, matrix_to_quaternion, quaternion_to_matrix
from tinyworld.infer.world.camera_text import GRAMMAR, WORDS, Segment, parse_amount, parse_path
from tinyworld.media.camera_files import read_cameras
from tinyworld.media.camera_formats import Convention

MIN_FOV_DEGREES, MAX_FOV_DEGREES = 5.0, 150.0
MOST_RADIUS = 0.45
"""Of a spiral: with 0.5 it would reach the point it looks at."""
LONGEST_NAME = 200
NAME = re.compile(r"([a-z_]+)(?:\s*(:|\s)\s*(.+))?", re.DOTALL)
"""A name, then perhaps a colon or a space and an amount."""


class _Named(NamedTuple):
    amount: float
    degrees: bool


NAMES = {
    "orbit": _Named(30.0, True),
    "dolly": _Named(0.5, False),
    "truck": _Named(0.3, False),
    "crane": _Named(0.3, False),
    "pan": _Named(30.0, True),
    "tilt": _Named(15.0, True),
    "spiral": _Named(0.15, False),
}
"""Every named path with its amount where none is asked for, and whether that is in degrees or in the scene's unit."""


def cameras_for(
    camera: str | Path,
    frames: int,
    height: int,
    width: int,
    fov_degrees: float = 60.0,
    convention: Convention | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
    resample: bool = False,
) -> Cameras:
    """The cameras (float64, T = frames, the first at the identity) that a person asks for, for pictures of height × width.

    camera: a file in any form of `read_cameras`; a name with or without an amount ("orbit", "orbit:20deg", "dolly 0.3");
    or words ("forward 0.5 right 20deg"). A Path, and text with a slash or a file's ending, is always a file.
    fov_degrees: of names and words, across the longer side. convention, intrinsics: of files, as in `read_cameras`.
    A file's translations are taken to be in the scene's unit (`Cameras.scaled` changes that).
    resample: let a file have another number of frames: the same way in the same time, turned and moved evenly between its frames.

    Raises ConfigError for what is not understood, MissingFileError, and DataError for a faulty file or number of frames.
    """
    if _is_file(camera):
        cameras = read_cameras(camera, height, width, convention, intrinsics=intrinsics).relative()
        count = len(cameras.extrinsics)
        if count == frames:
            return cameras
        if not resample:
            raise DataError(
                f"{camera}: cameras of {count} frames for a video of {frames}. Ask for {count} frames, or set resample to have "
                f"{frames} cameras taken evenly along the file's way."
            )
        return resampled(cameras, frames)
    return path_of_text(str(camera), frames, height, width, fov_degrees)


def path_of_text(text: str, frames: int, height: int, width: int, fov_degrees: float = 60.0) -> Cameras:
    """As `cameras_for`, for names and words; never opens a file. Raises ConfigError for what is not understood."""
    match = NAME.fullmatch(text.strip().lower())
    name, colon, after = match.groups() if match else ("", None, None)
    if name in NAMES:
        return named_path(name, frames, height, width, fov_degrees, _amount(text, name, after) if after else None)
    if match is None or colon == ":" or (after is None and name not in WORDS):
        raise ConfigError(
            f"camera {text[:80]!r}: no file, and no path of that name.{nearest_name(name, [*NAMES, *WORDS])} Named paths are "
            f"{', '.join(_told(known) for known in NAMES)}, where another amount may stand. {GRAMMAR}"
        )
    centres, rotations = _along(parse_path(text), _times(frames))
    return _cameras(centres, rotations, height, width, fov_degrees)


def named_path(
    name: str, frames: int, height: int, width: int, fov_degrees: float = 60.0, amount: float | None = None
) -> Cameras:
    """The named path of this module's table. amount: degrees or lengths, as the name has it; None: the table's.

    Raises ConfigError for an unknown name and a number that cannot be.
    """
    if name not in NAMES:
        raise ConfigError(
            f"camera path {name!r}: there is none.{nearest_name(name, list(NAMES))} Known: {', '.join(NAMES)}."
        )
    amount = NAMES[name].amount if amount is None else float(amount)
    if not math.isfinite(amount):
        raise ConfigError(f"camera path {name}: the amount is {amount}; it must be a finite number.")
    times = _times(frames)
    if name == "orbit":
        centres, rotations = _orbit(_eased(times) * math.radians(amount))
    elif name == "spiral":
        centres, rotations = _spiral(_eased(times), amount)
    else:
        centres, rotations = _along([_SIMPLE[name](amount)], times)
    return _cameras(centres, rotations, height, width, fov_degrees)


_SIMPLE = {
    "dolly": lambda amount: Segment(move=(0, 0, amount)),
    "truck": lambda amount: Segment(move=(amount, 0, 0)),
    "crane": lambda amount: Segment(move=(0, -amount, 0)),
    "pan": lambda amount: Segment(turn=(amount, 0, 0)),
    "tilt": lambda amount: Segment(turn=(0, amount, 0)),
}


def resampled(cameras: Cameras, frames: int) -> Cameras:
    """T cameras → `frames`, from the first to the last, even in time: rotations by slerp, centres and intrinsics linear."""
    _check_frames(frames)
    last = len(cameras.extrinsics) - 1
    at = torch.linspace(0, last, frames, dtype=torch.float64)
    before = at.floor().long().clamp(max=max(last - 1, 0))
    after, share = (before + 1).clamp(max=last), (at - before)[:, None]
    outward = inverse(cameras.extrinsics)
    centres = torch.lerp(outward[before, :, 3], outward[after, :, 3], share)
    quaternions = matrix_to_quaternion(outward[..., :3])
    rotations = quaternion_to_matrix(_slerp(quaternions[before], quaternions[after], share))
    intrinsics = torch.lerp(cameras.intrinsics[before], cameras.intrinsics[after], share)
    moved = inverse(torch.cat([rotations, centres[..., None]], -1))
    return Cameras(moved, intrinsics, cameras.height, cameras.width).relative()


def _slerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Unit quaternions N 4 at `share` (N 1) of the shorter way from the first to the second; lengths need not be 1."""
    second = torch.where((first * second).sum(-1, keepdim=True) < 0, -second, second)
    angle = 2 * torch.atan2((first - second).norm(dim=-1, keepdim=True), (first + second).norm(dim=-1, keepdim=True))
    near = angle < 1e-4  # the sines vanish, and the chord is the arc
    sine = torch.where(near, 1.0, torch.sin(angle))
    left = torch.where(near, 1 - share, torch.sin((1 - share) * angle) / sine)
    right = torch.where(near, share, torch.sin(share * angle) / sine)
    return left * first + right * second


def _is_file(camera: str | Path) -> bool:
    """Whether this means a file: numbers and units are no endings, so "forward 0.5" and "dolly:0.5" are none."""
    if isinstance(camera, Path) or "/" in camera or Path(camera).suffix[1:].isalpha():
        return True
    return len(camera) <= LONGEST_NAME and "\0" not in camera and Path(camera).is_file()


def _amount(text: str, name: str, after: str) -> float:
    amount, degrees = parse_amount(after), NAMES[name].degrees
    if amount is None or amount[1] != degrees:
        form = "an angle of up to 3600deg" if degrees else "a length of up to 100 in the scene's unit, without a unit"
        raise ConfigError(f"camera {text[:80]!r}: {after[:40]!r} is not {form}; write, for instance, {_told(name)}.")
    return amount[0]


def _told(name: str) -> str:
    amount, degrees = NAMES[name]
    return f"{name}:{amount:g}{'deg' if degrees else ''}"


def _check_frames(frames: int) -> None:
    if frames < 1:
        raise ConfigError(f"{frames} frames were asked for; a video has at least 1.")


def _times(frames: int) -> Tensor:
    """T from 0 to 1."""
    _check_frames(frames)
    return torch.linspace(0, 1, frames, dtype=torch.float64)


def _eased(times: Tensor) -> Tensor:
    return times * times * (3 - 2 * times)


def _along(segments: list[Segment], times: Tensor) -> tuple[Tensor, Tensor]:
    """Centres T 3 and camera→world rotations T 3 3 at `times` (0 to 1) of segments that follow each other.

    Angles of pan, tilt and roll add up over the segments and make one rotation, as on a tripod: a pan after a tilt leaves the
    horizon level.
    """
    place = times * len(segments)
    centres, angles = torch.zeros(len(times), 3, dtype=times.dtype), torch.zeros(len(times), 3, dtype=times.dtype)
    start, turned = torch.zeros(3, dtype=times.dtype), torch.zeros(3, dtype=times.dtype)
    for number, segment in enumerate(segments):
        done = _eased((place - number).clamp(0, 1))[:, None]
        move, turn = (torch.tensor(values, dtype=times.dtype) for values in (segment.move, segment.turn))
        moved = (_rotations(turned) * move).sum(-1)
        here = place >= number
        centres[here] = (start + done * moved)[here]
        angles[here] = (turned + done * turn)[here]
        start, turned = start + moved, turned + turn
    return centres, _rotations(angles)


def _rotations(degrees: Tensor) -> Tensor:
    """Pan to the right, tilt up and roll to the right, ... 3 in degrees → camera→world rotations ... 3 3."""
    pan, tilt, roll = degrees.deg2rad().unbind(-1)
    (cp, sp), (ct, st), (cr, sr) = ((torch.cos(angle), torch.sin(angle)) for angle in (pan, tilt, roll))
    rows = [
        (cp * cr + sp * st * sr, sp * st * cr - cp * sr, sp * ct),
        (ct * sr, ct * cr, -st),
        (cp * st * sr - sp * cr, sp * sr + cp * st * cr, cp * ct),
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _orbit(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Round the point (0, 0, 1): as far as the camera goes to the right, it turns to the left."""
    zero = torch.zeros_like(angles)
    centres = torch.stack([torch.sin(angles), zero, 1 - torch.cos(angles)], -1)
    return centres, _rotations(torch.stack([-angles.rad2deg(), zero, zero], -1))


def _spiral(done: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    if abs(radius) > MOST_RADIUS:
        raise ConfigError(f"camera path spiral: the radius is {radius:g}; it must be at most {MOST_RADIUS:g} units.")
    turn = 2 * math.pi * done
    x, y, z = radius * torch.sin(turn), radius * (torch.cos(turn) - 1), 2 * abs(radius) * done
    pan = torch.atan2(-x, 1 - z)
    tilt = torch.atan2(y, torch.hypot(x, 1 - z))
    angles = torch.stack([pan, tilt, torch.zeros_like(pan)], -1).rad2deg()
    return torch.stack([x, y, z], -1), _rotations(angles)


def _cameras(centres: Tensor, rotations: Tensor, height: int, width: int, fov_degrees: float) -> Cameras:
    if not MIN_FOV_DEGREES <= fov_degrees <= MAX_FOV_DEGREES:
        raise ConfigError(
            f"fov_degrees is {fov_degrees}; a field of view is {MIN_FOV_DEGREES:g} to {MAX_FOV_DEGREES:g} degrees, across the "
            "longer side of the picture."
        )
    focal = max(height, width) / 2 / math.tan(math.radians(fov_degrees) / 2)
    lens = torch.tensor([focal, focal, (width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    extrinsics = inverse(torch.cat([rotations, centres[..., None]], -1))
    return Cameras(extrinsics, lens.expand(len(centres), 4).clone(), height, width).relative()
