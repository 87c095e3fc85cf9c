"""Furnishing a room: finds free places on the floor and on the walls."""

import numpy as np

from tinyworld.data.rooms import furniture, shell, toys
from tinyworld.data.rooms.kit import Kit
from tinyworld.data.rooms.shapes import Thing
from tinyworld.data.rooms.shell import WALLS_OF_A_ROOM, Size, Wall, Window

Rectangle = tuple[float, float, float, float]
"""Floor that is taken: middle x, y and half widths (m)."""


class Plan:
    """Where there is still room on the floor and on the walls."""

    def __init__(self, kit: Kit, size: Size) -> None:
        self.kit, self.size = kit, size
        self.floor: list[Rectangle] = []
        self.walls: list[tuple[Wall, float, float, float]] = []  # wall, middle and half width along it, height reached

    def _free(self, wanted: Rectangle, margin: float = 0.06) -> bool:
        x, y, a, b = wanted
        if abs(x) + a > self.size[0] / 2 + 1e-6 or abs(y) + b > self.size[1] / 2 + 1e-6:
            return False
        return all(abs(x - p) > a + c + margin or abs(y - q) > b + d + margin for p, q, c, d in self.floor)

    def _wall_free(self, wall: Wall, along: float, half: float, above: float) -> bool:
        if abs(along) + half > wall.length(self.size) / 2 - 0.1:
            return False
        return all(w != wall or abs(along - m) > half + h + 0.08 or top < above for w, m, h, top in self.walls)

    def _spot(self, half: tuple[float, float], inset: float) -> tuple[float, float] | None:
        """A free place on the floor for something of this size."""
        for _ in range(60):
            x = self.kit.between(-1, 1) * max(self.size[0] / 2 - half[0] - inset, 0.0)
            y = self.kit.between(-1, 1) * max(self.size[1] / 2 - half[1] - inset, 0.0)
            if self._free((x, y, *half)):
                self.floor.append((x, y, *half))
                return x, y
        return None

    def windows(self) -> tuple[Window, ...]:
        """One or two windows in one wall, one more perhaps in another; or none."""
        kit, found = self.kit, []
        first = int(kit.rng.integers(4))
        for wall in (WALLS_OF_A_ROOM[first], WALLS_OF_A_ROOM[(first + 2 + int(kit.rng.integers(2))) % 4]):
            panes = (int(kit.rng.integers(1, 4)), int(kit.rng.integers(1, 4)))
            half = (kit.between(0.45, 0.9), kit.between(0.45, 0.65))
            for along in (-0.22, 0.22) if kit.chance(0.4) else (kit.between(-0.15, 0.15),):
                middle = along * wall.length(self.size)
                if (wall is not WALLS_OF_A_ROOM[first] and kit.chance(0.6)) or not self._wall_free(
                    wall, middle, half[0] + 0.3, 0.0
                ):
                    continue
                found.append(Window(wall, middle, 1.55, half, panes))
                self.walls.append((wall, middle, half[0] + 0.3, 9.0))
        return tuple(found) if kit.chance(0.85) else ()

    def doors(self) -> list[Thing]:
        for _ in range(12):
            wall = self.kit.pick(WALLS_OF_A_ROOM)
            along = self.kit.between(-0.35, 0.35) * wall.length(self.size)
            if self._wall_free(wall, along, 0.5, 0.0):
                self.walls.append((wall, along, 0.5, 9.0))
                x, y, _ = wall.point(self.size, along, off=0.3)
                self.floor.append((x, y, *((0.3, 0.5) if wall.axis == 0 else (0.5, 0.3))))
                return [shell.wall_door(self.kit, wall, along, self.size)]
        return []

    def toys(self, count: int) -> tuple[list[Thing], list[str]]:
        """Moving things, each with the floor that it sweeps kept free."""
        placed: list[Thing] = []
        sentences: list[str] = []
        for _ in range(count):
            swings = self.kit.chance(0.12)
            toy = toys.pendulum(self.kit, self.size[2]) if swings else self.kit.pick(toys.TOYS)(self.kit)
            spot = self._spot(toy.half, 0.5)
            if spot is not None and toy.thing.name not in [t.name for t in placed]:
                x, y, z = toy.thing.position
                placed.append(
                    Thing(
                        toy.thing.name, toy.thing.shapes, (spot[0] + x, spot[1] + y, z), toy.thing.yaw, toy.thing.motion
                    )
                )
                sentences.append(toy.sentence)
        return placed, sentences

    def along_walls(self, count: int) -> list[Thing]:
        placed = []
        for _ in range(count):
            piece = self.kit.pick(furniture.ALONG_WALLS)(self.kit)
            height = max(s.centre[2] + s.half[2] for s in piece.shapes)
            for _ in range(25):
                wall = self.kit.pick(WALLS_OF_A_ROOM)
                along = self.kit.between(-0.5, 0.5) * wall.length(self.size)
                half = piece.half if wall.axis == 1 else (piece.half[1], piece.half[0])
                place = wall.point(self.size, along, off=piece.half[1] + 0.03)
                low_enough = height < 1.0 or self._wall_free(wall, along, piece.half[0], 0.0)
                if low_enough and self._free((place[0], place[1], *half)):
                    self.floor.append((place[0], place[1], *half))
                    self.walls.append((wall, along, piece.half[0], height))
                    placed.append(Thing(piece.name, piece.shapes, place, wall.yaw))
                    break
        return placed

    def in_the_room(self, count: int) -> list[Thing]:
        placed = []
        for _ in range(count):
            piece = self.kit.pick(furniture.IN_THE_ROOM)(self.kit)
            yaw = self.kit.between(-0.5, 0.5) + float(self.kit.rng.integers(4)) * np.pi / 2
            c, s = abs(float(np.cos(yaw))), abs(float(np.sin(yaw)))
            half = (c * piece.half[0] + s * piece.half[1], s * piece.half[0] + c * piece.half[1])
            spot = self._spot(half, 0.5)
            if spot is not None:
                placed.append(Thing(piece.name, piece.shapes, (*spot, 0.0), yaw))
        return placed

    def pictures(self, count: int) -> list[Thing]:
        placed: list[Thing] = []
        for _ in range(count * 4):
            wall = self.kit.pick(WALLS_OF_A_ROOM)
            half = (self.kit.between(0.2, 0.55), self.kit.between(0.2, 0.42))
            along, height = self.kit.between(-0.45, 0.45) * wall.length(self.size), self.kit.between(1.45, 1.75)
            if len(placed) < count and self._wall_free(wall, along, half[0], height - half[1]):
                self.walls.append((wall, along, half[0], 9.0))
                placed.append(shell.wall_picture(self.kit, wall, along, height, half, self.size))
        return placed

    def corner(self) -> tuple[float, float] | None:
        """A free place for a lamp near a wall."""
        for _ in range(20):
            wall = self.kit.pick(WALLS_OF_A_ROOM)
            x, y, _ = wall.point(self.size, self.kit.between(-0.45, 0.45) * wall.length(self.size), off=0.3)
            if self._free((x, y, 0.2, 0.2)):
                self.floor.append((x, y, 0.2, 0.2))
                return x, y
        return None
