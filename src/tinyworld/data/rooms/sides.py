"""What the points of a picture look like up close: texture coordinates, axes and material of the sides they lie on."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.shapes import Placed, apply, dot
from tinyworld.data.rooms.trace import SIDES


@dataclass(frozen=True)
class Sides:
    """n points: texture numbers (n,), coordinates u, v (n,), metres per repeat (n,), the normal and the directions of u and
    v (3, n) in the room's frame, gloss and emission (n,)."""

    texture: Array
    u: Array
    v: Array
    metres: Array
    normal: Array
    along_u: Array
    along_v: Array
    gloss: Array
    emission: Array


def sides_of(placed: list[Placed], points: Array, identity: Array) -> Sides:
    """The sides that points (3, n) lie on; points with the same `identity` (n,) stand next to each other."""
    count = points.shape[1]
    u, v, metres, gloss, emission = np.empty((5, count), np.float32)
    normal, along_u, along_v = np.empty((3, 3, count), np.float32)
    texture = np.empty(count, np.int32)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(identity)) + 1, [count]])
    for start, end in pairwise(edges):
        g = slice(start, end)
        number, part = divmod(int(identity[start]), SIDES)
        surface = placed[number].shape.surface(part)
        texture[g], gloss[g], emission[g] = surface.texture, surface.gloss, surface.emission
        chart = _chart(placed[number], part, points[:, g], surface.metres)
        u[g], v[g], metres[g], normal[:, g], along_u[:, g], along_v[:, g] = chart
    return Sides(texture, u, v, metres, normal, along_u, along_v, gloss, emission)


Chart = tuple[Array, Array, float, Array, Array, Array]
"""u, v (n,), metres per repeat, the normal and the directions of u and v (3, n) or (3, 1)."""


def _chart(one: Placed, part: int, points: Array, metres: float) -> Chart:
    """Where room points (3, n) lie on a side's texture; `metres` as in `Surface`."""
    unit = one.to_unit(points)
    if one.shape.kind == "ball":
        return _ball(one, unit, metres)
    if one.shape.kind == "cylinder":
        return _end(one, part, unit, metres) if part else _mantle(one, unit, metres)
    turn, half = one.rotation, one.half
    axis, positive = divmod(part, 2)
    i, j = {0: (1, 2), 1: (0, 2), 2: (0, 1)}[axis]
    sign = np.float32(1.0 if bool(positive) != (one.shape.kind == "room") else -1.0)
    normal, along_u, along_v = sign * turn[:, axis, None], turn[:, i, None], -turn[:, j, None]
    if metres:
        return unit[i] * half[i] / metres, -unit[j] * half[j] / metres, metres, normal, along_u, along_v
    edge = 2.0 * float(np.sqrt(half[i] * half[j]))
    return (unit[i] + 1) / 2, (1 - unit[j]) / 2, edge, normal, along_u, along_v


def _around(one: Placed, x: Array, y: Array) -> Array:
    """Unit vectors (3, n) in the room's frame that go round a ball or cylinder at x, y of the unit shape."""
    a, b = -y * one.half[0], x * one.half[1]
    length = np.sqrt(np.maximum(a * a + b * b, 1e-12))
    return apply(one.rotation, np.stack([a / length, b / length, np.zeros_like(a)]))


def _ball(one: Placed, unit: Array, metres: float) -> Chart:
    turn = one.rotation
    direction = unit / np.sqrt(dot(unit, unit))
    normal = apply(turn, unit / one.half[:, None])
    normal /= np.sqrt(dot(normal, normal))
    along_u = _around(one, direction[0], direction[1])
    along_v = np.cross(along_u, normal, axis=0)
    u = np.arctan2(direction[1], direction[0]) / np.float32(2 * np.pi)
    v = np.arccos(np.clip(direction[2], -1, 1)) / np.float32(np.pi)
    # Between the length of the equator and twice that of a meridian, for one width of filter in both directions.
    around = 4.4 * float(one.half.mean())
    repeats = max(1.0, round(around / metres)) if metres else 1.0
    return u * repeats, v * (repeats / 2 if metres else 1.0), around / repeats, normal, along_u, along_v


def _end(one: Placed, part: int, unit: Array, metres: float) -> Chart:
    turn, half = one.rotation, one.half
    normal = np.float32(1.0 if part == 2 else -1.0) * turn[:, 2, None]
    size = metres or 2 * float(half[0]) * (one.shape.taper if part == 2 else 1.0)
    u, v = unit[0] * half[0] / size + 0.5, 0.5 - unit[1] * half[1] / size
    return u, v, size, normal, turn[:, 0, None], -turn[:, 1, None]


def _mantle(one: Placed, unit: Array, metres: float) -> Chart:
    turn, half = one.rotation, one.half
    growth = np.float32((one.shape.taper - 1) / 2)
    ring = np.sqrt(np.maximum(unit[0] ** 2 + unit[1] ** 2, 1e-9))
    x, y = unit[0] / ring, unit[1] / ring
    normal = apply(turn, np.stack([x / half[0], y / half[1], np.broadcast_to(-growth / half[2], ring.shape)]))
    normal /= np.sqrt(dot(normal, normal))
    along_u = _around(one, x, y)
    turns = np.arctan2(y, x) / np.float32(2 * np.pi)
    around = 2 * np.pi * float(half[0]) * (1 + one.shape.taper) / 2
    if metres:
        repeats = max(1.0, round(around / metres))
        return turns * repeats, -unit[2] * half[2] / metres, metres, normal, along_u, -turn[:, 2, None]
    return turns, (1 - unit[2]) / 2, float(np.sqrt(around * 2 * half[2])), normal, along_u, -turn[:, 2, None]
