"""The forms that camera files come in, told apart by content; what they say is checked in `camera_files`.

| columns | one line holds |
|---|---|
| 19 | timestamp, fx fy cx cy divided by width and height, 0 0, the 3×4 matrix |
| 17 | frame number, fx fy cx cy in pixels, the 3×4 matrix |
| 16 | the 4×4 matrix |
| 12 | the 3×4 matrix |

Matrices are row-major. 19 columns are RealEstate10K's, where a line with a URL may stand first. The fifth form is the JSON of
the FantasyWorld release.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tinyworld.core.errors import DataError

Convention = Literal["w2c", "c2w"]
COLUMNS = {
    19: "timestamp, fx fy cx cy divided by width and height, 0 0, 3×4 matrix",
    17: "frame number, fx fy cx cy in pixels, 3×4 matrix",
    16: "4×4 matrix",
    12: "3×4 matrix",
}
LAST_ROW = (0.0, 0.0, 0.0, 1.0)
LAST_ROW_TOLERANCE = 1e-6


@dataclass(frozen=True)
class RawCameras:
    """What a camera file says.

    matrices: T 3 4 float64. intrinsics: T 4 in pixels with centres at whole numbers, None where the form has none.
    convention: the form's own, None where it has none. places: where each camera stands in the file, for messages.
    """

    matrices: np.ndarray
    intrinsics: np.ndarray | None
    convention: Convention | None
    places: list[str]


def parse(path: Path, text: str, height: int, width: int) -> RawCameras:
    """The cameras of a file's text, in whichever form. Raises DataError naming the file, the place and the fault."""
    if text.lstrip()[:1] in ("{", "["):
        return _parse_json(path, text, height, width)
    return _parse_lines(path, text, height, width)


def _parse_lines(path: Path, text: str, height: int, width: int) -> RawCameras:
    lines = [(number, line.split()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if lines and len(lines[0][1]) == 1 and "://" in lines[0][1][0]:
        del lines[0]
    if not lines:
        raise DataError(f"{path}: the file is empty; a camera file has one line per frame.")
    table = [_numbers(path, number, words) for number, words in lines]
    columns = len(table[0])
    if columns not in COLUMNS:
        known = "; ".join(f"{count} ({what})" for count, what in COLUMNS.items())
        raise DataError(f"{path}, line {lines[0][0]}: {columns} numbers; a line of a camera file has {known}.")
    for (number, _), row in zip(lines, table, strict=True):
        if len(row) != columns:
            raise DataError(
                f"{path}, line {number}: {len(row)} numbers where line {lines[0][0]} has {columns} "
                f"({COLUMNS[columns]}); all lines of a camera file have the same."
            )
    places = [f"line {number}" for number, _ in lines]
    return _from_table(path, np.array(table), places, height, width)


def _numbers(path: Path, number: int, words: list[str]) -> list[float]:
    values = []
    for position, word in enumerate(words, 1):
        try:
            values.append(float(word))
        except ValueError:
            raise DataError(
                f"{path}, line {number}: value {position}, {word[:40]!r}, is not a number; "
                "a camera file holds numbers separated by spaces."
            ) from None
    _finite(path, f"line {number}", values)
    return values


def _finite(path: Path, place: str, values: list[float]) -> None:
    for position, value in enumerate(values, 1):
        if not np.isfinite(value):
            raise DataError(f"{path}, {place}: value {position} is {value}; every number must be finite.")


def _from_table(path: Path, table: np.ndarray, places: list[str], height: int, width: int) -> RawCameras:
    frames, columns = table.shape
    if columns == 19:
        for place, row in zip(places, table, strict=True):
            if row[5:7].any():
                raise DataError(
                    f"{path}, {place}: values 6 and 7 are {row[5]:g} and {row[6]:g}; they stand for lens distortion and must "
                    "be 0: undistort the pictures first."
                )
        # RealEstate10K counts from the picture's edge, so that 0.5 is the middle; pixel centres here are whole numbers
        intrinsics = table[:, 1:5] * [width, height, width, height] - [0, 0, 0.5, 0.5]
        return RawCameras(table[:, 7:].reshape(frames, 3, 4), intrinsics, "w2c", places)
    if columns == 17:
        for expected, (place, row) in enumerate(zip(places, table, strict=True)):
            if row[0] != expected:
                raise DataError(
                    f"{path}, {place}: frame number {row[0]:g} where {expected} is due; frame numbers count 0, 1, 2, …"
                )
        return RawCameras(table[:, 5:].reshape(frames, 3, 4), table[:, 1:5], "w2c", places)
    matrices = table.reshape(frames, -1, 4)
    for place, matrix in zip(places, matrices, strict=True):
        _check_last_row(path, place, matrix)
    return RawCameras(matrices[:, :3], None, None, places)


def _check_last_row(path: Path, place: str, matrix: np.ndarray) -> None:
    if len(matrix) == 4 and np.abs(matrix[3] - LAST_ROW).max() > LAST_ROW_TOLERANCE:
        row = " ".join(f"{value:g}" for value in matrix[3])
        raise DataError(f"{path}, {place}: the last row of the 4×4 matrix is {row}; it must be 0 0 0 1.")


def _parse_json(path: Path, text: str, height: int, width: int) -> RawCameras:
    """The release's JSON: focal_length in pixels, camera→world 4×4 matrices of all frames in cameras_interp.

    Its `scale` (1 in the release) is not applied: translations are taken as they stand.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}.") from error
    except RecursionError as error:
        raise DataError(f"{path}: not a camera file: JSON nested too deeply.") from error
    if not isinstance(content, dict) or not {"focal_length", "cameras_interp"} <= set(content):
        raise DataError(f"{path}: a camera file in JSON is an object with the keys focal_length and cameras_interp.")
    focal, listed = content["focal_length"], content["cameras_interp"]
    if not _is_number(focal):
        raise DataError(f"{path}: focal_length is {str(focal)[:40]!r}; it must be a number of pixels.")
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{path}: cameras_interp must be a list with one 4×4 matrix per frame.")
    _finite(path, "focal_length", [float(focal)])
    places = [f"cameras_interp[{index}]" for index in range(len(listed))]
    matrices = np.stack([_matrix(path, place, entry) for place, entry in zip(places, listed, strict=True)])
    intrinsics = np.array([[focal, focal, (width - 1) / 2, (height - 1) / 2]] * len(places), dtype=np.float64)
    return RawCameras(matrices, intrinsics, "c2w", places)


def _matrix(path: Path, place: str, entry: Any) -> np.ndarray:
    """The upper 3 4 of a 4×4 list of lists."""
    rows = entry if isinstance(entry, list) else []
    square = len(rows) == 4 and all(isinstance(row, list) and len(row) == 4 for row in rows)
    if not square or not all(_is_number(value) for row in rows for value in row):
        raise DataError(f"{path}, {place}: not a 4×4 matrix of numbers.")
    _finite(path, place, [float(value) for row in rows for value in row])
    matrix = np.array(rows, dtype=np.float64)
    _check_last_row(path, place, matrix)
    return matrix[:3]


def _is_number(value: Any) -> bool:
    """Whether JSON holds a number that fits a float."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53)
