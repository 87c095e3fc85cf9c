"""A scene: a furnished room with moving things, its light and a camera's way through it, as plain data.

`build_scene(seed, index)` is a pure function; it depends neither on the size of the pictures nor on how many scenes
there are.
"""

from dataclasses import dataclass

import numpy as np

from tinyworld.data.rooms import shell
from tinyworld.data.rooms.atlas import Texture
from tinyworld.data.rooms.camera import SENTENCES, CameraPath
from tinyworld.data.rooms.direct import choose_camera
from tinyworld.data.rooms.kit import Kit, a
from tinyworld.data.rooms.light import Lamp, Lighting, Sun
from tinyworld.data.rooms.noise import Colour
from tinyworld.data.rooms.plan import Plan
from tinyworld.data.rooms.shapes import Thing
from tinyworld.data.rooms.shell import Size, Window


@dataclass(frozen=True)
class Scene:
    """Everything about one scene. `size` is the room's width, depth and height (m); the room's frame is right-handed, its
    origin in the middle of the floor, z up. `things[0]` is the room itself."""

    seed: int
    index: int
    size: Size
    things: tuple[Thing, ...]
    textures: tuple[Texture, ...]
    lighting: Lighting
    camera: CameraPath
    caption: str


def build_scene(seed: int, index: int) -> Scene:
    """Scene number `index` of a seed (both ≥ 0)."""
    kit = Kit(np.random.default_rng([seed, index, 20]))
    size, room, walls, floor = shell.make_shell(kit)
    plan = Plan(kit, size)
    things = [room, shell.skirting(kit, size)]
    windows = plan.windows()
    things += [shell.window(kit, opening, size) for opening in windows]
    things += plan.doors()
    moving, sentences = plan.toys(2 if kit.chance(0.5) else 3)
    things += plan.along_walls(int(kit.rng.integers(4, 7)))
    things += moving
    things += plan.in_the_room(int(kit.rng.integers(2, 5)))
    things += plan.pictures(int(kit.rng.integers(4, 8)))
    if kit.chance(0.65):
        half = (kit.between(0.7, 1.3), kit.between(0.6, 1.0))
        middle = (kit.between(-0.2, 0.2) * size[0], kit.between(-0.2, 0.2) * size[1])
        things.append(shell.rug(kit, middle, half, kit.between(-0.4, 0.4)))
    lamps, lamp_things = _lamps(kit, size, plan)
    things += lamp_things
    lighting = _lighting(kit, size, windows, lamps)
    camera, seen = choose_camera(np.random.default_rng([seed, index, 21]), tuple(things), size)
    doing = dict(zip((thing.name for thing in moving), sentences, strict=True))
    caption = _caption(camera, [things[k].name for k in seen], f"{walls} and {floor}", doing)
    return Scene(seed, index, size, tuple(things), tuple(kit.textures), lighting, camera, caption)


def _lamps(kit: Kit, size: Size, plan: Plan) -> tuple[list[Lamp], list[Thing]]:
    lamps, things = [], []
    warm: Colour = (1.0, kit.between(0.78, 0.92), kit.between(0.52, 0.80))
    power = kit.between(1.6, 3.2)
    spot = (kit.between(-0.25, 0.25) * size[0], kit.between(-0.25, 0.25) * size[1])
    thing, position = shell.pendant_lamp(kit, spot, size[2], warm)
    lamps.append(Lamp(position, (power * warm[0], power * warm[1], power * warm[2]), 0.14))
    things.append(thing)
    corner = plan.corner() if kit.chance(0.5) else None
    if corner is not None:
        thing, position = shell.floor_lamp(kit, corner, warm)
        lamps.append(Lamp(position, (0.9 * warm[0], 0.9 * warm[1], 0.9 * warm[2]), 0.18))
        things.append(thing)
    return lamps, things


def _lighting(kit: Kit, size: Size, windows: tuple[Window, ...], lamps: list[Lamp]) -> Lighting:
    sun = None
    day = kit.between(0.6, 1.6)
    if windows and kit.chance(0.75):
        wall = windows[0].wall
        rise, aside = kit.between(0.45, 0.95), kit.between(-0.7, 0.7)
        across = wall.sign * 1.0
        direction = np.array([across, aside, rise] if wall.axis == 0 else [aside, across, rise])
        direction /= np.linalg.norm(direction)
        x, y, z = (float(c) for c in direction)
        power = kit.between(3.0, 6.0)
        sun = Sun((x, y, z), (power, power * kit.between(0.84, 0.95), power * kit.between(0.62, 0.85)), 0.010)
    shade = kit.between(0.16, 0.30)
    ambient = (shade * kit.between(0.95, 1.08), shade, shade * kit.between(0.88, 1.08))
    return Lighting(ambient, (0.80 * day, 0.92 * day, 1.08 * day), tuple(lamps), windows, sun, size)


UNNAMED = ("room", "skirting", "rug", "window", "painting", "clock", "pendant lamp")
"""What a caption leaves out."""


def _caption(camera: CameraPath, seen: list[str], room: str, doing: dict[str, str]) -> str:
    """One sentence: the camera, what stands there, the room, what moves (`doing`: a sentence for each moving thing)."""
    names = list(dict.fromkeys(seen))
    named = [a(name) for name in names if name not in doing and name not in UNNAMED][:3] or ["the furniture"]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    moving = [doing[name] for name in names if name in doing]
    text = f"{SENTENCES[camera.kind]} {listed} in a room with {room}"
    return f"{text}, while {' and '.join(moving)}." if moving else f"{text}."
