"""Light: lamps and the sun with soft shadows, the sky through windows, darker corners.

Everything is analytic, so that a frame has no noise.
"""

from dataclasses import dataclass

import numpy as np

from tinyworld.data.rooms.motion import Vector
from tinyworld.data.rooms.noise import Array, Colour, smooth
from tinyworld.data.rooms.occlusion import Casters, Runs, openness, visible
from tinyworld.data.rooms.shapes import Placed, dot
from tinyworld.data.rooms.shell import Window

OFF = 0.004
"""Shadow rays start this far (m) off a surface."""
FAR = 8.0
"""Sunlight is followed this far (m): from any point of a room to its windows."""


@dataclass(frozen=True)
class Lamp:
    """A small glowing ball: position and radius (m), and radiant intensity as linear red, green, blue."""

    position: Vector
    colour: Colour
    radius: float


@dataclass(frozen=True)
class Sun:
    """Parallel light through the windows of one wall: unit vector towards the sun, linear colour, angular radius."""

    direction: Vector
    colour: Colour
    spread: float


@dataclass(frozen=True)
class Lighting:
    """All light of a scene. `sky` is the linear colour that windows send in, `ambient` what comes from everywhere."""

    ambient: Colour
    sky: Colour
    lamps: tuple[Lamp, ...]
    windows: tuple[Window, ...]
    sun: Sun | None
    size: tuple[float, float, float]


def _tint(colour: Colour) -> Array:
    return np.asarray(colour, np.float32)[:, None]


def through_windows(lighting: Lighting, sun: Sun, points: Array) -> Array:
    """Share (n,) of sunlight that comes in at points (3, n): the panes, without frame and bars."""
    share = np.zeros(points.shape[1], np.float32)
    for opening in lighting.windows:
        axis, other = opening.wall.axis, 1 - opening.wall.axis
        rise = sun.direction[axis] * opening.wall.sign
        if rise <= 0.05:
            continue
        way = (opening.wall.sign * lighting.size[axis] / 2 - points[axis]) / np.float32(sun.direction[axis])
        edge = np.float32(sun.spread) * way + 0.012
        inside = np.ones_like(share)
        for coordinate, toward, middle, half, panes in (
            (points[other], sun.direction[other], opening.along, opening.half[0], opening.panes[0]),
            (points[2], sun.direction[2], opening.middle, opening.half[1], opening.panes[1]),
        ):
            x = (coordinate + way * np.float32(toward) - middle) / half
            inside *= smooth(-edge, edge, (1.0 - np.abs(x)) * half)
            bars = (x + 1.0) / 2.0 * panes
            gap = np.abs(bars - np.round(bars)) * (2.0 * half / panes)
            inside *= smooth(-edge, edge, gap - 0.03)
        share = np.maximum(share, inside)
    return share


def illuminate(
    lighting: Lighting, placed: list[Placed], points: Array, normals: Array, flat: Array, toward_eye: Array,
    gloss: Array, owner: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Diffuse light (3, n) to be multiplied by the surface's colour, and highlights (3, n) to be added.

    points, normals (with relief), flat (true normals) and toward_eye are (3, n) in the room's frame; `owner` is the number
    of the shape that each point lies on.
    """
    casters = Casters(placed)
    open_air = openness(placed[0], casters, points, flat, owner)
    # Light from everywhere is a little stronger from above; near the floor it takes the warmth of what it bounced off.
    diffuse = _tint(lighting.ambient) * (open_air * (0.8 + 0.2 * normals[2]))
    highlights = np.zeros_like(points)
    start = points + np.float32(OFF) * flat
    runs = Runs(start)
    for opening in lighting.windows:
        offset = (
            np.asarray(opening.wall.point(lighting.size, opening.along, opening.middle), np.float32)[:, None] - points
        )
        squared = dot(offset, offset)
        cosine = np.maximum(dot(normals, offset), 0.0) / np.sqrt(squared)
        leaving = np.maximum(opening.wall.sign * offset[opening.wall.axis], 0.0) / np.sqrt(squared)
        area = 4.0 * opening.half[0] * opening.half[1]
        diffuse += _tint(lighting.sky) * (open_air * cosine * leaving * area / (squared + area))
    for lamp in lighting.lamps:
        towards = np.asarray(lamp.position, np.float32)[:, None] - start
        squared = dot(towards, towards)
        unit = towards / np.sqrt(squared)
        cosine = np.maximum(dot(normals, unit), 0.0) * (dot(flat, unit) > 0.0)
        power = cosine / (squared + 0.35)
        power *= visible(casters, runs, start, towards, power > 1e-4, lamp.radius)
        diffuse += _tint(lamp.colour) * power
        highlights += _tint(lamp.colour) * (power * _shine(unit, toward_eye, normals, gloss))
    if lighting.sun is not None:
        sun = lighting.sun
        direction = np.asarray(sun.direction, np.float32)[:, None]
        cosine = np.maximum(dot(normals, direction), 0.0) * (dot(flat, direction) > 0.0)
        power = cosine * through_windows(lighting, sun, points)
        towards = np.broadcast_to(direction * np.float32(FAR), points.shape)
        power *= visible(casters, runs, start, towards, power > 1e-3, sun.spread * FAR)
        diffuse += _tint(sun.colour) * power
        unit = np.broadcast_to(direction, points.shape)
        highlights += _tint(sun.colour) * (power * _shine(unit, toward_eye, normals, gloss))
    return diffuse, highlights


def _shine(toward_light: Array, toward_eye: Array, normals: Array, gloss: Array) -> Array:
    """Blinn and Phong's highlight, broader and weaker on dull surfaces."""
    half = toward_light + toward_eye
    cosine = np.clip(dot(half, normals) / np.sqrt(np.maximum(dot(half, half), 1e-9)), 0.0, 1.0)
    sharpness = 8.0 + 60.0 * gloss
    return gloss * 0.02 * (sharpness + 2.0) * cosine**sharpness
