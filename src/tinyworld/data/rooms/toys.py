"""Things that move: each builder returns a Thing at its place, what a caption says it does, and the ground it sweeps."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyworld.data.rooms.kit import Kit, a, ball, box, cylinder
from tinyworld.data.rooms.motion import Motion
from tinyworld.data.rooms.noise import toned
from tinyworld.data.rooms.shapes import Thing


@dataclass(frozen=True)
class Toy:
    """A moving thing around the room's origin, its sentence, and half of the floor it needs along x and y (m)."""

    thing: Thing
    sentence: str
    half: tuple[float, float]


def _way(kit: Kit, low: float, high: float) -> tuple[float, float, float]:
    """A horizontal stretch in a random direction."""
    turn, length = kit.between(0, 6.28), kit.between(low, high)
    return length * float(np.cos(turn)), length * float(np.sin(turn)), 0.0


def rolling_ball(kit: Kit) -> Toy:
    name, first, second = kit.pair()
    r = kit.between(0.16, 0.30)
    way = _way(kit, 0.6, 1.1)
    motion = Motion("roll", kit.between(4.0, 6.5), kit.between(0, 1), way, radius=r)
    shape = ball(kit.surface("ball", first, second, gloss=0.5), (0, 0, 0), (r, r, r), (kit.between(0, 3), 0.7, 0.0))
    thing = Thing(f"{name} ball", (shape,), (0, 0, r), 0.0, motion)
    return Toy(thing, f"{a(name)} ball rolls across the floor", (abs(way[0]) + r, abs(way[1]) + r))


def bouncing_ball(kit: Kit) -> Toy:
    name, first, second = kit.pair()
    r, height = kit.between(0.12, 0.2), kit.between(0.5, 1.0)
    period = 2.0 * float(np.sqrt(2.0 * height / 9.81)) * kit.between(1.0, 1.5)
    motion = Motion("bounce", period, kit.between(0, 1), (0, 0, height), angle=0.4)
    shape = ball(kit.surface("ball", first, second, gloss=0.5), (0, 0, 0), (r, r, r), (kit.between(0, 3), 0.3, 0.0))
    return Toy(Thing(f"bouncing {name} ball", (shape,), (0, 0, r), 0.0, motion), f"{a(name)} ball bounces", (r, r))


def toy_car(kit: Kit) -> Toy:
    name, first, second = kit.pair()
    paint = kit.surface("chequer", first, second, gloss=0.6)
    body = kit.surface("metal", first, second, metres=0.5, gloss=0.6)
    glass = kit.surface("marble", (0.35, 0.42, 0.48), (0.2, 0.25, 0.3), metres=0.4, gloss=0.8)
    tyre = kit.surface("leather", (0.12, 0.12, 0.12), (0.3, 0.3, 0.3), metres=0.1)
    size = kit.between(0.8, 1.3)
    shapes = [box(body, (0, 0, 0.13 * size), (0.32 * size, 0.15 * size, 0.07 * size))]
    shapes.append(box(glass, (-0.04 * size, 0, 0.25 * size), (0.17 * size, 0.13 * size, 0.055 * size)))
    shapes.append(box(paint, (-0.04 * size, 0, 0.31 * size), (0.17 * size, 0.135 * size, 0.012 * size)))
    for sx in (-1, 1):
        for sy in (-1, 1):
            hub = (sx * 0.2 * size, sy * 0.15 * size, 0.075 * size)
            shapes.append(cylinder(tyre, hub, 0.075 * size, 0.03 * size, tilt=(1.5708, 0.0, 0.0)))
    radius = kit.between(0.45, 0.8)
    motion = Motion("circle", kit.between(4.5, 8.0), kit.between(0, 1), (radius, 0, 0))
    thing = Thing(f"{name} toy car", tuple(shapes), (0, 0, 0), 0.0, motion)
    return Toy(thing, f"{a(name)} toy car drives in a circle", (radius + 0.36 * size, radius + 0.36 * size))


def turning_box(kit: Kit) -> Toy:
    name, first, second = kit.pair()
    half = kit.between(0.18, 0.28)
    faces = tuple(
        kit.surface(painter, first, second, gloss=0.2) for painter in ("chequer", "chequer", "painting", "painting")
    )
    top = kit.surface("chequer", second, first, gloss=0.2)
    _, wood = kit.wood()
    base = kit.between(0.04, 0.25)
    shapes = (
        cylinder(wood, (0, 0, base), half * 0.9, base),
        box((*faces, top, top), (0, 0, 2 * base + half), (half, half, half)),
    )
    motion = Motion("turn", kit.between(4.0, 7.0), kit.between(0, 1), angle=6.2832 * (1 if kit.chance(0.5) else -1))
    return Toy(
        Thing(f"turning {name} cube", shapes, motion=motion),
        f"{a(name)} cube turns on a stand",
        (half * 1.45, half * 1.45),
    )


def sliding_crate(kit: Kit) -> Toy:
    half = kit.between(0.18, 0.28)
    name, first, second = kit.pair()
    side = kit.surface("crate", first, second)
    way = _way(kit, 0.4, 0.8)
    motion = Motion("slide", kit.between(4.0, 7.0), kit.between(0, 1), way, angle=kit.between(-1.2, 1.2))
    thing = Thing(f"{name} crate", (box(side, (0, 0, half), (half, half, half)),), yaw=kit.between(0, 3), motion=motion)
    reach = (abs(way[0]) + 1.45 * half, abs(way[1]) + 1.45 * half)
    return Toy(thing, f"{a(name)} crate slides over the floor", reach)


def balloon(kit: Kit) -> Toy:
    name, first = kit.colour("black", "brown", "grey")
    r = kit.between(0.15, 0.22)
    skin = kit.surface("ball", first, toned(first, 0.6, 0.35), gloss=0.8)
    cord = kit.surface("timber", (0.8, 0.8, 0.75), (0.6, 0.6, 0.55), metres=0.2)
    shapes = (ball(skin, (0, 0, 0), (r, r, r * 1.2)), cylinder(cord, (0, 0, -1.2 * r - 0.3), 0.006, 0.3))
    way = (kit.between(-0.25, 0.25), kit.between(-0.25, 0.25), kit.between(0.15, 0.3))
    motion = Motion("float", kit.between(3.5, 6.0), kit.between(0, 1), way, angle=0.5)
    thing = Thing(f"{name} balloon", shapes, (0, 0, kit.between(1.25, 1.5)), 0.0, motion)
    return Toy(thing, f"{a(name)} balloon floats up and down", (abs(way[0]) + r, abs(way[1]) + r))


TOYS: tuple[Callable[[Kit], Toy], ...] = (
    rolling_ball,
    rolling_ball,
    bouncing_ball,
    toy_car,
    turning_box,
    sliding_crate,
    balloon,
)


def pendulum(kit: Kit, ceiling: float) -> Toy:
    """A ball on a rod that swings from the ceiling."""
    name, first, second = kit.pair()
    r, length = kit.between(0.12, 0.18), ceiling - kit.between(0.75, 1.1)
    rod = kit.surface("metal", (0.6, 0.58, 0.5), (0.3, 0.3, 0.3), metres=0.5, gloss=0.4)
    shapes = (
        cylinder(rod, (0, 0, -length / 2), 0.012, length / 2),
        ball(kit.surface("ball", first, second, gloss=0.6), (0, 0, -length), (r, r, r), (0.5, 0.5, 0.0)),
    )
    axis = _way(kit, 1.0, 1.0)
    motion = Motion(
        "swing", 2.0 * float(np.sqrt(length)) * 1.003, kit.between(0, 1), axis, angle=kit.between(0.2, 0.35)
    )
    reach = length * 0.35 + r
    return Toy(
        Thing(f"swinging {name} ball", shapes, (0, 0, ceiling), 0.0, motion),
        f"{a(name)} ball swings from the ceiling",
        (reach, reach),
    )
