"""A rendered frame: depth, colour, and how they hang together over time."""

import numpy as np
import pytest

from tinyworld.data.rooms import Frame, Renderer, Scene, build_scene
from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.sample import world_points, world_to_camera
from tinyworld.data.rooms.shapes import clearance, place
from tinyworld.data.rooms.trace import SIDES

HEIGHT, WIDTH = 72, 96


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [build_scene(0, index) for index in range(3)]


@pytest.fixture(scope="module")
def clips(scenes: list[Scene]) -> list[list[Frame]]:
    """Three scenes at 0, 0.25 and 0.5 seconds."""
    clips = []
    for scene in scenes:
        renderer = Renderer(scene, 128)
        clips.append([renderer.frame(time, HEIGHT, WIDTH) for time in (0.0, 0.25, 0.5)])
    return clips


def test_depth_is_finite_positive_and_exact(scenes: list[Scene], clips: list[list[Frame]]) -> None:
    for scene, frames in zip(scenes, clips, strict=True):
        for time, frame in zip((0.0, 0.25, 0.5), frames, strict=True):
            assert frame.depth.dtype == np.float32 and np.isfinite(frame.depth).all() and frame.depth.min() > 0.1
            assert frame.identity.min() >= 0
            room = frame.view.rotation.T, frame.view.origin
            camera = world_points(frame.depth, frame.view, np.eye(3), np.zeros(3)).reshape(-1, 3).astype(np.float64)
            points = (camera @ room[0].T + room[1]).T.astype(np.float32)
            placed = place(scene.things, time)
            away = np.stack([clearance(one, points) for one in placed])
            owner = frame.identity.ravel() // SIDES
            assert np.abs(away[owner, np.arange(points.shape[1])]).max() < 1e-4, (
                "a point lies on the shape that is seen"
            )
            assert away.min() > -1e-4, "and never inside another one"


def test_pictures_are_rich_but_neither_black_nor_burnt_out(clips: list[list[Frame]]) -> None:
    for frames in clips:
        picture = frames[0].colour.astype(float) / 255
        assert picture.shape == (HEIGHT, WIDTH, 3) and frames[0].colour.dtype == np.uint8
        assert 0.25 < picture.mean() < 0.7
        mean_colour_psnr = -10 * np.log10(((picture - picture.mean((0, 1))) ** 2).mean())
        assert 9 < mean_colour_psnr < 19
        assert (picture.max(-1) < 0.02).mean() < 0.05 and (picture.min(-1) > 0.99).mean() < 0.05
        detail = np.abs(np.diff(picture, axis=1)).mean(-1)
        assert (detail > 0.01).mean() > 0.3, "most of the picture has texture"


def unproject(frame: Frame, first: Frame) -> Array:
    return (
        world_points(frame.depth, frame.view, *world_to_camera(first.view, frame.view))
        .reshape(-1, 3)
        .astype(np.float64)
    )


def warp(source: Frame, target: Frame, first: Frame) -> tuple[Array, Array]:
    """The colours of `source` where the pixels of `target` were then, and which of them were in view and stand still."""
    points = unproject(target, first)
    rotation, translation = world_to_camera(first.view, source.view)
    x, y, z = rotation @ points.T + translation[:, None]
    u, v = x / z * source.view.fx + source.view.cx, y / z * source.view.fy + source.view.cy
    inside = (z > 0) & (u > 0) & (u < WIDTH - 1.001) & (v > 0) & (v < HEIGHT - 1.001)
    u, v = np.where(inside, u, 1.0), np.where(inside, v, 1.0)
    column, row = u.astype(int), v.astype(int)
    a, b = (u - column)[:, None], (v - row)[:, None]
    picture = source.colour.astype(np.float64)
    upper = picture[row, column] * (1 - a) + picture[row, column + 1] * a
    lower = picture[row + 1, column] * (1 - a) + picture[row + 1, column + 1] * a
    near_depth = source.depth[np.rint(v).astype(int), np.rint(u).astype(int)]
    seen = inside & (np.abs(near_depth - z) < 0.03 * z) & ~target.moving.ravel()
    seen &= ~source.moving[np.rint(v).astype(int), np.rint(u).astype(int)]
    return upper * (1 - b) + lower * b, seen


def test_depth_and_cameras_carry_one_frame_into_the_next(clips: list[list[Frame]]) -> None:
    for frames in clips:
        for earlier, later in ((frames[0], frames[1]), (frames[2], frames[1])):
            carried, seen = warp(earlier, later, frames[0])
            assert seen.mean() > 0.4
            truth, still = later.colour.reshape(-1, 3).astype(float), earlier.colour.reshape(-1, 3).astype(float)
            warped, unwarped = np.abs(carried - truth)[seen].mean(), np.abs(still - truth)[seen].mean()
            assert unwarped > 8, "the camera moves"
            assert warped < 0.4 * unwarped


def test_the_moving_things_are_marked_and_do_move(scenes: list[Scene], clips: list[list[Frame]]) -> None:
    assert any(frame.moving.any() for frames in clips for frame in frames)
    for scene in scenes:
        moving = [thing for thing in scene.things if thing.motion is not None]
        assert moving
        before, after = place(scene.things, 0.0), place(scene.things, 0.5)
        for one, two in zip(before, after, strict=True):
            stands = scene.things[one.thing].motion is None
            assert stands == (
                np.array_equal(one.centre, two.centre) and np.array_equal(one.rotation, two.rotation)
            ) or (
                one.shape.kind == "cylinder"  # upright ones that turn about themselves
            )


def test_a_larger_picture_shows_the_same(scenes: list[Scene]) -> None:
    renderer = Renderer(scenes[0], 128)
    small, large = renderer.frame(0.4, 48, 64), renderer.frame(0.4, 96, 128)
    assert np.isclose(np.median(small.depth), np.median(large.depth), rtol=0.02)
    halved = large.colour.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small.colour).mean() < 5


def test_scenes_are_a_function_of_seed_and_index(scenes: list[Scene]) -> None:
    assert build_scene(0, 1) == scenes[1]
    assert len({scene.caption for scene in scenes} | {build_scene(1, 0).caption}) == 4
    kinds = {build_scene(2, index).camera.kind for index in range(12)}
    assert len(kinds) >= 4
