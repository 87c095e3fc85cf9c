"""Pictures as bytes and data URIs, small enough for a page."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tinyworld.media.colour import colour_depth, depth_range
from tinyworld.report.shown import ShownWorld

WIDTHS = (480, 360, 256, 160)
SAMPLED = 6
"""Pictures that are encoded to estimate what all of them weigh."""


def encoded(picture: np.ndarray, width: int, quality: int = 80) -> bytes:
    """uint8 H W 3 as WebP, at most `width` pixels wide."""
    image = Image.fromarray(picture)
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality)
    return file.getvalue()


def uri(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def depth_pictures(world: ShownWorld) -> tuple[np.ndarray, float, float]:
    """uint8 T h w 3, and the nearest and farthest depth that the colours tell apart, the same for the whole clip."""
    near, far = depth_range(world.depth, world.known)
    return colour_depth(world.depth, world.known, near, far), near, far


def fitting_width(clips: Sequence[np.ndarray], limit: int) -> int:
    """The largest of WIDTHS at which all pictures of the clips (uint8 T H W 3 each) take about `limit` bytes or less."""
    for width in WIDTHS[:-1]:
        total = 0.0
        for clip in clips:
            chosen = clip[:: max(1, len(clip) // SAMPLED)]
            total += len(clip) * sum(len(encoded(picture, width)) for picture in chosen) / len(chosen)
        if total <= limit:
            return width
    return WIDTHS[-1]
