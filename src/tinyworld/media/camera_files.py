"""Camera files: read with every fault named, written complete or not at all. The forms are those of `camera_formats`."""

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from tinyworld.core.errors import ConfigError, DataError, MissingFileError
from tinyworld.core.files import write_atomic
from tinyworld.core.geometry import Cameras, inverse
from tinyworld.media.camera_formats import LAST_ROW, Convention, RawCameras, parse

Form = Literal["17", "re10k", "12", "16", "json"]
ROTATION_TOLERANCE = 1e-3
MIN_FOCAL, MAX_FOCAL = 0.05, 20.0
"""Focal length in widths (heights) of the picture: fields of view from 3° to 169°. Mixed up units lie far outside."""
SAME_FOCAL = 1e-6
"""Relative difference up to which the release's JSON, which has one focal length only, can hold cameras."""


def read_cameras(
    path: str | Path,
    height: int,
    width: int,
    convention: Convention | None = None,
    frames: int | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
) -> Cameras:
    """The cameras in a file, float64, T = number of frames, for pictures of height × width pixels.

    convention: whether the file's matrices are world→camera ("w2c") or camera→world ("c2w"). None: the form's own, which is
    w2c for 17 and 19 columns and c2w for JSON; it must be given for files of 12 or 16 columns.
    frames: how many cameras there must be. intrinsics: fx, fy, cx, cy in pixels (centres at whole numbers) for the forms
    without; a file's own count where it has them.
    Rotations off by up to 1e-3 (few digits in the file) are made exact.

    Raises MissingFileError, ConfigError for what must be given, and DataError naming the file, the line, the value and the
    rule for everything else.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 (byte {error.start} is no part of a character).") from error
    raw = parse(path, text, height, width)
    if frames is not None and len(raw.places) != frames:
        raise DataError(
            f"{path}: cameras of {len(raw.places)} frames, up to {raw.places[-1]}, for a video of {frames} frames; "
            "there must be one camera per frame."
        )
    if convention is None and raw.convention is None:
        raise ConfigError(
            f"{path}: files of matrices alone do not say what these are. Set data.camera_convention to w2c "
            "(world→camera, X_camera = R X_world + t) or c2w (camera→world, the last column is the camera's position)."
        )
    values = _intrinsics(path, raw, intrinsics)
    _check_focal(path, raw, values, height, width)
    extrinsics = torch.from_numpy(_rotations_made_exact(path, raw))
    if (convention or raw.convention) == "c2w":
        extrinsics = inverse(extrinsics)
    return Cameras(extrinsics, torch.from_numpy(values), height, width)


def _intrinsics(path: Path, raw: RawCameras, given: tuple[float, float, float, float] | None) -> np.ndarray:
    if raw.intrinsics is not None:
        return raw.intrinsics
    if given is None:
        raise ConfigError(
            f"{path}: the file has no focal lengths. Set data.camera_intrinsics to fx, fy, cx, cy in pixels of the video."
        )
    if len(given) != 4 or not all(math.isfinite(value) for value in given):
        raise ConfigError(f"data.camera_intrinsics is {given}; it must be four finite numbers: fx, fy, cx, cy.")
    return np.tile(np.array(given, dtype=np.float64), (len(raw.places), 1))


def _check_focal(path: Path, raw: RawCameras, values: np.ndarray, height: int, width: int) -> None:
    for place, (fx, fy, _, _) in zip(raw.places, values, strict=True):
        if fx <= 0 or fy <= 0:
            raise DataError(f"{path}, {place}: focal lengths fx {fx:g}, fy {fy:g}; both must be above 0.")
        for name, focal, size in (("fx", fx, width), ("fy", fy, height)):
            if not MIN_FOCAL <= focal / size <= MAX_FOCAL:
                raise DataError(
                    f"{path}, {place}: {name} is {focal:g} pixels for {size} pixels of picture, a field of view of "
                    f"{math.degrees(2 * math.atan(size / 2 / focal)):.3g}°; it must be {MIN_FOCAL * size:g} to "
                    f"{MAX_FOCAL * size:g} pixels. Lines of 17 numbers hold pixels, lines of 19 hold fx / width, fy / height."
                )


def _rotations_made_exact(path: Path, raw: RawCameras) -> np.ndarray:
    rotations = raw.matrices[:, :, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        deviations = np.abs(rotations.transpose(0, 2, 1) @ rotations - np.eye(3)).max((1, 2))
        determinants = np.linalg.det(rotations)
    for place, deviation, determinant in zip(raw.places, deviations, determinants, strict=True):
        if not deviation <= ROTATION_TOLERANCE:
            raise DataError(
                f"{path}, {place}: the 3×3 part is not a rotation: R^T R differs from the identity by {deviation:.3g}, at most "
                f"{ROTATION_TOLERANCE:g} is accepted. Scale belongs into the translations; are the columns in order?"
            )
        if determinant < 0:
            raise DataError(
                f"{path}, {place}: the 3×3 part is a reflection (determinant {determinant:.3g}); a rotation has 1. Axes are "
                "x right, y down, z forward: turn two of them, not one."
            )
    left, _, right = np.linalg.svd(rotations)
    return np.concatenate([left @ right, raw.matrices[:, :, 3:]], axis=2)


def write_cameras(path: str | Path, cameras: Cameras, form: Form, convention: Convention = "w2c") -> None:
    """Write the cameras of one clip (T) so that `read_cameras` with the same `convention` gives them back; folders are made.

    JSON always holds c2w, as the release's does, and only cameras with one focal length and the principal point in the
    middle: DataError for others.
    """
    path = Path(path)
    extrinsics = cameras.extrinsics.detach().cpu().double()
    values = cameras.intrinsics.detach().cpu().double()
    if extrinsics.dim() != 3:
        raise ValueError(f"cameras of one clip are T 3 4, not {tuple(extrinsics.shape)}")
    given = inverse(extrinsics) if convention == "c2w" or form == "json" else extrinsics
    matrices = given.numpy()
    if form == "json":
        text = _json_text(path, matrices, values.numpy(), cameras.height, cameras.width)
    else:
        rows = _rows(form, matrices, values.numpy(), cameras.height, cameras.width)
        text = "".join(" ".join(_number(value) for value in row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)


def _rows(form: Form, matrices: np.ndarray, values: np.ndarray, height: int, width: int) -> np.ndarray:
    frames = len(matrices)
    flat, numbers = matrices.reshape(frames, 12), np.arange(frames, dtype=np.float64)[:, None]
    if form == "12":
        return flat
    if form == "16":
        return np.concatenate([flat, np.tile(LAST_ROW, (frames, 1))], axis=1)
    if form == "17":
        return np.concatenate([numbers, values, flat], axis=1)
    normalised = (values + np.array([0, 0, 0.5, 0.5])) / [width, height, width, height]
    return np.concatenate([numbers, normalised, np.zeros((frames, 2)), flat], axis=1)


def _number(value: float) -> str:
    """All digits of a float64, whole numbers without a point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _json_text(path: Path, matrices: np.ndarray, values: np.ndarray, height: int, width: int) -> str:
    focal = float(values[0, 0])
    expected = np.array([focal, focal, (width - 1) / 2, (height - 1) / 2])
    if np.abs(values - expected).max() > SAME_FOCAL * focal:
        raise DataError(
            f"{path}: the release's JSON holds one focal length for all frames and both axes, and the principal point in the "
            "middle of the picture; these cameras differ from that. Write the form re10k instead."
        )
    listed = [[*matrix.tolist(), list(LAST_ROW)] for matrix in matrices]
    keys = {"focal_length": focal, "scale": 1, "cameras": [listed[0], listed[-1]], "cameras_interp": listed}
    return json.dumps(keys, allow_nan=False) + "\n"
