"""Depth maps and point maps, one file per frame of a video.

A depth map is a 16-bit grey PNG in millimetres, or .npy / .npz (NumPy's formats, never pickled objects) of floats in metres.
"""

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.media.png import read_png16

ARRAY_SUFFIXES = (".npy", ".npz")
DEPTH_SUFFIXES = (".png", *ARRAY_SUFFIXES)
NUMBERED = re.compile(r"(.*?)([0-9]+)")


def read_depth(path: str | Path) -> np.ndarray:
    """A depth map, float32 H W in metres; 0 where nothing was measured (also NaN, infinite and negative values).

    From a PNG in millimetres, .npy, or .npz with the array `depth` or one array only.
    Raises MissingFileError, or DataError naming the file and the fault.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        return read_png16(path).astype(np.float32) / np.float32(1000)
    values = _read_floats(
        path, "depth", DEPTH_SUFFIXES, "metres", " (divide millimetres by 1000, or save a 16-bit PNG)"
    )
    if values.ndim != 2 or not values.size:
        raise DataError(f"{path}: a depth map has two dimensions, height and width, not {_shape(values)}.")
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(0))


def read_points(path: str | Path) -> np.ndarray:
    """A point map, float32 H W 3; NaN for all of a point's coordinates where one of them is not finite.

    From .npy, or .npz with the array `points` or one array only. Raises MissingFileError, or DataError naming the file.
    """
    path = Path(path)
    values = _read_floats(path, "points", ARRAY_SUFFIXES, "the cameras' unit", "")
    if values.ndim != 3 or values.shape[2] != 3 or not values.size:
        raise DataError(f"{path}: a point map has height, width and 3 coordinates, not {_shape(values)}.")
    return np.where(np.isfinite(values).all(axis=2, keepdims=True), values, np.float32(np.nan))


def _shape(values: np.ndarray) -> str:
    return "×".join(str(size) for size in values.shape) or "a single number"


def _read_floats(path: Path, name: str, suffixes: tuple[str, ...], unit: str, hint: str) -> np.ndarray:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    if path.suffix.lower() not in ARRAY_SUFFIXES:
        raise DataError(f"{path}: a file of {name} is one of {', '.join(suffixes)}.")
    try:
        values = _load(path, name)
    # NumPy's ways of saying "damaged"; MemoryError: a header that promises more than there is
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged, or not an array of numbers: {error}") from error
    if values.dtype.kind != "f":
        raise DataError(f"{path}: numbers of type {values.dtype}; {name} must be floats in {unit}{hint}.")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is no measurement
        return values.astype(np.float32)


def _load(path: Path, name: str) -> np.ndarray:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        key = loaded.files[0] if len(loaded.files) == 1 else name
        if key not in loaded.files:
            held = ", ".join(sorted(loaded.files)) or "nothing"
            raise DataError(f"{path}: holds {held}; it must hold the array {name}, or one array only.")
        return np.asarray(loaded[key])


def list_frames(folder: str | Path, suffixes: Sequence[str] = DEPTH_SUFFIXES) -> list[Path]:
    """The numbered files of a folder (frame_0000.npy, 000000.png, …) in the order of their numbers, from 0 or 1 without gaps.

    Files with other suffixes are left out. Raises MissingFileError for no such folder; DataError, naming the number or the
    file, for gaps, numbers that come twice, names without a number, and files of two kinds.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    kept = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]
    if not kept:
        raise DataError(f"{folder}: no file with a name that ends in {' or '.join(suffixes)}.")
    numbered: dict[int, Path] = {}
    kinds: dict[tuple[str, str], Path] = {}
    for path in kept:
        match = NUMBERED.fullmatch(path.stem)
        if match is None:
            raise DataError(f"{path}: the name does not end in a frame number, as frame_0000{path.suffix} does.")
        kinds.setdefault((match[1], path.suffix.lower()), path)
        if len(kinds) > 1:
            names = " and ".join(kind.name for kind in kinds.values())
            raise DataError(f"{folder}: files of two kinds, {names}; keep one kind in a folder.")
        other = numbered.setdefault(int(match[2]), path)
        if other is not path:
            raise DataError(f"{folder}: {other.name} and {path.name} have the same number; keep one.")
    first = min(min(numbered), 1)
    missing = next((number for number in range(first, first + len(numbered)) if number not in numbered), None)
    if missing is not None:
        raise DataError(
            f"{folder}: frame {missing} is missing among {len(numbered)} files up to {numbered[max(numbered)].name}."
        )
    return [numbered[number] for number in sorted(numbered)]
