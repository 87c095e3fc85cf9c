"""The room itself: floor, walls and ceiling, windows, door, skirting, pictures on the walls, lamps."""

from dataclasses import dataclass, replace

import numpy as np

from tinyworld.data.rooms.kit import WALLS, WOODS, Kit, box, cylinder, facing, varied
from tinyworld.data.rooms.motion import Vector
from tinyworld.data.rooms.noise import Colour, toned
from tinyworld.data.rooms.shapes import Shape, Surface, Thing

Size = tuple[float, float, float]


@dataclass(frozen=True)
class Wall:
    """One of the four walls; a thing placed on it has its back against it and looks into the room."""

    axis: int
    sign: int

    @property
    def yaw(self) -> float:
        return {(1, -1): 0.0, (1, 1): np.pi, (0, -1): -np.pi / 2, (0, 1): np.pi / 2}[self.axis, self.sign]

    def length(self, size: Size) -> float:
        return size[1 - self.axis]

    def point(self, size: Size, along: float, height: float = 0.0, off: float = 0.0) -> Vector:
        """The point `along` the wall from its middle (in the room's axis), `off` it into the room."""
        across = self.sign * (size[self.axis] / 2 - off)
        return (across, along, height) if self.axis == 0 else (along, across, height)


WALLS_OF_A_ROOM = (Wall(0, -1), Wall(0, 1), Wall(1, -1), Wall(1, 1))


@dataclass(frozen=True)
class Window:
    """An opening in a wall: the middle of its glass, half of its width and height (m), panes across and up."""

    wall: Wall
    along: float
    middle: float
    half: tuple[float, float]
    panes: tuple[int, int]


def make_shell(kit: Kit) -> tuple[Size, Thing, str, str]:
    """Size (m), floor, walls and ceiling, and what a caption calls the walls and the floor."""
    size = (kit.between(4.4, 7.5), kit.between(4.4, 7.5), kit.between(2.5, 3.3))
    floor_name, floor = _floor(kit)
    wall_name, wall = _wall(kit)
    accent = wall
    if kit.chance(0.45):
        wall_name_2, accent = _wall(kit)
        wall_name = f"{wall_name} and {wall_name_2}" if wall_name != wall_name_2 else wall_name
    plain = (0.90, 0.89, 0.86)
    if kit.chance(0.2):
        ceiling = kit.surface("planks", *WOODS["pine"], metres=1.8, fraction=1)
    else:
        ceiling = kit.surface("plaster", plain, (0.80, 0.78, 0.74), metres=2.5, fraction=1)
    sides = [wall, wall, wall, wall]
    sides[int(kit.rng.integers(4))] = accent
    shape = Shape("room", (size[0] / 2, size[1] / 2, size[2] / 2), (0, 0, size[2] / 2), (*sides, floor, ceiling))
    return size, Thing("room", (shape,)), wall_name, floor_name


def _floor(kit: Kit) -> tuple[str, Surface]:
    painter = kit.pick(
        [
            "planks",
            "planks",
            "planks",
            "parquet",
            "parquet",
            "tiles",
            "tiles",
            "marble",
            "terrazzo",
            "carpet",
            "concrete",
        ]
    )
    metres, gloss = kit.between(1.3, 1.9), 0.35
    if painter in ("planks", "parquet"):
        wood = kit.pick(list(WOODS))
        return f"a {wood} wood floor" if wood not in ("oak", "ash") else f"an {wood} floor", kit.surface(
            painter, *WOODS[wood], metres=metres, gloss=gloss, fraction=1
        )
    if painter == "carpet":
        name, colour, _ = kit.pair()
        dull = toned(colour, 0.55, 0.2)
        second = toned(dull, 0.6)
        return f"a {name} carpet", kit.surface(painter, dull, second, metres=1.2, fraction=1)
    light = varied(kit.rng, (0.78, 0.74, 0.67), 0.05)
    _, dark = kit.colour("yellow", "pink", "orange", "white")
    if painter == "concrete":
        return "a concrete floor", kit.surface(
            painter, (0.58, 0.57, 0.55), (0.42, 0.41, 0.40), metres=2.5, gloss=0.2, fraction=1
        )
    return f"a {'tiled' if painter == 'tiles' else painter} floor", kit.surface(
        painter, light, dark, metres=metres, gloss=0.5, fraction=1
    )


def _wall(kit: Kit) -> tuple[str, Surface]:
    name = kit.pick(list(WALLS))
    colour = varied(kit.rng, WALLS[name], 0.02)
    tone = 0.62 if sum(colour) > 1.4 else 1.6
    second = toned(colour, tone)
    painter = kit.pick(["bricks", "wallpaper", "wallpaper", "plaster", "plaster", "panelling", "concrete", "tiles"])
    if painter == "bricks":
        clay = varied(kit.rng, (0.62, 0.34, 0.25), 0.05) if kit.chance(0.7) else (0.80, 0.76, 0.70)
        return "brick walls", kit.surface(painter, clay, toned(clay, 0.65), metres=kit.between(0.8, 1.1), fraction=1)
    if painter == "concrete":
        return "concrete walls", kit.surface(painter, (0.66, 0.65, 0.63), (0.50, 0.49, 0.47), metres=2.2, fraction=1)
    label = {"wallpaper": "papered", "plaster": "painted", "panelling": "panelled", "tiles": "tiled"}[painter]
    metres = {"wallpaper": 1.1, "plaster": 2.2, "panelling": 1.3, "tiles": 1.2}[painter]
    return f"{name} {label} walls", kit.surface(
        painter, colour, second, metres=metres, gloss=0.4 if painter == "tiles" else 0.0, fraction=1
    )


def skirting(kit: Kit, size: Size) -> Thing:
    """Boards along the foot of the walls."""
    wood = kit.surface("timber", *(WOODS["ash"] if kit.chance(0.6) else WOODS["walnut"]), metres=0.7)
    shapes = [box(wood, (s * (size[0] / 2 - 0.01), 0, 0.05), (0.01, size[1] / 2, 0.05)) for s in (-1, 1)]
    shapes += [box(wood, (0, s * (size[1] / 2 - 0.01), 0.05), (size[0] / 2, 0.01, 0.05)) for s in (-1, 1)]
    return Thing("skirting", tuple(replace(one, casts_shadow=False) for one in shapes))


def window(kit: Kit, opening: Window, size: Size) -> Thing:
    """The view behind glass, a frame with bars, a sill, perhaps curtains."""
    x, z = opening.half
    sky = varied(kit.rng, (0.42, 0.62, 0.86), 0.05)
    earth = varied(kit.rng, (0.55, 0.55, 0.42), 0.06)
    outside = kit.surface("view", sky, earth, emission=kit.between(0.9, 1.6))
    frame = kit.surface("timber", *WOODS["ash" if kit.chance(0.6) else "dark"], metres=0.5)
    shapes = [box(facing(outside, frame), (0, 0.01, 0), (x, 0.01, z))]
    bar = 0.022
    for k in range(opening.panes[0] + 1):
        shapes.append(box(frame, (-x + 2 * x * k / opening.panes[0], 0.03, 0), (bar, 0.03, z + bar)))
    for k in range(opening.panes[1] + 1):
        shapes.append(box(frame, (0, 0.03, -z + 2 * z * k / opening.panes[1]), (x + bar, 0.03, bar)))
    shapes.append(box(frame, (0, 0.08, -z - 0.04), (x + 0.08, 0.08, 0.018)))
    if kit.chance(0.6):
        _, cloth = kit.cloth()
        for side in (-1, 1):
            for k in range(3):
                fold = (side * (x + 0.06 + 0.09 * k), 0.09, -0.1)
                shapes.append(Shape("cylinder", (0.055, 0.045, z + 0.3), fold, (cloth, cloth)))
        shapes.append(cylinder(frame, (0, 0.09, z + 0.22), 0.015, x + 0.35, tilt=(0.0, np.pi / 2, 0.0)))
    unseen_by_light = tuple(replace(one, casts_shadow=False) for one in shapes)
    return Thing("window", unseen_by_light, opening.wall.point(size, opening.along, opening.middle), opening.wall.yaw)


def wall_door(kit: Kit, wall: Wall, along: float, size: Size) -> Thing:
    """A closed door in its frame."""
    name, colour = kit.colour("black")
    leaf = kit.surface("door", toned(colour, 0.6, 0.25), (0.75, 0.65, 0.4), gloss=0.2)
    frame = kit.surface("timber", *WOODS["ash"], metres=0.6)
    shapes = [box(facing(leaf, frame), (0, 0.015, 1.0), (0.42, 0.015, 1.0))]
    shapes += [box(frame, (s * 0.46, 0.03, 1.02), (0.04, 0.03, 1.02)) for s in (-1, 1)]
    shapes.append(box(frame, (0, 0.03, 2.08), (0.50, 0.03, 0.04)))
    return Thing(f"{name} door", tuple(shapes), wall.point(size, along), wall.yaw)


def wall_picture(kit: Kit, wall: Wall, along: float, height: float, half: tuple[float, float], size: Size) -> Thing:
    """A painting in a frame, or a clock."""
    wood = WOODS[kit.pick(list(WOODS))][0]
    if kit.chance(0.15):
        face = kit.surface("clock", kit.colour()[1], wood, gloss=0.3)
        rim = kit.surface("metal", kit.colour()[1], wood, metres=0.3)
        r = min(half)
        shape = cylinder(rim, (0, 0.02, 0), r, 0.02, end=face, tilt=(-np.pi / 2, 0.0, 0.0))
        return Thing("clock", (shape,), wall.point(size, along, height), wall.yaw)
    canvas = kit.surface("painting", varied(kit.rng, (0.45, 0.62, 0.80), 0.15), wood)
    edge = kit.surface("timber", wood, WOODS["dark"][1], metres=0.3)
    shape = box(facing(canvas, edge), (0, 0.02, 0), (half[0], 0.02, half[1]))
    return Thing("painting", (shape,), wall.point(size, along, height), wall.yaw)


def rug(kit: Kit, centre: tuple[float, float], half: tuple[float, float], yaw: float) -> Thing:
    """A rug on the floor."""
    _, first, second = kit.pair()
    wool = kit.surface("rug", first, second)
    shape = Shape("box", (*half, 0.006), (0, 0, 0.006), (wool,), casts_shadow=False)
    return Thing("rug", (shape,), (*centre, 0.0), yaw)


def pendant_lamp(kit: Kit, place: tuple[float, float], ceiling: float, colour: Colour) -> tuple[Thing, Vector]:
    """A lamp that hangs from the ceiling, and where its light comes from."""
    drop = kit.between(0.45, 0.8)
    cord = kit.surface("metal", (0.2, 0.2, 0.2), (0.3, 0.3, 0.3), metres=0.3)
    shade = kit.surface("glow", (0.97, 0.93, 0.85), colour, emission=0.7)
    r = kit.between(0.13, 0.22)
    shapes = (
        cylinder(cord, (0, 0, -drop / 2), 0.01, drop / 2, casts_shadow=False),
        cylinder(shade, (0, 0, -drop), r, 0.10, kit.between(0.4, 0.9), casts_shadow=False),
    )
    return Thing("pendant lamp", shapes, (*place, ceiling)), (*place, ceiling - drop - 0.05)


def floor_lamp(kit: Kit, place: tuple[float, float], colour: Colour) -> tuple[Thing, Vector]:
    """A standing lamp, and where its light comes from."""
    height = kit.between(1.35, 1.65)
    pole = kit.surface("metal", (0.35, 0.32, 0.28), (0.6, 0.5, 0.3), metres=0.3, gloss=0.5)
    shade = kit.surface("glow", (0.97, 0.92, 0.82), colour, emission=0.7)
    shapes = (
        cylinder(pole, (0, 0, height / 2), 0.014, height / 2, casts_shadow=False),
        cylinder(pole, (0, 0, 0.015), 0.14, 0.015, 0.9),
        cylinder(shade, (0, 0, height), 0.20, 0.14, 0.65, casts_shadow=False),
    )
    return Thing("floor lamp", shapes, (*place, 0.0)), (*place, height)
