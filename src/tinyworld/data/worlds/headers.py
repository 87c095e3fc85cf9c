"""What a depth or points file says of itself, read from its ends: a scan of a large data set cannot decode everything.

This finds files of a wrong kind or size, and files that are cut off. Damage in the middle is found when a file is decoded.
"""

import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinyworld.core.errors import DataError

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
TAIL = 1024
"""Bytes at the end in which a PNG's last chunk is looked for; some writers append a little."""


def array_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of what a file holds: H W of a 16-bit grey PNG, that of the array of a .npy or .npz file.

    name: of the array in an .npz file with several. Raises DataError for other files, other kinds of PNG, arrays that are not
    floating point and files that end too early.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if suffix == ".npz":
                return _npz(file, name)
            return _npy(file, size) if suffix == ".npy" else _png(file, size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, struct.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {error}") from error


def _png(file: IO[bytes], size: int) -> tuple[int, ...]:
    head = file.read(26)
    if not head.startswith(PNG_START):
        raise ValueError("not a PNG picture")
    file.seek(max(0, size - TAIL))
    if len(head) < 26 or PNG_END not in file.read():
        raise ValueError("a damaged PNG: its end is missing")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:])
    if (bits, colour) != (16, 0):
        raise ValueError(
            f"a PNG of {bits} bits, {COLOURS.get(colour, 'unknown')}; depth is one grey channel of 16 bits, in millimetres"
        )
    return height, width


def _npy(file: IO[bytes], size: int) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind != "f":
        raise ValueError(f"numbers of type {dtype}; they must be floats, depth in metres")
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if size < expected:
        raise ValueError(f"cut off: {size} bytes of {expected}")
    return tuple(shape)


def _npz(file: IO[bytes], name: str) -> tuple[int, ...]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        chosen = members if len(members) == 1 else [member for member in members if member.filename == f"{name}.npy"]
        if len(chosen) != 1:
            raise ValueError(f"holds {len(members)} arrays; it must hold the array {name}, or one array only")
        with archive.open(chosen[0]) as array:
            return _npy(array, chosen[0].file_size)
