"""Shadows fall where they should, and corners are darker than open floor."""

import numpy as np
import pytest

from tinyworld.data.rooms.light import Lamp, Lighting, Sun, illuminate, through_windows
from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.occlusion import Casters, Runs, openness, visible
from tinyworld.data.rooms.shapes import Kind, Placed, Shape, Surface, Thing, place
from tinyworld.data.rooms.shell import Wall, Window

SIZE = (6.0, 6.0, 3.0)
LAMP = np.array([0.0, 0.0, 2.8], np.float32)


def room_with(kind: Kind, half: tuple[float, float, float], height: float) -> list[Placed]:
    room = Thing("room", (Shape("room", (3.0, 3.0, 1.5), (0, 0, 1.5), (Surface(0),)),))
    return place((room, Thing("thing", (Shape(kind, half, (0, 0, height), (Surface(0),)),))), 0.0)


def floor(count: int = 121) -> Array:
    """Points along x on the floor, from wall to wall."""
    x = np.linspace(-2.99, 2.99, count, dtype=np.float32)
    return np.stack([x, np.full_like(x, 0.01), np.zeros_like(x)])


def lamp_light(placed: list[Placed], points: Array, spread: float) -> Array:
    towards = LAMP[:, None] - points
    everywhere = np.ones(points.shape[1], bool)
    return visible(Casters(placed), Runs(points), points, towards, everywhere, spread)


@pytest.mark.parametrize("kind", ["box", "ball", "cylinder"])
def test_a_lamp_is_hidden_below_a_thing_and_seen_beside_it(kind: Kind) -> None:
    placed = room_with(kind, (0.3, 0.3, 0.2), 1.4)
    points = floor()
    light = lamp_light(placed, points, 0.05)
    umbra = 0.3 * 2.8 / 1.4  # the shadow of the widest part, twice as far from the lamp
    assert light[np.abs(points[0]) < 0.6 * umbra].max() < 0.05
    assert light[np.abs(points[0]) > 1.6 * umbra].min() > 0.99
    assert (np.diff(light[points[0] > 0]) > -1e-4).all(), "from dark to light without bands"


def test_a_larger_lamp_has_softer_shadows() -> None:
    placed, points = room_with("ball", (0.3, 0.3, 0.3), 1.4), floor(601)
    soft, hard = (
        ((light > 0.05) & (light < 0.95)).sum() for light in (lamp_light(placed, points, s) for s in (0.3, 0.03))
    )
    assert soft > 2 * hard


def test_nothing_is_lost_by_looking_only_at_nearby_shapes() -> None:
    """Runs of neighbouring points against boxes give the same shadows as every point for itself."""
    rng = np.random.default_rng(0)
    shapes = tuple(
        Shape(
            kind,
            tuple(rng.uniform(0.05, 0.4, 3)),
            (*tuple(rng.uniform(-2, 2, 2)), rng.uniform(0.2, 2.0)),
            (Surface(0),),
        )
        for kind in ("box", "ball", "cylinder") * 5
    )
    placed = place((Thing("things", shapes),), 0.0)
    points = np.concatenate([rng.uniform(-2.5, 2.5, (2, 400)), np.zeros((1, 400))]).astype(np.float32)
    together = lamp_light(placed, points, 0.1)
    alone = np.concatenate([lamp_light(placed, points[:, k : k + 1], 0.1) for k in range(400)])
    assert (together < 0.5).any() and np.abs(together - alone).max() < 1e-3


def test_open_floor_is_lighter_than_a_corner_and_than_the_floor_under_a_thing() -> None:
    placed = room_with("box", (0.4, 0.4, 0.1), 0.25)
    points = np.array([[2.0, -2.0, 0], [2.97, 2.97, 0], [0, 0, 0]], np.float32).T
    normals = np.broadcast_to(np.array([[0.0], [0.0], [1.0]], np.float32), (3, 3)).copy()
    light = openness(placed[0], Casters(placed), points, normals, np.zeros(3, int))
    assert light[0] == pytest.approx(1.0) and light[1] < 0.75 and light[2] < 0.8


def test_the_sun_comes_through_the_panes_and_nowhere_else() -> None:
    window = Window(Wall(1, 1), 0.0, 1.5, (0.6, 0.5), (1, 1))
    direction = np.array([0.0, 1.0, 1.0]) / np.sqrt(2)
    sun = Sun(tuple(direction), (1.0, 1.0, 1.0), 0.005)
    lighting = Lighting((0.2, 0.2, 0.2), (0.0, 0.0, 0.0), (), (window,), sun, SIZE)
    # Light falls at 45 degrees: the patch lies as far from the wall as the panes are high.
    points = np.array([[0, 1.3, 0], [0, 1.8, 0], [0.9, 1.5, 0], [0, 0.0, 0], [0, 2.9, 0]], np.float32).T
    assert through_windows(lighting, sun, points) == pytest.approx([1, 1, 0, 0, 0], abs=1e-3)
    away = Sun((0.0, -1.0, 0.0), (1.0, 1.0, 1.0), 0.005)
    assert through_windows(lighting, away, points).max() == 0


def test_light_falls_off_with_distance_and_angle_and_gloss_adds_highlights() -> None:
    placed = room_with("box", (0.1, 0.1, 0.1), 0.1)
    lighting = Lighting((0, 0, 0), (0, 0, 0), (Lamp((2.0, 0.0, 2.5), (1, 1, 1), 0.1),), (), None, SIZE)
    points = np.array([[2, 0, 0], [1, 0, 0], [-1.5, 0, 0]], np.float32).T
    up = np.broadcast_to(np.array([[0.0], [0.0], [1.0]], np.float32), (3, 3)).copy()
    diffuse, highlights = illuminate(
        lighting, placed, points, up, up, up, np.array([0.8, 0, 0], np.float32), np.zeros(3, int)
    )
    assert diffuse[0, 0] > 1.2 * diffuse[0, 1] > 2 * diffuse[0, 2] > 0
    assert highlights[0, 0] > 0.1 and highlights[:, 1:].max() == 0
