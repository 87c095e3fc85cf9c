"""Named colours and the box of materials that furniture is built from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from tinyworld.data.rooms.atlas import Texture
from tinyworld.data.rooms.motion import Vector
from tinyworld.data.rooms.noise import Colour, toned
from tinyworld.data.rooms.shapes import Shape, Surface

T = TypeVar("T")

COLOURS: dict[str, Colour] = {
    "red": (0.72, 0.16, 0.13), "orange": (0.86, 0.45, 0.13), "yellow": (0.88, 0.71, 0.20), "green": (0.24, 0.50, 0.24),
    "teal": (0.14, 0.47, 0.48), "blue": (0.17, 0.33, 0.66), "purple": (0.43, 0.25, 0.52), "pink": (0.85, 0.50, 0.56),
    "white": (0.90, 0.88, 0.84), "black": (0.13, 0.13, 0.14), "grey": (0.50, 0.50, 0.50), "brown": (0.42, 0.27, 0.16),
}  # fmt: skip
WOODS: dict[str, tuple[Colour, Colour]] = {
    "oak": ((0.72, 0.54, 0.34), (0.56, 0.38, 0.20)), "pine": ((0.86, 0.70, 0.47), (0.74, 0.53, 0.30)),
    "walnut": ((0.45, 0.30, 0.19), (0.27, 0.17, 0.10)), "cherry": ((0.62, 0.34, 0.20), (0.44, 0.20, 0.11)),
    "ash": ((0.80, 0.74, 0.64), (0.64, 0.56, 0.45)), "dark": ((0.30, 0.22, 0.17), (0.17, 0.12, 0.09)),
}  # fmt: skip
WALLS: dict[str, Colour] = {
    "cream": (0.89, 0.84, 0.72), "white": (0.88, 0.87, 0.84), "sage": (0.62, 0.69, 0.57), "blue": (0.50, 0.62, 0.72),
    "terracotta": (0.77, 0.50, 0.38), "mustard": (0.80, 0.66, 0.36), "grey": (0.64, 0.65, 0.66),
    "rose": (0.80, 0.63, 0.60), "teal": (0.30, 0.50, 0.52), "green": (0.38, 0.52, 0.40), "navy": (0.24, 0.31, 0.45),
}  # fmt: skip


def varied(rng: np.random.Generator, colour: Colour, amount: float = 0.05) -> Colour:
    """A colour a little off the given one."""
    red, green, blue = np.clip(np.asarray(colour) + rng.normal(0, amount, 3), 0.03, 0.96)
    return float(red), float(green), float(blue)


def a(name: str) -> str:
    """The name with its article."""
    return name if name.endswith(("crates", "boxes")) else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@dataclass(frozen=True)
class Piece:
    """Something to stand in the room, in its own frame (z up from the floor, its back towards −y): what a caption calls
    it, its shapes, half of its footprint along x and y (m)."""

    name: str
    shapes: tuple[Shape, ...]
    half: tuple[float, float]


@dataclass
class Kit:
    """Hands out surfaces and remembers their textures; all chance comes from `rng`."""

    rng: np.random.Generator
    textures: list[Texture] = field(default_factory=list)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.integers(len(choices)))]

    def surface(
        self, painter: str, colour: Colour, second: Colour, metres: float = 0.0, gloss: float = 0.0, emission: float = 0.0,
        fraction: int = 2,
    ) -> Surface:  # fmt: skip
        """A new texture in these colours on a surface; `fraction` as in `Texture`."""
        self.textures.append(Texture(painter, colour, second, int(self.rng.integers(2**31)), fraction))
        return Surface(len(self.textures) - 1, metres, gloss, emission)

    def colour(self, *without: str) -> tuple[str, Colour]:
        """A named colour, slightly varied."""
        name = self.pick([name for name in COLOURS if name not in without])
        return name, varied(self.rng, COLOURS[name], 0.03)

    def pair(self) -> tuple[str, Colour, Colour]:
        """A named colour and another one that stands out against it."""
        name, first = self.colour()
        others = [c for c in COLOURS.values() if np.abs(np.subtract(c, first)).max() > 0.3]
        return name, first, varied(self.rng, self.pick(others), 0.03)

    def wood(self, metres: float = 0.8) -> tuple[str, Surface]:
        """A kind of wood and its surface."""
        name = self.pick(list(WOODS))
        return name, self.surface("timber", *WOODS[name], metres=metres, gloss=0.15)

    def cloth(self) -> tuple[str, Surface]:
        """A colour and a fabric or leather in it."""
        name, first, second = self.pair()
        painter = self.pick(["weave", "weave", "plaid", "leather"])
        if painter != "plaid":
            second = varied(self.rng, toned(first, 0.6, 0.2), 0.04)
        metres = {"weave": 0.35, "plaid": 0.6, "leather": 0.5}[painter]
        return name, self.surface(painter, first, second, metres=metres, gloss=0.25 if painter == "leather" else 0.0)


def box(surface: Surface | tuple[Surface, ...], centre: Vector, half: Vector, tilt: Vector = (0.0, 0.0, 0.0)) -> Shape:
    surfaces = (surface,) if isinstance(surface, Surface) else surface
    return Shape("box", half, centre, surfaces, tilt)


def ball(surface: Surface, centre: Vector, half: Vector, tilt: Vector = (0.0, 0.0, 0.0)) -> Shape:
    return Shape("ball", half, centre, (surface,), tilt)


def cylinder(
    side: Surface, centre: Vector, radius: float, half_height: float, taper: float = 1.0, end: Surface | None = None,
    tilt: Vector = (0.0, 0.0, 0.0), casts_shadow: bool = True,
) -> Shape:  # fmt: skip
    """Upright unless tilted; `taper` is the upper radius over the lower one."""
    return Shape("cylinder", (radius, radius, half_height), centre, (side, end or side), tilt, taper, casts_shadow)


def facing(front: Surface, rest: Surface) -> tuple[Surface, ...]:
    """A box's six sides with `front` towards +y."""
    return rest, rest, rest, front, rest, rest
