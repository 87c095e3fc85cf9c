"""Pictures, depth and points of a scene at a moment.

Colour is anti-aliased with four rays a pixel, but shaded once per pixel wherever all of them (and the central one) meet
the same side: textures are filtered by their mip levels and all light is smooth, so more samples would not differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyworld.data.rooms.atlas import Atlas
from tinyworld.data.rooms.light import illuminate
from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.scene import Scene
from tinyworld.data.rooms.shapes import Placed, dot, place
from tinyworld.data.rooms.sides import Sides, sides_of
from tinyworld.data.rooms.trace import SIDES, View, cast

RAYS = ((0.0, 0.0), (-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
"""The pixel's centre, which gives the depth, and four on a turned square for the colour."""
SLANT = 0.6
"""Below this cosine between a side's normal and the line of sight, textures are filtered along the line."""
TILE = 4
"""Edge (pixels) of the squares in which points are shaded together."""
MIDDLE_GREY, WHITE = 0.17, 1.3
"""Where the median of a scene's first picture is exposed to, before the tone curve; and what its brightest twentieth
may not exceed."""


@dataclass(frozen=True)
class Frame:
    """One moment: colour (H, W, 3) uint8 RGB; z depth (H, W) float32 in metres at the pixel centres; identity (H, W)
    int32 of the side seen; moving (H, W) bool, true where a moving thing is seen; and the camera, in the room's frame."""

    colour: Array
    depth: Array
    identity: Array
    moving: Array
    view: View


class Renderer:
    """Renders one scene; paints its textures and sets the exposure once."""

    def __init__(self, scene: Scene, texels: int = 256) -> None:
        self.scene = scene
        self.atlas = Atlas(scene.textures, texels)
        small = scene.camera.view(0.0, 48, 48)
        self._still = place(scene.things, 0.0)
        linear = self._picture(small, self._still, lambda radiance: radiance)[0]
        grey = 0.2126 * linear[..., 0] + 0.7152 * linear[..., 1] + 0.0722 * linear[..., 2]
        median, bright = (float(value) for value in np.percentile(grey, (50, 95)))
        self.exposure = min(MIDDLE_GREY / median, WHITE / bright)

    def frame(self, time: float, height: int, width: int) -> Frame:
        """The scene at `time` seconds, as the scene's own camera sees it."""
        exposure = np.float32(self.exposure)
        view = self.scene.camera.view(time, height, width)
        placed = place(self.scene.things, time, self._still)
        display, depth, identity = self._picture(view, placed, lambda radiance: _tone(radiance * exposure))
        encoded = np.clip(display, 0.0, 1.0) ** np.float32(1 / 2.2)
        moves = np.asarray([self.scene.things[one.thing].motion is not None for one in placed])
        return Frame(
            colour=(encoded * 255.0 + 0.5).astype(np.uint8),
            depth=depth,
            identity=identity,
            moving=moves[identity // SIDES],
            view=view,
        )

    def _picture(self, view: View, placed: list[Placed], curve: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
        """Radiance put through `curve` and averaged over each pixel (H, W, 3), depth and identity (H, W)."""
        directions, depth, identity = cast(placed, view, RAYS)
        same = (identity == identity[0]).all(axis=0)
        rows, columns = np.nonzero(same)
        edge_rows, edge_columns = np.nonzero(~same)
        # In a mixed pixel the first ray to meet a side is shaded for all rays of that pixel that meet it.
        sides = identity[1:, edge_rows, edge_columns]
        first = (sides[:, None] == sides[None]).argmax(axis=0)
        ray, pixel = np.nonzero(first == np.arange(len(sides))[:, None])
        which = (
            np.concatenate([np.zeros(len(rows), np.intp), ray + 1]),
            np.concatenate([rows, edge_rows[pixel]]),
            np.concatenate([columns, edge_columns[pixel]]),
        )
        # Points of one side and one tile of the picture stand together while they are shaded.
        tile = (which[1] // TILE) * (view.width // TILE + 1) + which[2] // TILE
        order = np.argsort(identity[which].astype(np.int64) * (1 << 24) + tile, kind="stable")
        ray_of, row, column = (index[order] for index in which)
        way, away = directions[:, ray_of, row, column], depth[ray_of, row, column]
        radiance = self._shade(view, placed, way, away, identity[ray_of, row, column])
        display = np.empty((len(order), 3), np.float32)
        display[order] = curve(radiance).T
        picture = np.empty((view.height, view.width, 3), np.float32)
        picture[rows, columns] = display[: len(rows)]
        shaded = np.zeros((*sides.shape, 3), np.float32)
        shaded[ray, pixel] = display[len(rows) :]
        picture[edge_rows, edge_columns] = np.take_along_axis(shaded, first[..., None], 0).mean(axis=0)
        return picture, depth[0], identity[0]

    def _shade(self, view: View, placed: list[Placed], way: Array, depth: Array, identity: Array) -> Array:
        """Linear radiance (3, n) of the points at `depth` along `way`, the same sides next to each other."""
        points = view.origin.astype(np.float32)[:, None] + way * depth
        toward_eye = -way / np.sqrt(dot(way, way))
        sides = sides_of(placed, points, identity)
        texels = self._filtered(sides, toward_eye, depth / np.float32(view.fx))
        relief = texels[3] * sides.along_u + texels[4] * sides.along_v
        normal = sides.normal - relief
        normal /= np.sqrt(dot(normal, normal))
        diffuse, highlights = illuminate(
            self.scene.lighting, placed, points, normal, sides.normal, toward_eye, sides.gloss, identity // SIDES
        )
        return texels[:3] * (diffuse + sides.emission) + highlights

    def _filtered(self, sides: Sides, toward_eye: Array, width: Array) -> Array:
        """Texels (5, n) averaged over a pixel's footprint: round when seen from the front, drawn out at a low angle."""
        cosine = np.clip(dot(sides.normal, toward_eye), 0.08, 1.0)
        width = width / sides.metres
        texels = np.empty((len(width), 5), np.float32)
        slant = cosine < SLANT
        front, low = np.flatnonzero(~slant), np.flatnonzero(slant)
        round_width = width[front] / np.sqrt(cosine[front])
        texels[front] = self.atlas.read(sides.texture[front], sides.u[front], sides.v[front], round_width)
        # At a low angle three reads along the long axis, each as wide as a third of it.
        eye, normal = toward_eye[:, low], sides.normal[:, low]
        lying = eye - dot(eye, normal) * normal
        lying /= np.sqrt(np.maximum(dot(lying, lying), 1e-9))
        third = width[low] / cosine[low] / 3.0
        du, dv = third * dot(lying, sides.along_u[:, low]), third * dot(lying, sides.along_v[:, low])
        fine = np.maximum(width[low], third)
        texture, u, v = sides.texture[low], sides.u[low], sides.v[low]
        texels[low] = sum(self.atlas.read(texture, u + k * du, v + k * dv, fine) for k in (-1, 0, 1)) / 3
        return texels.T


def _tone(x: Array) -> Array:
    """A film-like curve from radiance to [0, 1] (Narkowicz's fit of the ACES curve)."""
    return (x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)
