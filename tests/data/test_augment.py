"""Colour changes: the numbers that they promise, the same for every frame, nothing when off."""

import colorsys
import random

import pytest
import torch

from tinyworld.data.augment import HUE_SHARE, Colour, draw_colour, recolour

PLAIN = Colour(1.0, 1.0, 1.0, 0.0)


def pixels(*colours: tuple[int, int, int]) -> torch.Tensor:
    """uint8 1 3 1 W"""
    return torch.tensor(colours, dtype=torch.uint8).T[None, :, None, :]


def changed(colour: Colour, *colours: tuple[int, int, int]) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in recolour(pixels(*colours), colour)[0, :, 0].T.tolist()]


def test_values_worked_out_by_hand() -> None:
    sample = (200, 100, 50)
    assert changed(Colour(1.1, 1, 1, 0), sample) == [(220, 110, 55)]
    assert changed(Colour(0.5, 1, 1, 0), sample, (255, 255, 255)) == [(100, 50, 25), (128, 128, 128)]
    # 127.5 + 0.8 (200 - 127.5) = 185.5, which rounds to even; 105.5; 65.5
    assert changed(Colour(1, 0.8, 1, 0), sample) == [(186, 106, 66)]
    # luma 0.299 · 200 + 0.587 · 100 + 0.114 · 50 = 124.2
    assert changed(Colour(1, 1, 0, 0), sample) == [(124, 124, 124)]
    assert changed(Colour(1, 1, 0.5, 0), sample) == [(162, 112, 87)]
    # first brightness: 220 110 55; then contrast: 201.5 113.5 69.5; then saturation around luma 134.8
    assert changed(Colour(1.1, 0.8, 0.5, 0), sample) == [(168, 124, 102)]


def test_values_are_clamped() -> None:
    assert changed(Colour(2, 1, 1, 0), (200, 100, 0)) == [(255, 200, 0)]
    assert changed(Colour(1, 2, 1, 0), (200, 100, 0)) == [(255, 72, 0)]


def test_hue_turns_around_the_luma_axis() -> None:
    assert changed(Colour(1, 1, 1, 0.07), (90, 90, 90)) == [(90, 90, 90)]
    before = pixels((150, 110, 90))
    after = recolour(before, Colour(1, 1, 1, 0.1))
    weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    assert float((after * weights).sum()) == pytest.approx(float((before * weights).sum()), abs=1)
    # a whole turn is none; half a turn negates both colour differences: 2 · luma - value, luma 119.68
    assert changed(Colour(1, 1, 1, 1.0), (150, 110, 90)) == [(150, 110, 90)]
    assert changed(Colour(1, 1, 1, 0.5), (150, 110, 90)) == [(89, 129, 149)]
    hues = [
        colorsys.rgb_to_hsv(*(v / 255 for v in changed(Colour(1, 1, 1, t), (150, 110, 90))[0]))[0] for t in (0, 0.03)
    ]
    assert 0.01 < abs(hues[1] - hues[0]) < 0.06


def test_a_change_of_nothing_changes_nothing() -> None:
    frames = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(recolour(frames, PLAIN), frames)


def test_a_frame_looks_the_same_whatever_the_others_are() -> None:
    frames = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    colour = draw_colour(0.3, random.Random(4))
    assert colour is not None
    whole = recolour(frames, colour)
    assert whole.dtype == torch.uint8 and not torch.equal(whole, frames)
    assert all(torch.equal(recolour(frames[t : t + 1], colour)[0], whole[t]) for t in range(4))


def test_factors_are_drawn_from_their_ranges() -> None:
    rng = random.Random(0)
    drawn = [draw_colour(0.2, rng) for _ in range(500)]
    for name, middle, reach in (("brightness", 1, 0.2), ("contrast", 1, 0.2), ("saturation", 1, 0.2), ("hue", 0, 0.02)):
        values = [getattr(colour, name) - middle for colour in drawn]
        assert -reach <= min(values) < -0.9 * reach and 0.9 * reach < max(values) <= reach
    assert HUE_SHARE == 0.1
    on, off = random.Random(3), random.Random(3)
    assert draw_colour(0.1, on) is not None and draw_colour(0.0, off) is None
    assert on.random() == off.random()
