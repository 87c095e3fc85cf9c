"""Periodic noise and small colour helpers: what every painted texture is made of.

Arrays are float32, S is the edge of a square texture in texels; texture coordinates u (to the right) and v (down) lie
in [0, 1) with texel centres at (i + 0.5) / S, and everything wraps around.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Colour = tuple[float, float, float]
"""Red, green, blue in [0, 1], as a screen shows them (sRGB)."""


def grid(size: int) -> tuple[Array, Array]:
    """u (1, S) and v (S, 1) of the texel centres."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / np.float32(size)
    return line[None, :], line[:, None]


def smooth(low: float | Array, high: float | Array, value: Array) -> Array:
    """0 below `low`, 1 above `high`, a cubic without kinks between them."""
    x = np.clip((value - low) / (high - low), 0.0, 1.0)
    return (x * x * (3.0 - 2.0 * x)).astype(np.float32, copy=False)


def mix(first: Array | Colour, second: Array | Colour, share: Array) -> Array:
    """Colours blended per texel: share 0 is `first`, 1 is `second`. `share` is (S, S), the result (S, S, 3)."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return a + (b - a) * np.asarray(share, np.float32)[..., None]


def toned(colour: Colour, factor: float, plus: float = 0.0) -> Colour:
    """A colour with every part multiplied and raised, kept below white."""
    red, green, blue = (min(0.95, factor * part + plus) for part in colour)
    return red, green, blue


def plain(size: int, colour: Colour) -> Array:
    """One colour everywhere, (S, S, 3)."""
    return np.broadcast_to(np.asarray(colour, np.float32), (size, size, 3)).copy()


def shade(colour: Array, amount: Array) -> Array:
    """Make a colour brighter (amount > 0) or darker (< 0) by a relative amount, (S, S, 3) by (S, S)."""
    return colour * (1.0 + np.asarray(amount, np.float32))[..., None]


def fractal(rng: np.random.Generator, size: int, slope: float = 1.2, stretch: float = 1.0, low: float = 1.0) -> Array:
    """Periodic noise with detail at every scale: (S, S), mean 0, deviation 1.

    The amplitude falls as frequency ** -slope (about 1 is what natural images have); frequencies below `low` waves a
    texture are left out; `stretch` > 1 draws the grain out along u.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy = np.fft.fftfreq(size)[:, None] * size
    fx = np.fft.rfftfreq(size)[None, :] * size
    frequency = np.hypot(fx * stretch, fy)
    weight = np.where(frequency >= low, np.maximum(frequency, 1e-6) ** -slope, 0.0)
    field = np.fft.irfft2(spectrum * weight, s=(size, size))
    return (field / field.std()).astype(np.float32)


def cells(rng: np.random.Generator, size: int, count: int) -> tuple[Array, Array, Array]:
    """Periodic cells around one jittered point per square of a count × count grid.

    Returns the distance to the nearest and to the second nearest point in units of a square, and the number of the
    nearest point, each (S, S).
    """
    points = rng.random((2, count, count)).astype(np.float32)
    u, v = grid(size)
    x, y = np.broadcast_to(u * count, (size, size)), np.broadcast_to(v * count, (size, size))
    column, row = x.astype(np.int32), y.astype(np.int32)
    first = np.full((size, size), 9.0, np.float32)
    second = first.copy()
    owner = np.zeros((size, size), np.int32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            i, j = (row + dy) % count, (column + dx) % count
            distance = np.hypot(column + dx + points[0, i, j] - x, row + dy + points[1, i, j] - y)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            owner = np.where(nearer, i * count + j, owner)
            first = np.where(nearer, distance, first)
    return first, second, owner


def waves(rng: np.random.Generator, points: Array, count: int = 48, low: float = 1.0, slope: float = 1.0) -> Array:
    """Noise over points (..., 3) of the unit sphere, without seams or poles: a sum of plane waves, deviation about 1."""
    field = np.zeros(points.shape[:-1], np.float32)
    power = 0.0
    for k in range(count):
        frequency = low * 12.0 ** (k / count)
        direction = rng.standard_normal(3)
        direction *= frequency / np.linalg.norm(direction)
        amplitude = frequency**-slope
        power += amplitude * amplitude / 2
        argument = points[..., 0] * direction[0] + points[..., 1] * direction[1] + points[..., 2] * direction[2]
        field += amplitude * np.cos(argument.astype(np.float32) * np.float32(np.pi) + np.float32(rng.random() * 6.28))
    return (field / np.sqrt(power)).astype(np.float32)
