"""What is in the way of light: soft shadows of lamps, and less light from everywhere in corners and under things.

How far a shadow ray runs through a shape, or by how much it misses it, decides what share of a lamp is hidden. Points
and shapes are first paired coarsely (runs of neighbouring points against bounding boxes), then all pairs of one kind of
shape are computed at once.
"""

import numpy as np

from tinyworld.data.rooms.noise import Array, smooth
from tinyworld.data.rooms.shapes import Kind, Placed, clearance, distance, dot

CORNERS = ((0.12, 0.30), (0.45, 0.45))
"""Probes of the space before a surface: how far off (m), and how much a fully closed one darkens."""
KINDS: tuple[Kind, ...] = ("box", "cylinder", "ball")


class Runs:
    """Points (3, n) in runs of `LENGTH`, each with a sphere around it. They should come in an order that keeps
    neighbours together."""

    LENGTH = 12

    def __init__(self, points: Array) -> None:
        self.count = points.shape[1]
        starts = np.arange(0, self.count, self.LENGTH)
        low, high = np.minimum.reduceat(points, starts, axis=1), np.maximum.reduceat(points, starts, axis=1)
        self.centre = (low + high) / 2
        self.radius = np.sqrt(dot(high - low, high - low)) / 2

    def points(self, runs: Array, casters: Array) -> tuple[Array, Array]:
        """The points of pairs of runs and casters, and the caster of each."""
        numbers = (runs[:, None] * self.LENGTH + np.arange(self.LENGTH)).ravel()
        casters = np.repeat(casters, self.LENGTH)
        inside = numbers < self.count
        return numbers[inside], casters[inside]


class Casters:
    """The shapes that are in the way of light, side by side, ordered by kind; `numbers` are theirs among all shapes."""

    def __init__(self, placed: list[Placed]) -> None:
        numbers = [k for k, one in enumerate(placed) if one.shape.casts_shadow and one.shape.kind in KINDS]
        numbers.sort(key=lambda k: KINDS.index(placed[k].shape.kind))
        shapes = [placed[k] for k in numbers]
        self.numbers = np.asarray(numbers)
        self.kind = np.asarray([KINDS.index(one.shape.kind) for one in shapes])
        self.centre = np.stack([one.centre for one in shapes], axis=1)
        self.radius = np.asarray([one.radius for one in shapes], np.float32)
        self.axes = np.stack([one.rotation for one in shapes], axis=2)
        self.half = np.stack([one.half for one in shapes], axis=1)
        self.taper = np.asarray([one.shape.taper for one in shapes], np.float32)
        widest = np.maximum(self.taper, 1.0)
        self._box = self.half * np.stack([widest, widest, np.ones_like(widest)])

    def crossed(self, runs: Runs, towards: Array, reach: float) -> tuple[Array, Array]:
        """Pairs (caster, run) where a caster may lie within `reach` of ways from a run along `towards` (3, runs). None is
        left out that matters; some may be named that do not."""
        offset = self.centre[:, :, None] - runs.centre[:, None, :]
        limit = (self.radius + np.float32(reach))[:, None] + runs.radius
        inverse = 1.0 / np.maximum(dot(towards, towards), 1e-9)
        along = np.clip(dot(offset, towards[:, None]) * inverse, 0.0, 1.0)
        miss = offset - along * towards[:, None]
        caster, run = np.nonzero(dot(miss, miss) < limit * limit)
        # The same with boxes in place of spheres, for the pairs that are left.
        origin, way = self.local(caster, -offset[:, caster, run]), self.local(caster, towards[:, run])
        grown = self._box[:, caster] + (runs.radius[run] + np.float32(reach))
        enter, leave = _inside(origin, way, grown)
        kept = (enter < leave) & (leave > 0.0) & (enter < 1.0)
        return caster[kept], run[kept]

    def near(self, runs: Runs, reach: float) -> tuple[Array, Array]:
        """As `crossed`, for casters within `reach` of the runs themselves."""
        offset = runs.centre[:, None, :] - self.centre[:, :, None]
        limit = (self.radius + np.float32(reach))[:, None] + runs.radius
        caster, run = np.nonzero(dot(offset, offset) < limit * limit)
        beyond = np.abs(self.local(caster, offset[:, caster, run])) - self._box[:, caster]
        kept = np.maximum(np.maximum(beyond[0], beyond[1]), beyond[2]) < runs.radius[run] + np.float32(reach)
        return caster[kept], run[kept]

    def local(self, caster: Array, vectors: Array) -> Array:
        """Room vectors (3, n) along the axes of their casters (n,), in metres."""
        x, y, z = vectors
        out = np.empty_like(vectors)
        for k in range(3):
            out[k] = self.axes[0, k][caster] * x + self.axes[1, k][caster] * y + self.axes[2, k][caster] * z
        return out

    def unit(self, caster: Array, points: Array) -> Array:
        """Room points (3, n) in the frames of their casters' unit shapes."""
        return self.local(caster, points - self.centre[:, caster]) / self.half[:, caster]


def _slab(o: Array, d: Array, half: Array | float) -> tuple[Array, Array]:
    """Where rays are between −half and half on one axis."""
    inverse = 1.0 / np.where(np.abs(d) < 1e-7, np.float32(1e-7), d)
    middle, width = -o * inverse, half * np.abs(inverse)
    return middle - width, middle + width


def _inside(o: Array, d: Array, half: Array | None = None) -> tuple[Array, Array]:
    """Where rays are within a box."""
    enter, leave = _slab(o[2], d[2], 1.0 if half is None else half[2])
    for axis in (0, 1):
        low, high = _slab(o[axis], d[axis], 1.0 if half is None else half[axis])
        enter, leave = np.maximum(enter, low), np.minimum(leave, high)
    return enter, leave


def _hidden(kind: Kind, o: Array, d: Array, half: Array, taper: Array, length: Array, spread: float) -> Array:
    """Share (n,) of a light of radius `spread` (m) that unit shapes of one kind hide from o (3, n); o + d is the light,
    `length` (n,) metres away."""
    if kind == "ball":
        closest = np.clip(-dot(o, d) / dot(d, d), 0.0, 1.0)
        miss = o + closest * d
        margin = (1.0 - np.sqrt(dot(miss, miss))) * (half[0] + half[1] + half[2]) / 3
        width = spread * closest + 0.01
        return smooth(-width, width, margin) * (closest > 0.0) * (closest < 1.0)
    if kind == "box":
        enter, leave = _inside(o, d)
    else:
        enter, leave = _slab(o[2], d[2], 1.0)
        edge = (1 + taper) / 2 + (taper - 1) / 2 * np.clip(o[2] + 0.5 * (enter + leave) * d[2], -1.0, 1.0)
        a = np.maximum(d[0] * d[0] + d[1] * d[1], 1e-9)
        closest = -(o[0] * d[0] + o[1] * d[1]) / a
        rest = edge * edge - (o[0] * o[0] + o[1] * o[1] - closest * closest * a)
        run = np.sign(rest) * np.sqrt(np.abs(rest) / a)
        enter, leave = np.maximum(enter, closest - run), np.minimum(leave, closest + run)
    within = np.minimum(leave, 1.0) - np.maximum(enter, 0.0)
    width = spread * 1.5 * np.clip(enter, 0.02, 1.0) + 0.01
    return smooth(-width, width, within * length) * (leave > 0.0) * (enter < 1.0)


def visible(casters: Casters, runs: Runs, start: Array, towards: Array, wanted: Array, spread: float) -> Array:
    """Share (n,) of a light that reaches `start` past everything that casts shadows, where `wanted` (n,) is true.

    `towards` (3, n) leads from `start` to the light.
    """
    seen = np.ones(start.shape[1], np.float32)
    middle = np.minimum(np.arange(len(runs.radius)) * runs.LENGTH + runs.LENGTH // 2, start.shape[1] - 1)
    caster, run = casters.crossed(runs, towards[:, middle] + start[:, middle] - runs.centre, spread)
    length = np.sqrt(dot(towards, towards))
    for code, kind in enumerate(KINDS):
        mine = casters.kind[caster] == code
        points, owners = runs.points(run[mine], caster[mine])
        lit = wanted[points]
        points, owners = points[lit], owners[lit]
        if len(points):
            o = casters.unit(owners, start[:, points])
            half, taper = casters.half[:, owners], casters.taper[owners]
            d = casters.local(owners, towards[:, points]) / half
            share = _hidden(kind, o, d, half, taper, length[points], spread)
            some = np.flatnonzero(share)
            np.multiply.at(seen, points[some], 1.0 - share[some])
    return seen


def openness(room: Placed, casters: Casters, points: Array, normals: Array, owner: Array) -> Array:
    """How much light from everywhere reaches points (3, n) of shapes number `owner` (n,): 1 in the open."""
    light = np.ones(points.shape[1], np.float32)
    for off, share in CORNERS:
        probe = points + np.float32(off) * normals
        free = np.minimum(clearance(room, probe), np.float32(off))
        runs = Runs(probe)
        caster, run = casters.near(runs, off)
        for code, kind in enumerate(KINDS):
            mine = casters.kind[caster] == code
            near, owners = runs.points(run[mine], caster[mine])
            other = owner[near] != casters.numbers[owners]
            near, owners = near[other], owners[other]
            if len(near):
                away = distance(
                    kind, casters.unit(owners, probe[:, near]), casters.half[:, owners], casters.taper[owners]
                )
                some = np.flatnonzero(away < off)
                np.minimum.at(free, near[some], away[some])
        light *= 1.0 - share * np.clip(1.0 - free / np.float32(off), 0.0, 1.0)
    return light
