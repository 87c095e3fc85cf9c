"""Painters and the filter that reads what they painted."""

import numpy as np
import pytest

from tinyworld.data.rooms.atlas import PAINTERS, Atlas, Texture, paint
from tinyworld.data.rooms.noise import cells, fractal

RED, BLUE = (0.8, 0.2, 0.1), (0.1, 0.2, 0.7)
REPEATING = ("bricks", "tiles", "marble", "terrazzo", "plaster", "wallpaper", "parquet", "weave", "leather", "carpet")


@pytest.mark.parametrize("painter", PAINTERS)
def test_a_painter_gives_colours_in_range_with_detail_and_the_same_again(painter: str) -> None:
    texels = paint(Texture(painter, RED, BLUE, 3), 64)
    assert texels.shape == (64, 64, 5) and texels.dtype == np.float32
    assert np.isfinite(texels).all()
    assert texels[..., :3].min() >= 0 and texels[..., :3].max() <= 1
    assert texels[..., :3].std() > 0.005, "a flat colour is no texture"
    assert np.array_equal(texels, paint(Texture(painter, RED, BLUE, 3), 64))
    assert not np.array_equal(texels, paint(Texture(painter, RED, BLUE, 4), 64))


@pytest.mark.parametrize("painter", REPEATING)
def test_a_repeating_texture_has_no_seam(painter: str) -> None:
    colour = paint(Texture(painter, RED, BLUE, 1), 128)[..., :3]
    for axis in (0, 1):
        inner = np.abs(np.diff(colour, axis=axis)).mean(axis=(axis, 2) if axis == 0 else (1, 2)).mean()
        seam = np.abs(np.take(colour, 0, axis) - np.take(colour, -1, axis)).mean()
        # Joints may fall on the edge of the texture, so a seam may be as strong as the strongest line inside.
        strongest = np.abs(np.diff(colour, axis=axis)).mean(axis=(1 - axis, 2)).max()
        assert seam <= max(3 * inner, 1.2 * strongest)


def test_noise_has_more_power_in_low_frequencies_and_cells_wrap_around() -> None:
    field = fractal(np.random.default_rng(0), 128, slope=1.2)
    assert abs(field.mean()) < 1e-4 and field.std() == pytest.approx(1.0, abs=1e-3)
    spectrum = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128) * 128, np.fft.fftfreq(128) * 128))
    assert (
        spectrum[(frequency > 1) & (frequency < 4)].mean() > 50 * spectrum[(frequency > 20) & (frequency < 40)].mean()
    )
    near, far, owner = cells(np.random.default_rng(0), 64, 5)
    assert (near <= far).all() and owner.max() < 25
    assert np.abs(near[:, 0] - near[:, -1]).max() < 0.15


def test_reading_at_full_detail_returns_texels_and_far_away_their_mean() -> None:
    textures = [Texture("bricks", RED, BLUE, 0), Texture("ball", RED, BLUE, 1, fraction=4)]
    atlas = Atlas(textures, 64)
    assert atlas.sizes.tolist() == [64, 16]
    for number, size in ((0, 64), (1, 16)):
        texels = paint(textures[number], size)
        row, column = np.array([0, 3, size - 1]), np.array([5, 0, size - 1])
        u, v = ((index + 0.5).astype(np.float32) / np.float32(size) for index in (column, row))
        which = np.full(3, number)
        assert np.allclose(atlas.read(which, u, v, np.zeros(3, np.float32)), texels[row, column], atol=1e-5)
        assert np.allclose(atlas.read(which, u + 2, v - 1, np.zeros(3, np.float32)), texels[row, column], atol=1e-4)
        far = atlas.read(which, u, v, np.full(3, 8.0, np.float32))
        assert np.allclose(far, texels.mean(axis=(0, 1)), atol=0.02)
