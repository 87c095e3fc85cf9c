"""Rays meet shapes exactly where the distance to them is zero, from outside, and nowhere before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.shapes import Kind, Placed, Shape, Surface, Thing, clearance, dot, intersect, place, side_of
from tinyworld.data.rooms.sides import _chart


def placed(kind: Kind, seed: int, taper: float = 1.0) -> Placed:
    rng = np.random.default_rng(seed)
    half = rng.uniform(0.1, 0.6, 3)
    if kind == "cylinder":
        half[1] = half[0]
    tilt = rng.uniform(-3, 3, 3)
    shape = Shape(kind, tuple(half), tuple(rng.uniform(-0.3, 0.3, 3)), (Surface(0),), tuple(tilt), taper)
    return place((Thing("thing", (shape,), tuple(rng.uniform(-0.5, 0.5, 3)), float(rng.uniform(0, 6))),), 0.0)[0]


def rays(one: Placed, seed: int) -> tuple[Array, Array]:
    """An origin well outside and 400 directions towards the neighbourhood of a shape."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(3)
    origin = (one.centre + direction / np.linalg.norm(direction) * 3.0).astype(np.float32)
    aim = one.centre[:, None] + rng.uniform(-0.8, 0.8, (3, 400)) - origin[:, None]
    return origin, aim.astype(np.float32)


@settings(max_examples=25)
@given(kind=st.sampled_from(["box", "ball", "cylinder"]), seed=st.integers(0, 10**6), taper=st.floats(0.4, 1.6))
def test_hits_lie_on_the_surface_and_nothing_lies_before_them(kind: Kind, seed: int, taper: float) -> None:
    one = placed(kind, seed, taper if kind == "cylinder" else 1.0)
    origin, directions = rays(one, seed)
    t = intersect(one, origin, directions)
    hit = np.isfinite(t)
    assert hit.any()
    points = origin[:, None] + directions[:, hit] * t[hit]
    assert np.abs(clearance(one, points)).max() < 1e-4  # float32 over a distance of 3, grazing hits included
    for share in (0.3, 0.9, 0.99):
        assert clearance(one, origin[:, None] + directions[:, hit] * (t[hit] * np.float32(share))).min() > 0
    # A ray that misses is outside all along.
    along = np.linspace(0, 2, 200, dtype=np.float32)
    missed = origin[:, None, None] + directions[:, ~hit, None] * along
    if (~hit).any():
        assert clearance(one, missed.reshape(3, -1)).min() > -1e-4


@settings(max_examples=20)
@given(kind=st.sampled_from(["box", "ball", "cylinder"]), seed=st.integers(0, 10**6))
def test_normals_are_unit_vectors_that_face_the_ray_and_point_out(kind: Kind, seed: int) -> None:
    one = placed(kind, seed, 0.7 if kind == "cylinder" else 1.0)
    origin, directions = rays(one, seed)
    t = intersect(one, origin, directions)
    hit = np.isfinite(t)
    points, ways = origin[:, None] + directions[:, hit] * t[hit], directions[:, hit]
    sides = side_of(one, points)
    for part in np.unique(sides):
        chosen = sides == part
        _, _, metres, normal, along_u, along_v = _chart(one, int(part), points[:, chosen], 0.0)
        normal, along_u = np.broadcast_to(normal, (3, chosen.sum())), np.broadcast_to(along_u, (3, chosen.sum()))
        assert metres > 0
        assert np.allclose(dot(normal, normal), 1.0, atol=1e-5)
        assert np.abs(dot(normal, along_u)).max() < 1e-4
        assert dot(normal, ways[:, chosen]).max() < 1e-3
        assert clearance(one, points[:, chosen] + np.float32(0.01) * normal).min() > 0
        assert np.abs(dot(np.asarray(along_u), np.broadcast_to(along_v, along_u.shape))).max() < 1e-4


def test_a_room_is_hit_from_inside_on_the_side_that_the_ray_points_to() -> None:
    room = place((Thing("room", (Shape("room", (2.0, 3.0, 1.25), (0, 0, 1.25), (Surface(0),)),)),), 0.0)[0]
    origin = np.array([0.5, -0.5, 1.0], np.float32)
    axes = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], np.float32).T
    t = intersect(room, origin, axes)
    assert t == pytest.approx([2.5, 1.5, 2.5, 3.5, 1.0, 1.5])
    assert side_of(room, origin[:, None] + axes * t).tolist() == [0, 1, 2, 3, 4, 5]
    assert clearance(room, origin[:, None])[0] == pytest.approx(1.0)
