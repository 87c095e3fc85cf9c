"""What a pinhole camera sees: for every ray the nearest side and its depth.

A ray's direction has length 1 along the optical axis, so the distance along it is the z depth itself.
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.shapes import NEAR, Placed, intersect, side_of

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64).T
EDGES = np.array([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit]).T
SIDES = 8
"""Numbers a shape's sides: identity = SIDES × shape + side."""


@dataclass(frozen=True)
class View:
    """A pinhole camera at one moment: `rotation` (3, 3) room → camera with OpenCV's axes (x right, y down, z forward),
    its position `origin` (3,) in the room, both float64; focal lengths and principal point in pixels with pixel centres
    at integer coordinates; the picture's size."""

    rotation: Array
    origin: Array
    fx: float
    fy: float
    cx: float
    cy: float
    height: int
    width: int

    def directions(self, dx: float, dy: float) -> Array:
        """Ray directions (3, H, W) in the room's frame through the points (dx, dy) off the pixel centres."""
        x = ((np.arange(self.width) + dx - self.cx) / self.fx)[None, :]
        y = ((np.arange(self.height) + dy - self.cy) / self.fy)[:, None]
        r = self.rotation
        return np.stack([r[0, k] * x + r[1, k] * y + r[2, k] for k in range(3)]).astype(np.float32)

    def windows(self, placed: list[Placed]) -> list[tuple[slice, slice] | None]:
        """For each shape the rows and columns that its bounding box covers; None when it is not in the picture."""
        widest = np.asarray([max(1.0, one.shape.taper) for one in placed])
        half = np.stack([one.half for one in placed]) * np.stack([widest, widest, np.ones_like(widest)], axis=1)
        axes = np.stack([one.rotation for one in placed]) * half[:, None, :]
        corners = (np.stack([one.centre for one in placed]) - self.origin)[:, :, None] + (
            axes[..., None] * CORNERS
        ).sum(axis=2)
        x, y, z = (self.rotation[:, None, :, None] * corners).sum(axis=2)
        behind = z < NEAR
        safe = np.where(behind, 1.0, z)
        columns, rows = self.cx + self.fx * x / safe, self.cy + self.fy * y / safe
        found: list[tuple[slice, slice] | None] = []
        for k in range(len(placed)):
            if behind[k].all():
                found.append(None)
            elif behind[k].any():
                found.append(_span(*self._cut(x[k], y[k], z[k]), self.height, self.width))
            else:
                found.append(_span(rows[k], columns[k], self.height, self.width))
        return found

    def _cut(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """Rows and columns of a box's corners before the near plane, and of the points where its edges cross it."""
        first, second = EDGES
        crossing = (z[first] < NEAR) != (z[second] < NEAR)
        first, second = first[crossing], second[crossing]
        share = (NEAR - z[first]) / (z[second] - z[first])
        front = z >= NEAR
        x = np.concatenate([x[front], x[first] + share * (x[second] - x[first])])
        y = np.concatenate([y[front], y[first] + share * (y[second] - y[first])])
        z = np.concatenate([z[front], np.full(len(share), NEAR)])
        return self.cy + self.fy * y / z, self.cx + self.fx * x / z


def _span(rows: Array, columns: Array, height: int, width: int) -> tuple[slice, slice] | None:
    spans = []
    for line, count in ((rows, height), (columns, width)):
        low = max(0, math.floor(line.min() - 0.5))
        high = min(count, math.ceil(line.max() + 0.5) + 1)
        if low >= high:
            return None
        spans.append(slice(low, high))
    return spans[0], spans[1]


def cast(placed: list[Placed], view: View, offsets: tuple[tuple[float, float], ...]) -> tuple[Array, Array, Array]:
    """Directions (3, K, H, W), depth (K, H, W) in metres and identity (K, H, W) for K rays a pixel."""
    directions = np.stack([view.directions(dx, dy) for dx, dy in offsets], axis=1)
    origin = view.origin.astype(np.float32)
    depth = np.full(directions.shape[1:], np.inf, np.float32)
    identity = np.full(depth.shape, -1, np.int32)
    for number, (one, window) in enumerate(zip(placed, view.windows(placed), strict=True)):
        if window is None:
            continue
        area = (slice(None), *window)
        rays, nearest, known = directions[(slice(None), *area)], depth[area], identity[area]
        distance = intersect(one, origin, rays)
        nearer = distance < nearest
        reached = distance[nearer]
        if len(reached):
            nearest[nearer] = reached
            known[nearer] = SIDES * number + side_of(one, origin[:, None] + rays[:, nearer] * reached)
    return directions, depth, identity
