"""Painters that cover a face once: paintings, the view from a window, rugs, shelves of books, drawers, doors, clocks.

The signature is that of `coverings`: (generator, S, colour, second colour) → colour (S, S, 3), height (S, S).
"""

import numpy as np

from tinyworld.data.rooms.coverings import Painted
from tinyworld.data.rooms.noise import Array, Colour, cells, fractal, grid, mix, plain, shade, smooth


def _full_grid(size: int) -> tuple[Array, Array]:
    u, v = grid(size)
    return np.broadcast_to(u, (size, size)), np.broadcast_to(v, (size, size))


def _random_colours(rng: np.random.Generator, count: int, dull: float = 0.35) -> Array:
    """Colours of one picture: random hues, pulled towards a common grey."""
    base = rng.random((count, 3)).astype(np.float32)
    return np.clip(base + (base.mean(1, keepdims=True) - base) * dull, 0.04, 0.96)


def _ridge(rng: np.random.Generator, size: int, slope: float) -> Array:
    """A line (1, S) of hills or of mountains, mean 0, deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.arange(len(spectrum))
    spectrum *= np.where(frequency > 0, np.maximum(frequency, 1.0) ** -slope, 0.0)
    line = np.fft.irfft(spectrum, n=size)
    return (line / line.std()).astype(np.float32)[None, :]


def landscape(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Sky with clouds and a sun, ranges of hills one behind the other, a foreground with trees."""
    u, v = _full_grid(size)
    horizon = float(rng.uniform(0.45, 0.65))
    low = np.clip(np.asarray(second, np.float32) * 0.3 + 0.7, 0, 1)
    picture = mix(colour, tuple(low), np.clip(v / horizon, 0, 1))
    clouds = smooth(0.2, 1.6, fractal(rng, size, 1.5, stretch=0.6)) * smooth(horizon, 0.1, v)
    picture = mix(picture, plain(size, (0.97, 0.96, 0.94)), 0.8 * clouds)
    sun = np.hypot(u - rng.uniform(0.2, 0.8), v - rng.uniform(0.1, horizon - 0.1))
    picture = mix(picture, plain(size, (1.0, 0.93, 0.72)), smooth(0.075, 0.06, sun) + 0.35 * np.exp(-12.0 * sun))
    earth = np.asarray(second, np.float32)
    for k in range(4):
        near = k / 3.0
        line = horizon + 0.13 * k - 0.04 + _ridge(rng, size, 1.6 - 0.1 * k) * (0.05 - 0.006 * k)
        tone = shade(plain(size, (0.28, 0.36, 0.20)), 0.25 * fractal(rng, size, 0.9))
        tone = (1 - near) * (0.45 * earth + 0.42) + near * (0.6 * tone + 0.4 * tone * earth * 1.5)
        picture = mix(picture, tone, smooth(-0.004, 0.004, v - line))
    return picture, np.zeros((size, size), np.float32)


def _blocks(rng: np.random.Generator, size: int) -> Array:
    """An abstract of rectangles between dark lines."""
    u, v = _full_grid(size)
    colours = _random_colours(rng, 40, 0.1)
    x = np.sort(rng.uniform(0.05, 0.95, 4))
    y = np.sort(rng.uniform(0.05, 0.95, 4))
    number = np.searchsorted(x, u) * 5 + np.searchsorted(y, v)
    picture = np.where((rng.random(40)[number] < 0.45)[..., None], np.float32(0.92), colours[number])
    line = np.minimum(np.abs(u[..., None] - x).min(-1), np.abs(v[..., None] - y).min(-1))
    return mix(picture, plain(size, (0.06, 0.06, 0.07)), smooth(0.016, 0.012, line)).astype(np.float32)


def _discs(rng: np.random.Generator, size: int) -> Array:
    """Overlapping rings and discs on a wash of colour."""
    u, v = _full_grid(size)
    colours = _random_colours(rng, 12)
    picture = mix(colours[0], colours[1], smooth(-1.5, 1.5, fractal(rng, size, 1.6)))
    for k in range(2, 12):
        radius, (x, y) = rng.uniform(0.06, 0.28), rng.random(2)
        distance = np.hypot(u - x, v - y)
        inside = smooth(0.005, -0.005, distance - radius)
        if rng.random() < 0.4:
            inside = inside * smooth(-0.005, 0.005, distance - 0.7 * radius)
        picture = mix(picture, plain(size, tuple(colours[k])), (0.6 + 0.4 * rng.random()) * inside)
    return picture


def _flowers(rng: np.random.Generator, size: int) -> Array:
    """Flowers in a vase before a dark wall."""
    u, v = _full_grid(size)
    colours = _random_colours(rng, 12, 0.0) * 0.6 + 0.4
    picture = shade(plain(size, (0.30, 0.26, 0.22)), 0.25 * fractal(rng, size, 1.4))
    picture = mix(
        picture, shade(plain(size, (0.50, 0.33, 0.20)), 0.15 * fractal(rng, size, 1.2)), smooth(0.82, 0.83, v)
    )
    vase = smooth(0.0, -0.01, np.abs(u - 0.5) - 0.13 * np.sqrt(np.clip(1.2 - ((v - 0.78) / 0.17) ** 2, 0, 1)))
    picture = mix(picture, shade(plain(size, tuple(colours[0])), -0.9 * (u - 0.42)), vase * (np.abs(v - 0.76) < 0.15))
    leaves = smooth(0.1, 0.6, fractal(rng, size, 1.1) + 1.2 - 5.0 * np.hypot(u - 0.5, v - 0.42))
    picture = mix(picture, shade(plain(size, (0.16, 0.32, 0.13)), 0.3 * fractal(rng, size, 0.8)), leaves)
    for k in range(9):
        x, y = 0.5 + rng.uniform(-0.28, 0.28), 0.38 + rng.uniform(-0.24, 0.2)
        angle, radius = np.arctan2(v - y, u - x), np.hypot(u - x, v - y)
        edge = rng.uniform(0.06, 0.11) * (0.75 + 0.25 * np.cos(int(rng.integers(5, 9)) * angle + rng.random() * 6))
        petals = smooth(0.006, -0.006, radius - edge)
        picture = mix(picture, shade(plain(size, tuple(colours[k])), 2.0 * (radius - 0.07)), petals)
        picture = mix(picture, plain(size, (0.85, 0.65, 0.15)), smooth(0.022, 0.016, radius))
    return picture


def painting(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A framed picture: a landscape, rectangles, discs or flowers; the frame has the second colour."""
    style = int(rng.integers(4))
    if style == 0:
        canvas = landscape(rng, size, colour, (0.5, 0.45, 0.4))[0]
    else:
        canvas = (_blocks, _discs, _flowers)[style - 1](rng, size)
    canvas = shade(canvas, 0.05 * fractal(rng, size, 0.5))
    u, v = _full_grid(size)
    border = np.maximum(np.abs(u - 0.5), np.abs(v - 0.5)) * 2.0
    mount = smooth(0.77, 0.78, border) if rng.random() < 0.5 else np.zeros((size, size), np.float32)
    canvas = mix(canvas, plain(size, (0.93, 0.91, 0.86)), mount)
    frame = smooth(0.875, 0.885, border)
    wood = shade(plain(size, second), 0.12 * fractal(rng, size, 0.9, stretch=5.0) + 0.25 * np.cos(50 * border))
    return mix(canvas, wood, frame), 0.012 * frame * np.sin(np.pi * np.clip((border - 0.88) / 0.12, 0, 1)).astype(
        np.float32
    )


def view(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """What is outside a window: a landscape, with trees or houses in front."""
    picture = landscape(rng, size, colour, second)[0]
    u, v = _full_grid(size)
    if rng.random() < 0.5:
        for _ in range(5):
            x, y, r = rng.random(), rng.uniform(0.4, 0.6), rng.uniform(0.08, 0.16)
            crown = smooth(0.3, 0.6, 0.5 * fractal(rng, size, 1.1) + 1.6 - np.hypot(u - x, v - y) / r)
            leaf = shade(plain(size, (0.22, 0.36, 0.14)), 0.35 * fractal(rng, size, 0.7) - 1.5 * (v - y))
            trunk = smooth(0.014, 0.008, np.abs(u - x)) * smooth(0, 0.02, v - y) * smooth(0.36, 0.35, v - y)
            picture = mix(mix(picture, plain(size, (0.25, 0.17, 0.11)), trunk), leaf, crown)
    else:
        edges = np.sort(rng.uniform(0.0, 1.0, 7))
        number = np.searchsorted(edges, u)
        top = rng.uniform(0.28, 0.55, 8)[number]
        wall = _random_colours(rng, 8, 0.7)[number] * 0.5 + 0.3
        pane = (((u * 22) % 1.0 > 0.4) & (((v - top) * 18) % 1.0 > 0.45)).astype(np.float32)
        wall = mix(wall, plain(size, (0.20, 0.24, 0.30)), 0.8 * pane * smooth(0.03, 0.031, v - top))
        picture = mix(picture, shade(wall, 0.06 * fractal(rng, size)), smooth(-0.002, 0.002, v - top))
    return picture.astype(np.float32), np.zeros((size, size), np.float32)


def rug(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A woven rug: borders, a medallion, a field of diamonds, wool grain."""
    u, v = _full_grid(size)
    x, y = np.abs(u - 0.5) * 2.0, np.abs(v - 0.5) * 2.0
    border = np.maximum(x, y)
    count = int(rng.integers(4, 9))
    diamond = np.abs((u * count) % 1.0 - 0.5) + np.abs((v * count) % 1.0 - 0.5)
    third = _random_colours(rng, 1, 0.4)[0]
    picture = mix(colour, second, 0.8 * smooth(0.02, -0.02, np.abs(diamond - 0.36) - 0.06))
    picture = mix(picture, plain(size, tuple(third)), smooth(0.01, -0.01, diamond - 0.14))
    star = np.hypot(x, y) * (1.0 + 0.18 * np.cos(8 * np.arctan2(y, x)))
    picture = mix(picture, plain(size, second), smooth(0.02, -0.02, star - 0.52))
    picture = mix(picture, plain(size, colour), smooth(0.02, -0.02, star - 0.40))
    picture = mix(picture, plain(size, tuple(third)), smooth(0.02, -0.02, np.abs(star - 0.22) - 0.06))
    picture = mix(picture, plain(size, second), smooth(0.72, 0.73, border))
    teeth = smooth(-0.1, 0.1, np.sin(6.28 * 12 * np.where(x > y, v, u)) * 0.5 + (border - 0.81) * 14)
    picture = mix(picture, plain(size, tuple(third)), teeth * smooth(0.74, 0.75, border))
    picture = mix(picture, plain(size, colour), smooth(0.89, 0.90, border))
    wool = fractal(rng, size, 0.3, low=size / 20)
    return shade(picture, 0.10 * wool + 0.05 * fractal(rng, size, 1.4)), 0.0008 * wool


def books(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """One row of book spines, of uneven width and height, before a dark back."""
    u, v = _full_grid(size)
    count = int(rng.integers(11, 19))
    edges = np.cumsum(rng.uniform(0.5, 1.5, count))
    edges = np.concatenate([[0.0], edges / edges[-1]])
    number = np.clip(np.searchsorted(edges, u, side="right") - 1, 0, count - 1)
    width = np.diff(edges)[number]
    x = (u - edges[number]) / width
    colours = _random_colours(rng, count, 0.2) * 0.75
    colours[rng.random(count) < 0.25] = np.asarray(colour, np.float32)
    top = rng.uniform(0.03, 0.32, count)[number]
    spine = shade(colours[number], 0.5 * np.sin(np.pi * np.clip(x, 0, 1)) - 0.3 + 0.08 * fractal(rng, size, 0.8))
    band = smooth(0.015, 0.010, np.abs(v - top - 0.12)) + smooth(0.015, 0.010, np.abs(v - 0.86))
    title = ((v > top + 0.22) & (v < 0.7) & (np.abs(x - 0.5) < 0.2) & (np.sin(90 * v + 7 * number) > -0.2)).astype(
        np.float32
    )
    gilt = plain(size, (0.85, 0.74, 0.45))
    spine = mix(spine, gilt, 0.8 * np.clip(band + title, 0, 1) * (rng.random(count) < 0.7)[number])
    back = shade(plain(size, second), -0.6 + 0.1 * fractal(rng, size))
    return mix(back, spine, smooth(-0.004, 0.004, v - top)).astype(np.float32), np.zeros((size, size), np.float32)


def drawers(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """The front of a chest: drawers or doors with knobs."""
    u, v = _full_grid(size)
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(1, 3))
    warp = fractal(rng, size, 1.7, stretch=5.0)
    grain = fractal(rng, size, 0.9, stretch=12.0)
    rings = np.sin(6.28 * (6 * v + 0.6 * warp))
    picture = shade(mix(colour, second, np.clip(0.3 + 0.2 * rings + 0.1 * warp, 0, 1)), 0.08 * grain)
    x, y = (u * columns) % 1.0 - 0.5, (v * rows) % 1.0 - 0.5
    inset = np.minimum((0.5 - np.abs(x)) / columns, (0.5 - np.abs(y)) / rows)
    gap = 1.0 - smooth(0.008, 0.016, np.abs(inset - 0.02))
    picture = shade(picture, -0.6 * gap + 0.12 * smooth(0.03, 0.04, inset))
    knob = np.hypot((np.abs(x) - (0.0 if columns > 1 else 0.22)) / columns, y / rows)
    picture = shade(picture, -0.5 * smooth(0.05, 0.03, np.hypot(knob, 0.0)))
    picture = mix(picture, plain(size, (0.86, 0.78, 0.56)), smooth(0.030, 0.022, knob))
    return picture, 0.03 * smooth(0.012, 0.04, inset) + 0.0004 * grain


def door(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A panelled door with a handle."""
    u, v = _full_grid(size)
    picture = shade(plain(size, colour), 0.05 * fractal(rng, size, 1.0, stretch=8.0).T)
    x, y = np.abs((u * 2) % 1.0 - 0.5), np.abs((v * 3) % 1.0 - 0.5)
    inset = np.minimum(0.38 - x, (0.40 - y) * 0.9)
    edge = smooth(0.05, 0.0, np.abs(inset))
    picture = shade(picture, -0.35 * edge * np.where(inset > 0, 1.0, 0.3) - 0.05 * (inset > 0))
    handle = np.maximum(np.abs(u - 0.90) - 0.035, np.abs(v - 0.52) - 0.008)
    picture = mix(picture, plain(size, second), smooth(0.006, 0.0, handle))
    return picture, -0.02 * smooth(0.0, 0.06, inset)


def clock(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A clock face."""
    u, v = _full_grid(size)
    x, y = (u - 0.5) * 2.0, (v - 0.5) * 2.0
    radius, angle = np.hypot(x, y), np.arctan2(x, -y)
    picture = shade(plain(size, (0.94, 0.92, 0.86)), 0.03 * fractal(rng, size, 1.3))
    hours = smooth(0.10, 0.07, np.abs(np.angle(np.exp(1j * angle * 12)) / 2)) * (np.abs(radius - 0.72) < 0.09)
    picture = mix(picture, plain(size, (0.1, 0.1, 0.12)), hours)
    for length, width, turn in ((0.42, 0.05, rng.random() * 6.28), (0.66, 0.035, rng.random() * 6.28)):
        along, across = x * np.sin(turn) - y * np.cos(turn), x * np.cos(turn) + y * np.sin(turn)
        hand = smooth(width, width - 0.02, np.abs(across)) * (along > -0.08) * (along < length)
        picture = mix(picture, plain(size, (0.1, 0.1, 0.12)), hand)
    return mix(picture, plain(size, colour), smooth(0.86, 0.88, radius)), 0.02 * smooth(0.86, 0.90, radius)


def glow(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A lit lamp shade: brighter in the middle, with the weave of the cloth."""
    _, v = _full_grid(size)
    cloth = fractal(rng, size, 0.7, stretch=0.2)
    near, far, _ = cells(rng, size, 24)
    picture = shade(mix(second, colour, np.sin(np.pi * np.clip(v, 0, 1))), 0.06 * cloth + 0.05 * (far - near))
    return picture, np.zeros((size, size), np.float32)
