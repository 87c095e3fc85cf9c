"""Things and cameras move smoothly, for ever, and with proper rotations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyworld.data.rooms.camera import SENTENCES, CameraPath, PathKind
from tinyworld.data.rooms.motion import Motion, MotionKind, rotation_about
from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.scene import build_scene
from tinyworld.data.rooms.shapes import clearance, place

MOTIONS = ("roll", "bounce", "slide", "turn", "swing", "circle", "float")


def assert_proper(rotation: Array) -> None:
    assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-9
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=30)
@given(kind=st.sampled_from(MOTIONS), time=st.floats(0, 30), phase=st.floats(0, 1))
def test_a_motion_repeats_and_has_no_jumps(kind: MotionKind, time: float, phase: float) -> None:
    reach = (0.6, 0.3, 0.5) if kind in ("bounce", "float", "swing") else (0.6, 0.3, 0.0)
    motion = Motion(kind, 4.0, phase, reach, angle=6.2832 if kind == "turn" else 0.3, radius=0.2)
    rotation, shift = motion.pose(time)
    assert_proper(rotation)
    later, there = motion.pose(time + 4.0)
    assert np.allclose(shift, there, atol=1e-6) and np.allclose(rotation, later, atol=1e-4)
    _, soon = motion.pose(time + 1e-3)
    assert np.linalg.norm(soon - shift) < 5e-3


def test_a_ball_rolls_without_slipping() -> None:
    motion = Motion("roll", 4.0, 0.1, (0.8, -0.4, 0.0), radius=0.25)
    step = 1e-4
    (before, start), (after, end) = motion.pose(0.2), motion.pose(0.2 + step)
    contact = before.T @ np.array([0.0, 0.0, -0.25])  # the ball's own point that touches the floor now
    moved = (end + after @ contact) - (start + before @ contact)
    assert np.linalg.norm(end - start) / step > 0.5
    assert np.linalg.norm(moved) < 1e-3 * np.linalg.norm(end - start)


def test_rotation_about_an_axis_follows_the_right_hand() -> None:
    assert np.allclose(rotation_about((0, 0, 2.0), np.pi / 2) @ [1, 0, 0], [0, 1, 0])


def path(kind: PathKind, shake: float = 0.5) -> CameraPath:
    waves = tuple(np.random.default_rng(1).uniform(0, 6, 12).tolist())
    return CameraPath(kind, (1.0, -2.0, 1.4), (0.2, 1.0, 0.7), 0.6, 7.0, -0.8, 1.1, shake, waves)


@pytest.mark.parametrize("kind", SENTENCES)
def test_every_path_turns_and_moves_smoothly_with_opencv_axes(kind: PathKind) -> None:
    camera = path(kind)
    poses = [camera.pose(frame / 24) for frame in range(49)]
    for rotation, _ in poses:
        assert_proper(rotation)
        assert rotation[1, 2] < -0.5, "y points down: against the room's z"
    eyes = np.stack([eye for _, eye in poses])
    turns = [np.arccos(np.clip((np.trace(b @ a.T) - 1) / 2, -1, 1)) for (a, _), (b, _) in itertools.pairwise(poses)]
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert np.linalg.norm(eyes.max(0) - eyes.min(0)) > 0.15 and np.sum(turns) > 0.05
    assert steps.max() < 0.08 and max(turns) < 0.05
    assert np.linalg.norm(np.diff(eyes, 2, axis=0), axis=1).max() < 0.01


def test_without_shake_the_camera_looks_at_its_target() -> None:
    camera = path("orbit", shake=0.0)
    rotation, eye = camera.pose(0.9)
    x, y, z = rotation @ (np.array(camera.target) - eye)
    assert abs(x) < 1e-9 and abs(y) < 1e-9 and z > 1


def test_the_field_of_view_is_that_of_the_shorter_side_between_pixel_edges() -> None:
    view = path("pan").view(0.0, 96, 160)
    assert (view.cx, view.cy) == (79.5, 47.5) and view.fx == view.fy
    assert 2 * np.arctan(48 / view.fy) == pytest.approx(1.1)


@pytest.mark.parametrize("index", range(8))
def test_the_camera_of_a_scene_keeps_clear_of_everything_that_it_meets(index: int) -> None:
    scene = build_scene(5, index)
    for time in np.arange(0, 4, 0.25):
        _, eye = scene.camera.pose(float(time))
        point = eye.astype(np.float32)[:, None]
        placed = place(scene.things, float(time))
        assert min(float(clearance(one, point)[0]) for one in placed) > 0.2
