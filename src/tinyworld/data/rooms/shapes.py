"""Boxes, balls and cylinders: what a scene is built of, and where rays meet it.

Every shape is a unit shape in its own frame (box [−1, 1]³; ball of radius 1; cylinder of radius 1 between z = −1 and 1,
drawn in or out towards the top by `taper`), stretched by half sizes, turned and moved. Vectors over many points are
arrays (3, …) in float32: one row a coordinate.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinyworld.data.rooms.motion import Motion, Vector, rotation_about, yaw_rotation
from tinyworld.data.rooms.noise import Array

Kind = Literal["box", "ball", "cylinder", "room"]
NEAR = 0.02
"""Nothing closer to the camera than this (m along the optical axis) is seen."""


@dataclass(frozen=True)
class Surface:
    """What one side looks like: a texture's number, the edge of one repeat in metres (0: once over the whole side),
    gloss in [0, 1] and emission (radiance of a white texel)."""

    texture: int
    metres: float = 0.0
    gloss: float = 0.0
    emission: float = 0.0


@dataclass(frozen=True)
class Shape:
    """A primitive in its thing's frame: half sizes and centre in metres, `tilt` (rad) about x, y and z in this order.

    `surfaces` has one entry for all sides, or six for a box (−x, +x, −y, +y, −z, +z), or two for a cylinder (side, ends).
    """

    kind: Kind
    half: Vector
    centre: Vector
    surfaces: tuple[Surface, ...]
    tilt: Vector = (0.0, 0.0, 0.0)
    taper: float = 1.0
    casts_shadow: bool = True

    def surface(self, part: int) -> Surface:
        return self.surfaces[part if len(self.surfaces) == 6 else min(part, len(self.surfaces) - 1)]


@dataclass(frozen=True)
class Thing:
    """A named group of shapes standing in the room, perhaps moving."""

    name: str
    shapes: tuple[Shape, ...]
    position: Vector = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    motion: Motion | None = None


@dataclass(frozen=True)
class Placed:
    """A shape at one moment in the room's frame: `rotation` (3, 3) has its axes as columns, `inverse` goes to the unit
    shape, `radius` bounds it; `thing` is the number of the thing it belongs to."""

    shape: Shape
    thing: int
    centre: Array
    rotation: Array
    half: Array
    inverse: Array
    radius: float

    def to_unit(self, points: Array) -> Array:
        """Room points (3, …) in the frame of the unit shape."""
        return apply(self.inverse, points - _column(self.centre, points.ndim))


def _column(vector: Array, ndim: int) -> Array:
    return vector.reshape((3,) + (1,) * (ndim - 1))


def apply(matrix: Array, vectors: Array) -> Array:
    """matrix (3, 3) times vectors (3, …), written out: bit-equal whatever the number of threads and of vectors."""
    x, y, z = vectors
    out = np.empty_like(vectors)
    for row in range(3):
        out[row] = matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] * z
    return out


def dot(first: Array, second: Array) -> Array:
    """Scalar products of vectors (3, …)."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def place(things: tuple[Thing, ...], time: float, known: list[Placed] | None = None) -> list[Placed]:
    """All shapes of all things at `time` seconds. Those that stand still are taken from `known`, another moment's."""
    placed: list[Placed] = []
    for number, thing in enumerate(things):
        if known is not None and thing.motion is None:
            placed += known[len(placed) : len(placed) + len(thing.shapes)]
            continue
        turn, origin = yaw_rotation(thing.yaw), np.asarray(thing.position, np.float64)
        if thing.motion is not None:
            moved, shift = thing.motion.pose(time)
            turn, origin = moved @ turn, origin + shift
        for shape in thing.shapes:
            own = turn
            for axis in range(3):
                if shape.tilt[axis]:
                    own = own @ rotation_about(np.eye(3)[axis], shape.tilt[axis])
            half = np.asarray(shape.half, np.float64)
            widest = max(1.0, shape.taper)
            reach = half * np.array([widest, widest, 1.0])
            radius = {"ball": reach.max(), "cylinder": np.hypot(reach[:2].max(), reach[2])}.get(shape.kind)
            placed.append(
                Placed(
                    shape=shape,
                    thing=number,
                    centre=(origin + turn @ np.asarray(shape.centre)).astype(np.float32),
                    rotation=own.astype(np.float32),
                    half=half.astype(np.float32),
                    inverse=(own.T / half[:, None]).astype(np.float32),
                    radius=float(np.linalg.norm(reach) if radius is None else radius),
                )
            )
    return placed


def intersect(placed: Placed, origin: Array, directions: Array) -> Array:
    """Where rays from one `origin` (3,) along `directions` (3, …) first meet a shape from outside (a room: from inside),
    in units of the direction's length; infinity where they miss it."""
    o = apply(placed.inverse, origin - placed.centre)
    d = apply(placed.inverse, directions)
    kind = placed.shape.kind
    if kind in ("box", "room"):
        return _box(o, d, inside=kind == "room")
    return _ball(o, d) if kind == "ball" else _cylinder(o, d, placed.shape.taper)


def _box(o: Array, d: Array, inside: bool) -> Array:
    enter, leave = None, None
    for axis in range(3):
        inverse = 1.0 / np.where(np.abs(d[axis]) < 1e-9, np.float32(1e-9), d[axis])
        middle, half = -o[axis] * inverse, np.abs(inverse)
        far = middle + half
        leave = far if leave is None else np.minimum(leave, far)
        if not inside:
            near = middle - half
            enter = near if enter is None else np.maximum(enter, near)
    assert leave is not None
    if enter is None:
        return leave
    return np.where((enter < leave) & (enter > NEAR), enter, np.float32(np.inf))


def _nearest(o: Array, d: Array) -> tuple[Array, Array]:
    """Where on the ray (from one point o, along d) it comes closest to the origin, and that point (3, …).

    Solving from there keeps float32 exact to a few micrometres for small things far away.
    """
    t = -(o[0] * d[0] + o[1] * d[1] + o[2] * d[2]) / dot(d, d)
    return t, np.stack([o[k] + t * d[k] for k in range(3)])


def _ball(o: Array, d: Array) -> Array:
    middle, p = _nearest(o, d)
    rest = (1.0 - dot(p, p)) / dot(d, d)
    t = middle - np.sqrt(np.maximum(rest, 0.0))
    return np.where((rest > 0) & (t > NEAR), t, np.float32(np.inf))


def _cylinder(o: Array, d: Array, taper: float) -> Array:
    start, p = _nearest(o, d)
    middle, growth = np.float32((1 + taper) / 2), np.float32((taper - 1) / 2)
    radius, change = middle + growth * p[2], growth * d[2]
    a = d[0] * d[0] + d[1] * d[1] - change * change
    a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    b = p[0] * d[0] + p[1] * d[1] - radius * change
    rest = b * b - a * (p[0] * p[0] + p[1] * p[1] - radius * radius)
    root = np.sqrt(np.maximum(rest, 0.0))
    best = np.full(a.shape, np.inf, np.float32)
    for way in ((-b - root) / a, (-b + root) / a):
        t = start + way
        hit = (rest > 0) & (t > NEAR) & (np.abs(p[2] + way * d[2]) <= 1.0) & (t < best)
        best = np.where(hit, t, best)
    dz = np.where(np.abs(d[2]) < 1e-9, np.float32(1e-9), d[2])
    for end, edge in ((-1.0, 1.0), (1.0, taper)):
        way = (np.float32(end) - p[2]) / dz
        t, x, y = start + way, p[0] + way * d[0], p[1] + way * d[1]
        hit = (t > NEAR) & (t < best) & (x * x + y * y <= np.float32(edge * edge))
        best = np.where(hit, t, best)
    return best


def side_of(placed: Placed, points: Array) -> Array:
    """Which side of a shape room points (3, n) on its surface lie on: 2 × axis + (1 if positive) of a box or room;
    0 round, 1 bottom, 2 top of a cylinder; 0 of a ball."""
    kind = placed.shape.kind
    if kind == "ball":
        return np.zeros(points.shape[1], np.int32)
    unit = placed.to_unit(points)
    if kind == "cylinder":
        middle, growth = (1 + placed.shape.taper) / 2, (placed.shape.taper - 1) / 2
        # How far inside the mantle and inside the ends a point lies, both in metres.
        mantle = (middle + growth * unit[2] - np.hypot(unit[0], unit[1])) * placed.half[0]
        ends = (1.0 - np.abs(unit[2])) * placed.half[2]
        return np.where(np.abs(mantle) <= np.abs(ends), 0, np.where(unit[2] < 0, 1, 2)).astype(np.int32)
    x, y, z = np.abs(unit)
    axis = np.where(z >= np.maximum(x, y), 2, np.where(y >= x, 1, 0))
    return (2 * axis + (np.where(axis == 2, unit[2], np.where(axis == 1, unit[1], unit[0])) > 0)).astype(np.int32)


def clearance(placed: Placed, points: Array) -> Array:
    """Signed distance (m) from room points (3, n) to a shape, negative within; exact for boxes, close for the others.
    A room is what is outside it: positive within."""
    unit = placed.to_unit(points)
    if placed.shape.kind == "room":
        return -distance("box", unit, placed.half, 1.0)
    return distance(placed.shape.kind, unit, placed.half, placed.shape.taper)


def distance(kind: Kind, unit: Array, half: Array, taper: Array | float) -> Array:
    """Signed distance (m) from points (3, n), in the unit shape's frame, to a box, cylinder or ball with these half sizes
    (3,) or (3, n) and taper."""
    x, y, z = unit
    a, b, c = half
    if kind == "ball":
        return (np.sqrt(x * x + y * y + z * z) - 1.0) * np.minimum(np.minimum(a, b), c)
    dz = (np.abs(z) - 1.0) * c
    if kind == "cylinder":
        edge = (1 + taper) / 2 + (taper - 1) / 2 * np.clip(z, -1, 1)
        dr = (np.sqrt(x * x + y * y) - edge) * np.minimum(a, b)
        return np.hypot(np.maximum(dr, 0.0), np.maximum(dz, 0.0)) + np.minimum(np.maximum(dr, dz), 0.0)
    dx, dy = (np.abs(x) - 1.0) * a, (np.abs(y) - 1.0) * b
    nearest = np.minimum(np.maximum(np.maximum(dx, dy), dz), 0.0)
    dx, dy, dz = np.maximum(dx, 0.0), np.maximum(dy, 0.0), np.maximum(dz, 0.0)
    return np.sqrt(dx * dx + dy * dy + dz * dz) + nearest
