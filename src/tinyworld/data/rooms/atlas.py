"""Every texture of a scene in one array with all its mip levels: painted once, then read with a filter that fits.

A texel is five numbers: linear red, green, blue and the slope of the relief along u and v. Averaging them from level to
level is what keeps fine patterns from flickering when the camera moves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyworld.data.rooms import coverings, pictures, stuffs
from tinyworld.data.rooms.noise import Array, Colour

Painter = Callable[[np.random.Generator, int, Colour, Colour], coverings.Painted]

PAINTERS: dict[str, Painter] = {
    painter.__name__: painter
    for painter in (
        coverings.planks, coverings.parquet, coverings.bricks, coverings.tiles, coverings.marble, coverings.terrazzo,
        coverings.plaster, coverings.concrete, coverings.carpet, coverings.wallpaper, coverings.panelling,
        stuffs.timber, stuffs.weave, stuffs.plaid, stuffs.leather, stuffs.wicker, stuffs.metal, stuffs.ceramic,
        stuffs.parcel, stuffs.crate, stuffs.chequer, stuffs.foliage, stuffs.ball,
        pictures.painting, pictures.view, pictures.rug, pictures.books, pictures.drawers, pictures.door,
        pictures.clock, pictures.glow,
    )
}  # fmt: skip

SLOPE_LIMIT = 1.2
"""Steeper relief is cut off here: a normal map cannot hide what is behind an edge."""


@dataclass(frozen=True)
class Texture:
    """What to paint: the painter's name, two colours (sRGB in [0, 1]) and the seed of its details. Small things need
    fewer texels: their edge is the atlas's divided by `fraction`, a power of two."""

    painter: str
    colour: Colour
    second: Colour
    seed: int
    fraction: int = 1


def paint(texture: Texture, size: int) -> Array:
    """The texels (S, S, 5) of one texture."""
    rng = np.random.default_rng(texture.seed)
    colour, height = PAINTERS[texture.painter](rng, size, texture.colour, texture.second)
    texels = np.empty((size, size, 5), np.float32)
    texels[..., :3] = np.clip(colour, 0.012, 0.97) ** np.float32(2.2)
    for channel, axis in ((3, 1), (4, 0)):
        slope = (np.roll(height, -1, axis) - np.roll(height, 1, axis)) * (size / 2)
        texels[..., channel] = np.clip(slope, -SLOPE_LIMIT, SLOPE_LIMIT)
    return texels


class Atlas:
    """Textures of edge `size` (a power of two) or a fraction of it, read by number with trilinear filtering."""

    def __init__(self, textures: Sequence[Texture], size: int) -> None:
        self.sizes = np.asarray([max(16, size // texture.fraction) for texture in textures], np.int32)
        self._levels = np.asarray([int(edge).bit_length() for edge in self.sizes], np.int32)
        parts, self._offset = [], np.zeros((len(textures), int(self._levels.max())), np.int32)
        start = 0
        for number, texture in enumerate(textures):
            texels = paint(texture, int(self.sizes[number]))
            for level in range(self._levels[number]):
                self._offset[number, level] = start
                parts.append(texels.reshape(-1, 5))
                start += len(parts[-1])
                if level + 1 < self._levels[number]:
                    texels = (texels[::2, ::2] + texels[1::2, ::2] + texels[::2, 1::2] + texels[1::2, 1::2]) / 4
        self._texels = np.concatenate(parts)

    def read(self, texture: Array, u: Array, v: Array, width: Array) -> Array:
        """Texels (n, 5) of textures `texture` (n,) at u, v (n,), repeating, averaged over about `width` (n,) repeats."""
        level = np.log2(np.maximum(width * self.sizes[texture], 1.0))
        level = np.minimum(level, self._levels[texture] - np.float32(1.001)).astype(np.float32)
        lower = level.astype(np.int32)
        share = (level - lower)[:, None]
        return self._bilinear(texture, u, v, lower) * (1 - share) + self._bilinear(texture, u, v, lower + 1) * share

    def _bilinear(self, texture: Array, u: Array, v: Array, level: Array) -> Array:
        edge = self.sizes[texture] >> level
        mask = edge - 1
        x = u * edge - np.float32(0.5)
        y = v * edge - np.float32(0.5)
        column, row = np.floor(x), np.floor(y)
        a, b = (x - column)[:, None], (y - row)[:, None]
        left, top = column.astype(np.int32) & mask, row.astype(np.int32) & mask
        right, bottom = (left + 1) & mask, (top + 1) & mask
        start = self._offset[texture, level]
        upper, under = start + top * edge, start + bottom * edge
        texels = self._texels
        above = texels[upper + left] * (1 - a) + texels[upper + right] * a
        below = texels[under + left] * (1 - a) + texels[under + right] * a
        return above * (1 - b) + below * b
