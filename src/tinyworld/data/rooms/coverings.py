"""Painters of floors and walls: planks, bricks, tiles, stone, plaster, wallpaper, carpet. All of them repeat.

A painter takes a generator, the texture edge S and two colours, and returns the colour (S, S, 3) as a screen shows it
and the height (S, S) of the relief in units of the edge of one repeat (it is only used through its slope).
"""

import numpy as np

from tinyworld.data.rooms.noise import Array, Colour, cells, fractal, grid, mix, plain, shade, smooth

Painted = tuple[Array, Array]


def planks(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Floor boards along u with grain, knots of darker wood and dark joints."""
    rows = int(rng.integers(5, 9))
    u, v = grid(size)
    row = np.broadcast_to((v * rows).astype(np.int32), (size, size))
    joint = rng.random((rows, 2)).astype(np.float32)
    joint[:, 1] = (joint[:, 0] + 0.35 + 0.3 * joint[:, 1]) % 1.0
    low, high = joint.min(1)[row], joint.max(1)[row]
    plank = row * 2 + ((u > low) & (u < high))
    tone = rng.random(2 * rows).astype(np.float32)[plank]
    shift = rng.integers(0, size, 2 * rows)[plank]
    line = np.arange(size)
    grain = fractal(rng, size, 1.0, stretch=10.0)[line[:, None], (line[None, :] + shift) % size]
    rings = np.sin(6.28 * (v * rows * 2.5 + 0.5 * fractal(rng, size, 1.6, stretch=5.0) + tone * 7.0))
    picture = mix(colour, second, np.clip(0.75 * tone + 0.08 * grain, 0, 1))
    picture = shade(picture, 0.07 * grain + 0.05 * rings + 0.04 * fractal(rng, size))
    across = np.abs((v * rows) % 1.0 - 0.5) * 2.0
    along = np.minimum(np.abs(u - low), np.abs(u - high)) * rows
    gap = np.maximum(smooth(0.93, 0.99, across), 1.0 - smooth(0.01, 0.05, along))
    return shade(picture, -0.6 * gap), 0.002 * grain / rows - 0.006 * gap


def parquet(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Squares of parallel strips, laid crosswise in turn."""
    squares, strips = 4, int(rng.integers(3, 6))
    u, v = (np.broadcast_to(axis * squares, (size, size)) for axis in grid(size))
    column, row = u.astype(np.int32), v.astype(np.int32)
    flat = (column + row) % 2 == 0
    across = np.where(flat, v % 1.0, u % 1.0) * strips
    number = (row * squares + column) * strips + across.astype(np.int32)
    tone = rng.random(squares * squares * strips).astype(np.float32)[number]
    grain = fractal(rng, size, 1.0, stretch=9.0)
    grain = np.where(flat, grain, grain.T)
    picture = shade(mix(colour, second, 0.8 * tone), 0.08 * grain + 0.04 * fractal(rng, size))
    edge = np.abs(across % 1.0 - 0.5) * 2.0
    border = np.maximum(np.abs(u % 1.0 - 0.5), np.abs(v % 1.0 - 0.5)) * 2.0
    gap = np.maximum(0.7 * smooth(0.88, 0.98, edge), smooth(0.95, 0.99, border))
    return shade(picture, -0.5 * gap), 0.0005 * grain - 0.003 * gap


def bricks(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A running bond of uneven bricks in mortar."""
    rows, columns = 8, 3
    u, v = grid(size)
    wobble = 0.02 * fractal(rng, size, 1.5)
    y = v * rows + wobble
    row = np.floor(y).astype(np.int32)
    x = u * columns + 0.5 * (row % 2) + wobble.T
    number = (row % rows) * columns + np.floor(x).astype(np.int32) % columns
    tone = rng.random(rows * columns).astype(np.float32)[number]
    rough = fractal(rng, size, 0.9)
    edge = np.maximum(np.abs(x % 1.0 - 0.5) * 2.0 * 1.02, 1.0 - (1.0 - np.abs(y % 1.0 - 0.5) * 2.0) * 0.4)
    mortar = smooth(0.93, 0.98, edge + 0.008 * rough)
    clay = shade(mix(colour, second, tone), 0.10 * rough + 0.05 * fractal(rng, size))
    grey = shade(plain(size, (0.66, 0.63, 0.58)), 0.08 * rough)
    return mix(clay, grey, mortar), 0.0006 * rough - 0.012 * mortar


def tiles(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Square tiles with grout: one colour, two in turn, or with an ornament."""
    count = int(rng.choice([4, 6]))
    style = int(rng.integers(3))
    u, v = (np.broadcast_to(axis * count, (size, size)) for axis in grid(size))
    column, row = u.astype(np.int32), v.astype(np.int32)
    tone = rng.standard_normal(count * count).astype(np.float32)[row * count + column]
    x, y = u % 1.0 - 0.5, v % 1.0 - 0.5
    if style == 0:
        share = 0.15 * ((column + row) % 2).astype(np.float32)
    elif style == 1:
        share = ((column + row) % 2).astype(np.float32)
    else:
        angle, radius = np.arctan2(y, x), np.hypot(x, y)
        flower = smooth(-0.04, 0.04, 0.26 + 0.12 * np.cos(4 * angle) - radius)
        corner = smooth(-0.04, 0.04, 0.2 - np.hypot(np.abs(x) - 0.5, np.abs(y) - 0.5))
        share = np.maximum(flower, corner)
    veins = 1.0 - smooth(0.0, 0.25, np.abs(fractal(rng, size, 1.6)))
    picture = shade(mix(colour, second, share), 0.05 * tone - 0.12 * veins + 0.04 * fractal(rng, size))
    grout = smooth(0.93, 0.97, np.maximum(np.abs(x), np.abs(y)) * 2.0)
    dirt = shade(plain(size, (0.55, 0.53, 0.5)), 0.1 * fractal(rng, size))
    return mix(picture, dirt, grout), -0.005 * grout


def marble(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Polished stone: soft clouds and sharp dark veins."""
    warp = fractal(rng, size, 1.7)
    veins = 1.0 - smooth(0.0, 0.16, np.abs(warp + 0.25 * fractal(rng, size, 1.1)))
    fine = 1.0 - smooth(0.0, 0.10, np.abs(fractal(rng, size, 1.4)))
    clouds = smooth(-1.5, 1.5, fractal(rng, size, 1.5))
    picture = mix(colour, second, 0.35 * clouds + 0.55 * veins + 0.2 * fine)
    return shade(picture, 0.03 * fractal(rng, size, 0.7)), np.zeros((size, size), np.float32)


def terrazzo(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Chips of several stones in a plain ground."""
    near, far, owner = cells(rng, size, 18)
    stones = np.asarray(
        [second, (0.45, 0.42, 0.38), (0.70, 0.66, 0.60), (0.30, 0.27, 0.25), (0.62, 0.45, 0.34)], np.float32
    )
    chips = stones[rng.integers(0, len(stones), 18 * 18)] + rng.normal(0, 0.04, (18 * 18, 3)).astype(np.float32)
    width = rng.random(18 * 18).astype(np.float32)[owner]
    chip = smooth(0.18, 0.26, far - near - 0.25 * width)
    picture = mix(shade(plain(size, colour), 0.05 * fractal(rng, size)), np.clip(chips, 0, 1)[owner], chip)
    return shade(picture, 0.04 * fractal(rng, size, 0.5)), np.zeros((size, size), np.float32)


def plaster(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A painted wall with brush marks, stains of the second colour and fine grain."""
    stain = smooth(0.2, 2.4, fractal(rng, size, 1.5))
    rough = fractal(rng, size, 0.9)
    brush = fractal(rng, size, 1.1, stretch=4.0)
    picture = mix(colour, second, 0.3 * stain)
    return shade(picture, 0.035 * rough + 0.03 * brush), 0.0009 * rough + 0.0007 * brush


def concrete(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Cast concrete: clouds, pores and the joints of the formwork."""
    clouds = fractal(rng, size, 1.3)
    pores = smooth(2.0, 2.6, fractal(rng, size, 0.5))
    u, v = grid(size)
    joint = np.maximum(
        1.0 - smooth(0.0, 0.008, np.minimum(u, 1.0 - u)), 1.0 - smooth(0.0, 0.008, np.minimum(v, 1.0 - v))
    )
    picture = mix(colour, second, 0.3 * smooth(-1.5, 2.0, clouds))
    return shade(picture, 0.10 * clouds - 0.35 * pores - 0.35 * joint), -0.002 * pores - 0.004 * joint


def carpet(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A deep pile in two yarns, with trodden patches."""
    pile = fractal(rng, size, 0.25, low=size / 16)
    trodden = fractal(rng, size, 1.6)
    picture = mix(colour, second, smooth(-0.3, 1.6, pile + 0.3 * trodden))
    return shade(picture, 0.10 * pile + 0.05 * trodden), 0.0012 * pile


def wallpaper(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Paper with stripes, a lattice of diamonds, rosettes or leaves."""
    style = int(rng.integers(4))
    u, v = (np.broadcast_to(axis, (size, size)) for axis in grid(size))
    if style == 0:
        wave = np.cos(6.28 * 5 * u) + 0.6 * np.cos(6.28 * 15 * u)
        share = 0.75 * smooth(0.1, 0.4, wave)
    elif style == 1:
        a, b = np.abs(((u * 5 + v * 5) % 1.0) - 0.5), np.abs(((u * 5 - v * 5) % 1.0) - 0.5)
        share = np.maximum(smooth(0.42, 0.46, np.maximum(a, b)), smooth(0.02, 0.0, np.hypot(a, b) - 0.1))
    else:
        count = 5 if style == 2 else 4
        y = v * count
        row = np.floor(y)
        x = u * count + 0.5 * (row % 2) * (count % 2 == 0)
        px, py = x % 1.0 - 0.5, y % 1.0 - 0.5
        angle, radius = np.arctan2(py, px), np.hypot(px, py)
        petals = 0.27 + 0.13 * np.cos((6 if style == 2 else 3) * angle + (0 if style == 2 else 1.57))
        share = smooth(-0.03, 0.03, petals - radius) * (0.6 + 0.4 * smooth(0.05, 0.09, radius))
        share = np.maximum(share, smooth(-0.02, 0.02, 0.09 - np.hypot(np.abs(px) - 0.5, np.abs(py) - 0.5)))
    picture = mix(colour, second, 0.9 * share)
    return shade(picture, 0.025 * fractal(rng, size, 0.6) + 0.03 * fractal(rng, size, 1.5)), 0.001 * share


def panelling(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Upright boards with grooves, painted."""
    boards = int(rng.integers(8, 13))
    u = np.broadcast_to(grid(size)[0], (size, size))
    edge = np.abs((u * boards) % 1.0 - 0.5) * 2.0
    groove = smooth(0.86, 0.97, edge)
    grain = fractal(rng, size, 1.0, stretch=8.0).T
    tone = rng.standard_normal(boards).astype(np.float32)[(u * boards).astype(np.int32)]
    picture = mix(colour, second, np.clip(0.15 + 0.1 * tone, 0, 1))
    return shade(picture, 0.045 * grain + 0.02 * tone - 0.4 * groove), 0.0004 * grain - 0.008 * groove
