"""Painters of what furniture and toys are made of. The flat ones repeat; those of balls cover a whole sphere once.

The signature is that of `coverings`: (generator, S, colour, second colour) → colour (S, S, 3), height (S, S).
"""

import numpy as np

from tinyworld.data.rooms.coverings import Painted
from tinyworld.data.rooms.noise import Array, Colour, cells, fractal, grid, mix, plain, shade, smooth, waves


def timber(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Sawn wood along u: rings, fine grain, a few broad darker bands."""
    _, v = grid(size)
    warp = fractal(rng, size, 1.8, stretch=5.0)
    rings = np.sin(6.28 * (v * 7.0 + 0.7 * warp))
    grain = fractal(rng, size, 0.9, stretch=12.0)
    picture = mix(colour, second, np.clip(0.3 + 0.22 * rings + 0.15 * warp, 0, 1))
    return shade(picture, 0.09 * grain), 0.0006 * grain


def weave(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Upholstery: threads over and under, with slubs."""
    threads = 32
    u, v = (np.broadcast_to(axis * threads, (size, size)) for axis in grid(size))
    over = (u.astype(np.int32) + v.astype(np.int32)) % 2
    bulge = np.where(over == 0, np.cos(np.pi * (u % 1.0 - 0.5)), np.cos(np.pi * (v % 1.0 - 0.5)))
    slub = fractal(rng, size, 0.8)
    picture = mix(colour, second, np.clip(0.4 * over + 0.12 * slub, 0, 1))
    return shade(picture, 0.18 * (bulge - 0.6) + 0.06 * fractal(rng, size, 1.4)), (0.003 * bulge).astype(np.float32)


def plaid(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A tartan of broad and narrow bands in both directions."""
    u, v = grid(size)
    freq = rng.integers(2, 5, 3)

    def bands(x: Array) -> Array:
        broad = smooth(0.0, 0.3, np.cos(6.28 * freq[0] * x))
        return np.clip(0.7 * broad + 0.5 * smooth(0.93, 0.97, np.cos(6.28 * (freq[0] * x + 0.5))), 0, 1)

    share = 0.5 * bands(u) + 0.5 * bands(v)
    twill = np.sin(6.28 * (u + v) * 48)
    picture = shade(mix(colour, second, share), 0.06 * twill + 0.06 * fractal(rng, size, 0.9))
    return picture, (0.0006 * twill).astype(np.float32)


def leather(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Grained leather with worn patches."""
    near, far, _ = cells(rng, size, 28)
    crease = 1.0 - smooth(0.02, 0.22, far - near)
    worn = smooth(0.0, 2.2, fractal(rng, size, 1.5))
    return shade(mix(colour, second, 0.35 * worn), -0.25 * crease + 0.06 * fractal(rng, size)), -0.0035 * crease


def wicker(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Basket work."""
    u, v = (np.broadcast_to(axis * 12, (size, size)) for axis in grid(size))
    over = (u.astype(np.int32) + v.astype(np.int32)) % 2 == 0
    bulge = np.where(over, np.sin(np.pi * (u % 1.0)), np.sin(np.pi * (v % 1.0))).astype(np.float32)
    rib = np.where(over, np.sin(6.28 * 3 * v), np.sin(6.28 * 3 * u)).astype(np.float32)
    picture = mix(second, colour, np.clip(bulge, 0, 1))
    return shade(picture, 0.09 * rib + 0.08 * fractal(rng, size, 0.8)), 0.012 * bulge


def metal(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Brushed metal with a few spots of the second colour."""
    brushed = fractal(rng, size, 0.6, stretch=20.0)
    spots = smooth(1.4, 2.2, fractal(rng, size, 1.3))
    return shade(mix(colour, second, 0.6 * spots), 0.07 * brushed + 0.05 * fractal(rng, size)), 0.0002 * brushed


def ceramic(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Glazed pottery with painted bands and a wavy line."""
    u, v = (np.broadcast_to(axis, (size, size)) for axis in grid(size))
    count = int(rng.integers(2, 4))
    wave = v * count + 0.08 * np.sin(6.28 * 6 * u)
    share = smooth(0.28, 0.34, np.abs(wave % 1.0 - 0.5)) * (1.0 - smooth(0.40, 0.44, np.abs(wave % 1.0 - 0.5)))
    speck = smooth(1.9, 2.4, fractal(rng, size, 0.4))
    return shade(mix(colour, second, share), -0.3 * speck + 0.05 * fractal(rng, size, 1.3)), -0.0006 * share


def parcel(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A cardboard face with tape, flutes and a printed label. Covers a face once."""
    u, v = (np.broadcast_to(axis, (size, size)) for axis in grid(size))
    flutes = np.sin(6.28 * 40 * v)
    picture = shade(plain(size, colour), 0.02 * flutes + 0.05 * fractal(rng, size))
    tape = smooth(0.07, 0.06, np.abs(u - 0.5))
    picture = mix(picture, shade(plain(size, (0.80, 0.70, 0.50)), 0.03 * fractal(rng, size, 1.4)), 0.8 * tape)
    x0, y0 = rng.uniform(0.08, 0.2), rng.uniform(0.12, 0.5)
    inside = (u > x0) & (u < x0 + 0.28) & (v > y0) & (v < y0 + 0.34)
    lines = (
        (((v - y0) * 24) % 1.0 < 0.45)
        & (u < x0 + 0.04 + 0.2 * np.abs(np.sin(40 * np.floor((v - y0) * 24))))
        & (u > x0 + 0.03)
    )
    label = np.where(lines[..., None], np.float32(0.2), np.asarray([0.93, 0.92, 0.88], np.float32))
    picture = np.where(inside[..., None], label, picture)
    edge = smooth(0.97, 0.995, np.maximum(np.abs(u - 0.5), np.abs(v - 0.5)) * 2.0)
    picture = mix(picture, plain(size, second), 0.4 * edge)
    return picture, 0.0004 * flutes.astype(np.float32)


def crate(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A wooden crate's face: boards, a frame and nails. Covers a face once."""
    u, v = (np.broadcast_to(axis, (size, size)) for axis in grid(size))
    grain = fractal(rng, size, 1.0, stretch=9.0)
    boards = (v * 5).astype(np.int32)
    tone = rng.standard_normal(5).astype(np.float32)[boards]
    border = np.maximum(np.abs(u - 0.5), np.abs(v - 0.5))
    brace = np.abs(u - v) / 1.414
    frame = np.maximum(smooth(0.385, 0.39, border), smooth(0.07, 0.065, brace))
    gap = smooth(0.90, 0.98, np.abs((v * 5) % 1.0 - 0.5) * 2.0) * (1.0 - frame)
    rim = np.maximum(
        1.0 - smooth(0.0, 0.012, np.abs(border - 0.385)),
        (1.0 - smooth(0.0, 0.012, np.abs(brace - 0.07))) * (border < 0.385),
    )
    picture = mix(colour, second, np.clip(0.35 + 0.15 * tone * (1.0 - frame) - 0.25 * frame, 0, 1))
    picture = shade(picture, np.where(frame > 0.5, 0.09 * grain.T, 0.1 * grain) - 0.65 * gap - 0.35 * rim)
    nail = np.hypot(np.abs(u - 0.5) - 0.44, np.abs(v - 0.5) - 0.44)
    return shade(picture, -0.6 * smooth(0.018, 0.012, nail)), 0.02 * frame - 0.012 * gap


def chequer(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Painted squares, dots or stripes on a toy, with scratches. Covers a face once."""
    style, count = int(rng.integers(3)), int(rng.integers(3, 6))
    u, v = (np.broadcast_to(axis * count, (size, size)) for axis in grid(size))
    if style == 0:
        share = smooth(-0.03, 0.03, np.sin(np.pi * u) * np.sin(np.pi * v))
    elif style == 1:
        share = smooth(0.03, -0.03, np.hypot(u % 1.0 - 0.5, v % 1.0 - 0.5) - 0.3)
    else:
        share = smooth(-0.05, 0.05, np.sin(np.pi * (u + v)))
    scratch = smooth(1.8, 2.6, fractal(rng, size, 0.7, stretch=3.0))
    picture = shade(mix(colour, second, share), 0.05 * fractal(rng, size, 1.1))
    return mix(picture, plain(size, (0.7, 0.65, 0.6)), 0.5 * scratch), -0.001 * scratch


def foliage(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """Leaves: overlapping cells with light rims and dark gaps."""
    near, far, owner = cells(rng, size, 9)
    tone = rng.random(81).astype(np.float32)[owner]
    gap = 1.0 - smooth(0.0, 0.25, far - near)
    vein = 0.5 + 0.5 * np.cos(14 * near)
    picture = mix(colour, second, np.clip(tone + 0.2 * vein - 0.1, 0, 1))
    return shade(picture, -0.65 * gap + 0.1 * fractal(rng, size, 0.9)), 0.02 * np.clip(0.6 - near, 0, 1).astype(
        np.float32
    )


def sphere_points(size: int) -> Array:
    """Unit vectors (S, S, 3) of the texels of a map that covers a sphere: u is the longitude, v goes from +z to −z."""
    u, v = grid(size)
    longitude, polar = u * np.float32(2 * np.pi), v * np.float32(np.pi)
    ring = np.sin(polar)
    parts = (ring * np.cos(longitude), ring * np.sin(longitude), np.cos(polar) * np.ones_like(u))
    return np.stack(parts, -1).astype(np.float32)


def ball(rng: np.random.Generator, size: int, colour: Colour, second: Colour) -> Painted:
    """A ball: coloured sectors, bands, patches like a football's, dots or swirls. Covers a sphere once."""
    points = sphere_points(size)
    style = int(rng.integers(5))
    if style == 0:
        sectors = int(rng.choice([3, 4]))
        longitude = np.arctan2(points[..., 1], points[..., 0])
        share = smooth(-0.03, 0.03, np.sin(sectors * longitude) * np.sqrt(1 - points[..., 2] ** 2 + 1e-6))
        share = np.where(np.abs(points[..., 2]) > 0.93, 0.5, share)
    elif style == 1:
        share = smooth(0.24, 0.28, np.abs(points[..., 2])) * (1 - smooth(0.55, 0.59, np.abs(points[..., 2])))
    elif style == 4:
        share = smooth(-0.2, 0.2, np.sin(4.0 * points[..., 2] + 1.6 * waves(rng, points, 16, 1.0, 1.4)))
    else:
        centres = rng.standard_normal((24, 3)).astype(np.float32)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        cosine = np.full(points.shape[:2], -1.0, np.float32)
        following, owner = cosine.copy(), np.zeros(points.shape[:2], np.int32)
        for k, c in enumerate(centres):
            value = points[..., 0] * c[0] + points[..., 1] * c[1] + points[..., 2] * c[2]
            following = np.where(value > cosine, cosine, np.maximum(following, value))
            owner, cosine = np.where(value > cosine, k, owner), np.maximum(cosine, value)
        if style == 2:
            seam = 1.0 - smooth(0.01, 0.05, np.arccos(np.clip(following, -1, 1)) - np.arccos(np.clip(cosine, -1, 1)))
            share = np.maximum((owner % 3 == 0).astype(np.float32), 0.6 * seam)
        else:
            share = smooth(0.93, 0.945, cosine)
    worn = waves(rng, points, 40, 2.0, 0.8)
    return shade(mix(colour, second, share), 0.07 * worn), np.zeros((size, size), np.float32)
