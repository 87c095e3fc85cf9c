"""The viewer: what it is given is where and what it should be, one file holds all of it, and a browser shows it."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.infer.world.planes import plane_scene
from tests.report.browser import attribute, document, needs_chromium, seen
from tests.report.test_report_page import Page
from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.core.geometry import Cameras
from tinyworld.report import build_report
from tinyworld.report.cloud_figure import box_of, frusta_of, sampled
from tinyworld.report.held_out import MOST_SCENES, held_out_scenes
from tinyworld.report.scene_file import MOST_FRAMES, MOST_PIXELS, read_scene_file, write_scene_file
from tinyworld.report.scene_page import build_scene_page, viewer_data
from tinyworld.report.shown import ShownScene, ShownWorld


def shown(frames: int = 5, height: int = 24, width: int = 32, name: str = "plane") -> ShownScene:
    """A plane, as predicted (a tenth too deep) and as it is. Its pictures are red on the left and green on the right."""
    scene = plane_scene(frames, height, width)
    pictures = np.zeros_like(scene.frames)
    pictures[:, :, : width // 2, 0] = 220
    pictures[:, :, width // 2 :, 1] = 200
    worlds = (
        ShownWorld("predicted", scene.depth * 1.1, None, scene.confidence, scene.cameras),
        ShownWorld("true", scene.depth, scene.points, None, scene.cameras),
    )
    return ShownScene(name, pictures, worlds, 8.0, 2.5, {"prompt": "a </script> & a plane", "seed": 3})


def data(scenes: list[ShownScene], points: int = 1000) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(viewer_data(scenes, points))
    return found


def unpacked(world: dict[str, Any], scene: dict[str, Any]) -> np.ndarray:
    steps = np.frombuffer(base64.b64decode(world["points"]), "<i2").reshape(3, -1)
    return steps.T * scene["step"]


def test_points_lie_where_the_scene_has_them() -> None:
    """Three points of the box give the unit; distances and colours of all follow from it."""
    one = shown()
    world = replace(one.worlds[1], depth=one.worlds[1].depth)
    (scene,) = data([replace(one, worlds=(world,))], 10**6)
    places = unpacked(scene["worlds"][0], scene)
    colours = np.frombuffer(base64.b64decode(scene["worlds"][0]["colours"]["video"]), np.uint8).reshape(-1, 3)
    assert set(map(tuple, colours.tolist())) == {(220, 0, 0), (0, 200, 0)}
    cloud = sampled(world, one.frames, 10**6)
    box = box_of([cloud.places], [frusta_of(world.cameras, 0.1)], 1.0)
    x, y, z = box.placed(np.array([1.0, 2.0, 3.0])) - box.placed(np.zeros(3))
    assert np.allclose(np.array([x, y, z]) * box.unit, [1, 3, -2])  # right, forward, and down is below
    assert len(places) <= cloud.places.shape[0] == one.frames[..., 0].size
    own = [float(edge) / 2 for edge in scene["edges"]]
    assert max(own) == pytest.approx(1, abs=1e-3) and (np.abs(places) <= np.array(own) + 1e-3).all()


def test_a_frustum_meets_the_corners_of_its_picture() -> None:
    cameras = shown().worlds[0].cameras
    frusta = torch.from_numpy(frusta_of(cameras, 2.0))
    assert torch.allclose(frusta[:, 0], cameras.centres())
    ends = torch.einsum("tij,tcj->tci", cameras.extrinsics[..., :3], frusta) + cameras.extrinsics[:, None, :, 3]
    focal, centre = cameras.intrinsics[:, None, :2], cameras.intrinsics[:, None, 2:]
    pixels = ends[:, 1:, :2] / ends[:, 1:, 2:] * focal + centre
    width, height = cameras.width - 0.5, cameras.height - 0.5
    corners = torch.tensor([[-0.5, -0.5], [width, -0.5], [width, height], [-0.5, height]], dtype=torch.float64)
    assert torch.allclose(pixels, corners.expand_as(pixels)) and torch.allclose(
        ends[:, 1:, 2].min(), ends.new_tensor(2.0)
    )


def test_the_first_view_is_from_behind_the_first_camera() -> None:
    (scene,) = data([shown()])
    centre, *corners = np.array(scene["worlds"][0]["frusta"][0])
    forward = np.mean(corners, 0) - centre
    eye, target = (np.array([scene["view"][key][axis] for axis in "xyz"]) for key in ("eye", "center"))
    assert forward @ (centre - eye) > 0 and forward @ (target - centre) > 0
    assert eye[2] > centre[2] and scene["view"]["up"] == {"x": 0, "y": 0, "z": 1}
    top, bottom = corners[0][2], corners[3][2]
    assert top > bottom


def test_unsure_broken_and_too_many_points_are_left_out() -> None:
    one = shown().worlds[0]
    depth = one.depth.copy()
    depth[0, 0, :4] = [0, np.nan, np.inf, 1e30]
    world = replace(one, depth=depth)
    frames = shown().frames
    assert len(sampled(world, frames, 50).places) == 50
    every = sampled(world, frames, 10**6)
    assert np.isfinite(every.places).all() and np.abs(every.places).max() <= 1e6
    assert len(every.places) == pytest.approx(0.9 * depth.size, rel=0.02)
    assert np.array_equal(every.places, sampled(world, frames, 10**6).places)
    empty = replace(world, depth=np.zeros_like(depth))
    (scene,) = data([replace(shown(), worlds=(empty,))])
    assert scene["worlds"][0]["points"] == ""


def test_a_camera_estimated_far_away_does_not_make_the_scene_small() -> None:
    one = shown()
    extrinsics = one.worlds[0].cameras.extrinsics.clone()
    extrinsics[-1, :, 3] = 1e5
    lost = replace(
        one.worlds[0], points=one.worlds[1].points, cameras=replace(one.worlds[0].cameras, extrinsics=extrinsics)
    )
    near, far = (data([replace(one, worlds=(world,))])[0] for world in (one.worlds[1], lost))
    assert np.ptp(unpacked(far["worlds"][0], far), axis=0).max() > 0.5 * np.ptp(unpacked(near["worlds"][0], near)).max()


def test_a_scene_file_keeps_what_is_shown(tmp_path: Path) -> None:
    one = shown(60, 96, 128)
    file = tmp_path / "plane.npz"
    write_scene_file(file, one)
    content = file.read_bytes()
    assert len(content) < 1_000_000
    read = read_scene_file(file)
    step = 3
    assert len(read.frames) == 20 <= MOST_FRAMES and read.fps == pytest.approx(8 / step)
    assert (read.name, read.scale, read.facts) == (one.name, one.scale, one.facts)
    assert np.abs(read.frames[0, 40:50, 10:20].astype(int) - [220, 0, 0]).max() < 12
    for before, after in zip(one.worlds, read.worlds, strict=True):
        stride = round(before.depth.shape[1] / after.depth.shape[1])
        assert after.depth.size <= MOST_PIXELS
        at = (slice(None, None, step), slice(None, None, stride), slice(None, None, stride))
        assert np.allclose(after.depth, before.depth[at], rtol=1e-3)
        assert np.allclose(after.placed()[0], before.placed()[0][at], atol=5e-3)  # strided pixels keep their rays
    write_scene_file(file, one)
    assert file.read_bytes() == content


def test_a_damaged_scene_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "plane.npz"
    write_scene_file(file, shown())
    whole = file.read_bytes()
    np.savez(tmp_path / "other.npz", depth=np.zeros(3))
    for content in (b"", b"text", whole[: len(whole) // 2], (tmp_path / "other.npz").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"plane\.npz"):
            read_scene_file(file)
    with pytest.raises(MissingFileError):
        read_scene_file(tmp_path / "none.npz")


def test_shapes_that_do_not_fit_are_refused() -> None:
    one = shown()
    with pytest.raises(ValueError, match="points"):
        replace(one.worlds[1], points=np.zeros((1, 2, 3, 3)))
    with pytest.raises(ValueError, match="cameras"):
        replace(one.worlds[0], cameras=Cameras(*(torch.zeros(2, 3, 4), torch.ones(2, 4)), 24, 32))
    with pytest.raises(ValueError, match="5 frames"):
        replace(one, worlds=(shown(3).worlds[0],))


def test_the_page_is_one_file_that_needs_no_network(tmp_path: Path) -> None:
    scenes = [shown(), shown(7, name="second")]
    path = build_scene_page(scenes, tmp_path / "view.html", "two & planes")
    page = Page(path)
    loaded = [a[key] for _, a in page.tags for key in ("src", "href", "srcset", "poster") if a.get(key)]
    assert loaded == [] and not page.all("link") and "two & planes" in page.text
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy) and "http" not in str(policy)
    own = [script for script in page.scripts if "plotly.js v" not in script]
    assert not any(re.search(r"https?:|//[a-z]|fetch\(|import\(", script.split("data:image")[0]) for script in own)
    held = json.loads(next(script for script in page.scripts if script.startswith("[{")))
    assert [scene["name"] for scene in held] == ["plane", "second"]
    assert [len(scene["video"]) for scene in held] == [5, 7] == [len(scene["worlds"][0]["depth"]) for scene in held]
    facts = dict(held[0]["facts"])
    assert facts["Prompt"] == "a </script> & a plane" and facts["Scale"] == "2.5 m per unit" and "Points, true" in facts
    assert path.stat().st_size < 6_000_000


def test_the_run_report_shows_held_out_scenes(run_folder: Path) -> None:
    assert held_out_scenes(run_folder) == ([], [])
    assert "Held-out scenes" not in Page(build_report(run_folder)).text
    for number in range(MOST_SCENES + 2):
        write_scene_file(run_folder / "previews" / "step-300" / f"room_{number}.npz", shown(name=f"room_{number}"))
    (run_folder / "previews" / "step-300" / "room_1.npz").write_bytes(b"cut")
    write_scene_file(run_folder / "previews" / "step-200" / "old.npz", shown(name="old"))
    page = Page(build_report(run_folder))
    assert "Held-out scenes" in page.text and "room_1.npz" in page.text
    assert f"{MOST_SCENES} of {MOST_SCENES + 2} scenes are shown" in page.text
    scenes, _ = held_out_scenes(run_folder)
    assert [scene.name for scene in scenes] == ["room_0", "room_2", "room_3", "room_4", "room_5"]
    assert sum("plotly.js v" in script for script in page.scripts) == 1
    assert sum(script.startswith('[{"name"') for script in page.scripts) == 1


@needs_chromium
def test_a_browser_shows_points_and_cameras(tmp_path: Path) -> None:
    page = build_scene_page([shown()], tmp_path / "view.html", "plane").as_uri()
    picture = seen(f"{page}#3", tmp_path).astype(int)
    left = picture[:, : picture.shape[1] * 2 // 3]  # where the points are; the pictures stand on the right
    red, green, blue = left[..., 0], left[..., 1], left[..., 2]
    reds, greens = (red > 190) & (green < 40) & (blue < 40), (green > 170) & (red < 40) & (blue < 40)
    assert reds.sum() > 300 and greens.sum() > 300
    assert np.flatnonzero(reds.any(0)).mean() < np.flatnonzero(greens.any(0)).mean()  # not mirrored
    path = (blue > 150) & (red < 110) & (green < 160)
    assert path.sum() > 100  # the cameras of all frames
    frustum = (red > 190) & (abs(green - 72) < 30) & (blue < 50)
    assert frustum.sum() > 60  # the camera of this frame


@needs_chromium
def test_a_browser_steps_to_the_frame_it_is_asked_for(tmp_path: Path) -> None:
    scene = shown()
    markup = document(build_scene_page([scene], tmp_path / "view.html", "plane").as_uri() + "#3", tmp_path)
    assert attribute(markup, "data-state") == "ready" and attribute(markup, "data-frame") == "2"
    assert int(attribute(markup, "data-points") or 0) > 0.8 * scene.worlds[0].depth.size
    (held,) = data([scene])
    sources = re.findall(r'<img[^>]* src="(data:image/webp[^"]*)"', markup)
    assert sources == [held["video"][2], held["worlds"][0]["depth"][2]]
