"""PNG files: colour pictures, and depth maps of 16 bits in millimetres."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.core.files import write_atomic

MAX_MILLIMETRES = 65535


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture, uint8 H W 3 (RGB) or H W (grey). Raises ValueError for anything else."""
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise ValueError(f"a PNG picture is uint8 H W 3 or H W, not {picture.dtype} {picture.shape}")
    _write(path, Image.fromarray(np.ascontiguousarray(picture)))


def write_depth_png(path: str | Path, depth_m: np.ndarray) -> None:
    """Write a depth map, float H W in metres, as 16-bit millimetres.

    0 means "no measurement": so are written NaN, infinite, negative and zero depths, those below half a millimetre and
    those beyond 65.535 m, which 16 bits cannot hold.
    """
    if depth_m.ndim != 2 or not np.issubdtype(depth_m.dtype, np.floating):
        raise ValueError(f"a depth map is float H W in metres, not {depth_m.dtype} {depth_m.shape}")
    finite = np.where(np.isfinite(depth_m), depth_m, 0.0).astype(np.float64)
    millimetres = np.rint(finite * 1000)
    valid = (millimetres > 0) & (millimetres <= MAX_MILLIMETRES)
    _write(path, Image.fromarray(np.where(valid, millimetres, 0).astype(np.uint16)))


def read_png16(path: str | Path) -> np.ndarray:
    """Read a 16-bit grey PNG as uint16 H W, its numbers unchanged.

    Raises MissingFileError, or DataError for a file that is damaged, not a PNG, not grey or not of 16 bits.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            values = np.asarray(image)
            mode = image.mode
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a PNG picture") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # Pillow's ways of saying "damaged"
        raise DataError(f"{path}: damaged PNG: {error}") from error
    if mode != "I;16":
        raise DataError(f"{path}: a PNG of mode {mode}, not one channel of 16 bits")
    return values.astype(np.uint16)


def _write(path: str | Path, image: Image.Image) -> None:
    """Complete or absent, like every file of ours; parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    image.save(data, format="PNG")
    write_atomic(path, data.getvalue())
