"""Pictures in and out: whatever shows a picture as uint8, cut and resized to a clip's size, and the way to tensors and back."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tinyworld.core.errors import DataError, MissingFileError

Picture = np.ndarray | Image.Image | str | Path


def open_picture(source: Picture) -> np.ndarray:
    """uint8 H W 3 of an array like that, a PIL image, or an image file, upright. Raises MissingFileError and DataError."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise DataError(f"a picture is {source.dtype} {source.shape}; it must be uint8 H W 3, RGB.")
        return source
    if isinstance(source, Image.Image):
        return np.asarray(ImageOps.exif_transpose(source).convert("RGB"))
    path = Path(source)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such picture. Give an image file, such as a PNG or JPEG.")
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a picture. Give an image file, such as a PNG or JPEG.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: a picture that cannot be read: {error}") from error


def fitted(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 T H W 3 → T height width 3: the largest region in the middle with the new aspect, resized (bicubic, antialiased)."""
    rows, columns = frames.shape[1:3]
    if (rows, columns) == (height, width):
        return frames
    factor = min(rows / height, columns / width)
    down, across = min(round(height * factor), rows), min(round(width * factor), columns)
    top, left = (rows - down) // 2, (columns - across) // 2
    region = frames[:, top : top + down, left : left + across]
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in region]
    return np.stack([np.asarray(frame) for frame in resized])


def to_unit(frames: np.ndarray) -> Tensor:
    """uint8 … T H W 3 → float32 … T 3 H W in [0, 1]."""
    return torch.from_numpy(np.array(frames)).movedim(-1, -3).float().div_(255)


def to_pictures(frames: Tensor) -> np.ndarray:
    """… T 3 H W in [0, 1] → uint8 … T H W 3."""
    return frames.float().mul(255).round().clamp(0, 255).byte().movedim(-3, -1).cpu().numpy()
