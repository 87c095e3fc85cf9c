"""Furniture that stands still. Each builder takes a Kit and returns a Piece in its own frame (front towards +y)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tinyworld.data.rooms.kit import COLOURS, WOODS, Kit, Piece, ball, box, cylinder, facing, varied
from tinyworld.data.rooms.noise import toned
from tinyworld.data.rooms.shapes import Shape


def on_top(kit: Kit, height: float, reach: tuple[float, float], count: int) -> list[Shape]:
    """Small things standing at a height: vases, balls, books, boxes; side by side along x within ±reach."""
    shapes: list[Shape] = []
    step = 2 * reach[0] / count
    for k in range(count):
        x = -reach[0] + (k + 0.5) * step + kit.between(-0.1, 0.1) * step
        y = kit.between(-0.5, 0.5) * reach[1]
        room = min(step, 2 * reach[1]) * 0.42
        _, first, second = kit.pair()
        style = int(kit.rng.integers(4))
        if style == 0:
            r, h = min(room, kit.between(0.05, 0.10)), kit.between(0.09, 0.17)
            side = kit.surface("ceramic", first, second, metres=0.25, gloss=0.6, fraction=4)
            shapes.append(cylinder(side, (x, y, height + h), r, h, kit.between(0.5, 1.5)))
        elif style == 1:
            r = min(room, kit.between(0.08, 0.15))
            shapes.append(
                ball(kit.surface("ball", first, second, gloss=0.5, fraction=4), (x, y, height + r), (r, r, r))
            )
        elif style == 2:
            level = height
            for _ in range(int(kit.rng.integers(2, 5))):
                thick = kit.between(0.015, 0.03)
                cover = kit.surface("leather", kit.colour()[1], second, metres=0.2, fraction=4)
                turn = (0.0, 0.0, kit.between(-0.4, 0.4))
                shapes.append(box(cover, (x, y, level + thick), (min(room, 0.13), min(room, 0.10), thick), turn))
                level += 2 * thick
        else:
            h = min(room, kit.between(0.07, 0.14))
            side = kit.surface("chequer", first, second, gloss=0.2, fraction=4)
            shapes.append(box(side, (x, y, height + h), (h, h, h), (0.0, 0.0, kit.between(0, 1.5))))
    return shapes


def table(kit: Kit) -> Piece:
    wood, surface = kit.wood()
    x, y, z = kit.between(0.5, 0.9), kit.between(0.35, 0.5), kit.between(0.45, 0.78)
    top, leg = 0.03, kit.between(0.025, 0.045)
    shapes = [box(surface, (0, 0, z - top), (x, y, top))]
    if kit.chance(0.3):
        shapes.append(cylinder(surface, (0, 0, (z - 0.06) / 2), 0.07, (z - 0.06) / 2))
        shapes.append(cylinder(surface, (0, 0, 0.03), min(x, y) * 0.7, 0.03, 0.5))
    else:
        for sx in (-1, 1):
            for sy in (-1, 1):
                foot = (sx * (x - 0.07), sy * (y - 0.07), z / 2 - top)
                shapes.append(box(surface, foot, (leg, leg, z / 2 - top)))
        shapes.append(box(surface, (0, 0, z - 0.1), (x - 0.08, y - 0.08, 0.04)))
    shapes += on_top(kit, z, (x * 0.85, y * 0.7), int(kit.rng.integers(2, 5)))
    return Piece(f"{wood} table" if wood != "dark" else "dark wooden table", tuple(shapes), (x, y))


def chair(kit: Kit) -> Piece:
    colour, cloth = kit.cloth()
    _, wood = kit.wood()
    w, seat, back = kit.between(0.21, 0.26), kit.between(0.42, 0.48), kit.between(0.88, 1.05)
    shapes = [box(cloth, (0, 0, seat), (w, w, 0.035))]
    for sx in (-1, 1):
        shapes.append(box(wood, (sx * (w - 0.03), w - 0.03, seat / 2 - 0.02), (0.022, 0.022, seat / 2 - 0.02)))
        shapes.append(box(wood, (sx * (w - 0.03), 0.03 - w, back / 2), (0.022, 0.022, back / 2)))
    shapes.append(box(cloth, (0, 0.04 - w, back - 0.16), (w - 0.04, 0.02, 0.14)))
    return Piece(f"{colour} chair", tuple(shapes), (w, w))


def sofa(kit: Kit) -> Piece:
    colour, cloth = kit.cloth()
    x, y = kit.between(0.75, 1.15), 0.42
    shapes = [
        box(cloth, (0, 0, 0.2), (x, y, 0.14)),
        box(cloth, (0, 0.1 - y, 0.55), (x, 0.1, 0.28)),
        box(cloth, (0.1 - x, 0.02, 0.45), (0.1, y - 0.02, 0.16)),
        box(cloth, (x - 0.1, 0.02, 0.45), (0.1, y - 0.02, 0.16)),
    ]
    seats = 2 if x < 0.95 else 3
    width = (x - 0.2) / seats
    for k in range(seats):
        shapes.append(box(cloth, (-x + 0.2 + (2 * k + 1) * width, 0.09, 0.39), (width - 0.012, y - 0.13, 0.06)))
    for side in (-1, 1):
        _, pillow = kit.cloth()
        shapes.append(box(pillow, (side * (x - 0.42), -0.13, 0.60), (0.19, 0.06, 0.17), (0.35, 0.0, 0.2 * side)))
    return Piece(f"{colour} sofa", tuple(shapes), (x, y))


def bookshelf(kit: Kit) -> Piece:
    _, wood = kit.wood()
    x, y, shelves = kit.between(0.4, 0.7), 0.16, int(kit.rng.integers(3, 6))
    step = kit.between(0.32, 0.38)
    z = shelves * step / 2 + 0.03
    shapes = [box(wood, (s * (x - 0.015), 0, z), (0.015, y, z)) for s in (-1, 1)]
    shapes.append(box(wood, (0, 0.01 - y, z), (x, 0.01, z)))
    for k in range(shelves + 1):
        level = 0.03 + k * step
        shapes.append(box(wood, (0, 0, level - 0.012), (x - 0.03, y, 0.012)))
        if k == shelves:
            break
        if kit.chance(0.8):
            spines = kit.surface("books", kit.colour()[1], WOODS["dark"][0])
            width, side = x * kit.between(0.6, 0.95) - 0.03, 1 if kit.chance(0.5) else -1
            middle = side * (x - 0.03 - width)
            row = box(facing(spines, wood), (middle, -0.02, level + 0.135), (width, y - 0.04, 0.135))
            shapes.append(replace(row, casts_shadow=False))
        else:
            shapes += [replace(one, casts_shadow=False) for one in on_top(kit, level, (x * 0.8, y * 0.6), 2)]
    shapes += on_top(kit, 2 * z - 0.03, (x * 0.7, y * 0.7), 2)
    return Piece("bookshelf", tuple(shapes), (x, y))


def chest(kit: Kit) -> Piece:
    name = kit.pick(list(WOODS))
    wood = kit.surface("timber", *WOODS[name], metres=0.9, gloss=0.15)
    front = kit.surface("drawers", *WOODS[name], gloss=0.15)
    x, y, z = kit.between(0.4, 0.75), kit.between(0.2, 0.28), kit.between(0.3, 0.55)
    shapes = [box(facing(front, wood), (0, 0, z + 0.04), (x, y, z))]
    shapes.append(box(wood, (0, 0, 2 * z + 0.055), (x + 0.02, y + 0.02, 0.015)))
    shapes += [box(wood, (s * (x - 0.06), t * (y - 0.05), 0.02), (0.03, 0.03, 0.02)) for s in (-1, 1) for t in (-1, 1)]
    shapes += on_top(kit, 2 * z + 0.07, (x * 0.85, y * 0.7), int(kit.rng.integers(2, 5)))
    return Piece(
        f"{name} chest of drawers" if name != "dark" else "dark chest of drawers", tuple(shapes), (x + 0.02, y + 0.02)
    )


def plant(kit: Kit) -> Piece:
    _, first, second = kit.pair()
    pot_h, r = kit.between(0.13, 0.22), kit.between(0.14, 0.22)
    pot = kit.surface(kit.pick(["ceramic", "wicker", "concrete"]), first, second, metres=0.4, gloss=0.3)
    soil = kit.surface("carpet", (0.20, 0.14, 0.10), (0.10, 0.07, 0.05), metres=0.5)
    leaf = kit.surface(
        "foliage", varied(kit.rng, (0.16, 0.36, 0.14)), varied(kit.rng, (0.45, 0.58, 0.24)), metres=0.35, gloss=0.2
    )
    shapes = [cylinder(pot, (0, 0, pot_h), r * 0.8, pot_h, 1.25, soil)]
    tall = kit.between(0.35, 0.9)
    bark = kit.surface("timber", *WOODS["walnut"], metres=0.3)
    shapes.append(cylinder(bark, (0, 0, 2 * pot_h + tall / 2), 0.025, tall / 2, 0.7))
    for k in range(int(kit.rng.integers(6, 10))):
        turn, rise = 2.4 * k + kit.between(0, 1), kit.between(0.35, 1.0)
        out, size = kit.between(0.10, 0.24), kit.between(0.10, 0.19)
        centre = (out * float(np.cos(turn)), out * float(np.sin(turn)), 2 * pot_h + tall * rise)
        shapes.append(
            ball(leaf, centre, (size, size * 0.45, size * 0.75), (kit.between(-0.5, 0.5), kit.between(-0.5, 0.5), turn))
        )
    return Piece("potted plant", tuple(shapes), (0.36, 0.36))


def crates(kit: Kit) -> Piece:
    name = kit.pick(["oak", "pine", "ash"])
    parcel = kit.chance(0.4)
    half = kit.between(0.22, 0.34)
    shapes, level = [], 0.0
    for k in range(int(kit.rng.integers(1, 4))):
        if parcel:
            side = kit.surface("parcel", varied(kit.rng, (0.70, 0.54, 0.36), 0.03), (0.45, 0.33, 0.2))
        else:
            side = kit.surface("crate", *WOODS[name])
        h = half * kit.between(0.75, 1.0)
        turn = (0.0, 0.0, kit.between(-0.35, 0.35))
        shapes.append(
            box(side, (kit.between(-0.04, 0.04), kit.between(-0.04, 0.04), level + h), (half, half * 0.9, h), turn)
        )
        level, half = level + 2 * h, half * kit.between(0.7, 0.9)
        if k == 1 and level > 1.0:
            break
    reach = shapes[0].half[0] * 1.25
    return Piece("cardboard boxes" if parcel else "wooden crates", tuple(shapes), (reach, reach))


def column(kit: Kit) -> Piece:
    _, colour = kit.colour("black")
    stone = kit.surface("marble", (0.86, 0.83, 0.78), colour, metres=1.2, gloss=0.4)
    r, h = kit.between(0.13, 0.2), kit.between(0.35, 0.55)
    shapes = [
        box(stone, (0, 0, 0.04), (r + 0.07, r + 0.07, 0.04)),
        cylinder(stone, (0, 0, 0.08 + h), r, h, 0.88),
        box(stone, (0, 0, 0.11 + 2 * h), (r + 0.05, r + 0.05, 0.03)),
    ]
    _, first, second = kit.pair()
    bust = kit.between(0.12, 0.17)
    vase = kit.surface("ceramic", first, second, metres=0.3, gloss=0.6)
    shapes.append(ball(vase, (0, 0, 0.14 + 2 * h + bust), (bust, bust, bust * 1.0)))
    shapes.append(cylinder(vase, (0, 0, 0.14 + 2 * h + 2.1 * bust), bust * 0.35, bust * 0.4, 1.5))
    return Piece("marble column", tuple(shapes), (r + 0.07, r + 0.07))


def stool(kit: Kit) -> Piece:
    colour, cloth = kit.cloth()
    _, wood = kit.wood()
    r, h = kit.between(0.2, 0.32), kit.between(0.15, 0.24)
    if kit.chance(0.5):
        shapes = [cylinder(cloth, (0, 0, h), r, h), cylinder(wood, (0, 0, 0.02), r + 0.01, 0.02)]
        return Piece(f"{colour} pouffe", tuple(shapes), (r, r))
    shapes = [cylinder(wood, (0, 0, 2 * h), r * 0.8, 0.025)]
    for k in range(3):
        turn = 2.1 * k
        foot = (0.55 * r * float(np.cos(turn)), 0.55 * r * float(np.sin(turn)), h)
        shapes.append(cylinder(wood, foot, 0.025, h))
    shapes += on_top(kit, 2 * h + 0.025, (r * 0.4, r * 0.5), 1)
    return Piece("wooden stool", tuple(shapes), (r, r))


def basket(kit: Kit) -> Piece:
    straw = kit.surface("wicker", (0.74, 0.58, 0.36), (0.45, 0.31, 0.17), metres=0.4)
    r, h = kit.between(0.2, 0.3), kit.between(0.14, 0.2)
    shapes = [cylinder(straw, (0, 0, h), r * 0.85, h, 1.2)]
    for k in range(3):
        _, first, second = kit.pair()
        size = r * kit.between(0.36, 0.46)
        centre = (0.48 * r * float(np.cos(2.1 * k)), 0.48 * r * float(np.sin(2.1 * k)), 2 * h + 0.3 * size)
        shapes.append(ball(kit.surface("ball", first, second, gloss=0.4), centre, (size, size, size), (k, 0.4, 0.0)))
    return Piece("basket of balls", tuple(shapes), (r, r))


def cabinet(kit: Kit) -> Piece:
    name, colour = kit.colour("white")
    paint = kit.surface("panelling", colour, toned(colour, 0.7), metres=1.2, gloss=0.1)
    front = kit.surface("door", colour, COLOURS["yellow"], gloss=0.1)
    x, y, z = kit.between(0.4, 0.6), 0.26, kit.between(0.8, 1.0)
    shapes = [box(paint, (0, -0.02, z), (x, y - 0.02, z))]
    shapes += [box(facing(front, paint), (s * x / 2, y - 0.02, z), (x / 2 - 0.008, 0.02, z - 0.03)) for s in (-1, 1)]
    shapes.append(box(paint, (0, 0, 2 * z + 0.02), (x + 0.02, y + 0.02, 0.02)))
    return Piece(f"{name} wardrobe", tuple(shapes), (x, y))


ALONG_WALLS: tuple[Callable[[Kit], Piece], ...] = (sofa, bookshelf, bookshelf, chest, chest, cabinet, crates, plant)
IN_THE_ROOM: tuple[Callable[[Kit], Piece], ...] = (table, table, chair, crates, column, stool, basket, plant)
