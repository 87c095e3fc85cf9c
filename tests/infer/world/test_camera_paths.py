"""Camera paths: true rotations, the directions that words mean, files as they are, and slips told with the grammar."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyworld.core.errors import ConfigError, DataError, MissingFileError
from tinyworld.core.geometry import Cameras, inverse, project, rotation_angle, to_camera
from tinyworld.infer.world.camera_paths import NAMES, cameras_for, named_path, path_of_text, resampled
from tinyworld.infer.world.camera_text import GRAMMAR, MOVES, TURNS, Segment, parse_path
from tinyworld.media.camera_files import Form, write_cameras

H, W = 48, 80
TEXTS = (
    "forward 0.5 right 20deg",
    "up 0.2 pan_left 15deg then forward 1",
    "tilt_up 40deg, right 70deg roll 30deg, back 1",
)
AHEAD = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def looks(cameras: Cameras) -> torch.Tensor:
    """T 3: where the cameras look, in the world."""
    return inverse(cameras.extrinsics)[:, :, 2]


def down(cameras: Cameras) -> torch.Tensor:
    return inverse(cameras.extrinsics)[:, :, 1]


def close(actual: torch.Tensor, expected: list[float], tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=0)


@pytest.mark.parametrize("text", [*NAMES, *TEXTS])
def test_rotations_are_rotations_and_the_start_is_the_identity(text: str) -> None:
    cameras = cameras_for(text, 21, H, W)
    rotations = cameras.extrinsics[..., :3]
    assert rotations.dtype == torch.float64 and cameras.extrinsics.shape == (21, 3, 4)
    identity = torch.eye(3, dtype=torch.float64)
    assert (rotations.transpose(-1, -2) @ rotations - identity).abs().max() < 1e-9
    assert (torch.linalg.det(rotations) - 1).abs().max() < 1e-9
    assert torch.equal(cameras.extrinsics[0], torch.eye(3, 4, dtype=torch.float64))
    assert not torch.equal(cameras.extrinsics[1], cameras.extrinsics[2])


@given(st.lists(st.tuples(*[st.floats(-400, 400)] * 6), min_size=1, max_size=3), st.integers(1, 9))
@settings(max_examples=25)
def test_any_words_give_rotations(parts: list[tuple[float, ...]], frames: int) -> None:
    text = " then ".join(
        f"right {x / 9:.4f} up {y / 9:.4f} forward {z / 9:.4f} pan_right {p:.4f}deg tilt_down {t:.4f}deg roll {r:.4f}deg"
        for x, y, z, p, t, r in parts
    )
    rotations = path_of_text(text, frames, H, W).extrinsics[..., :3]
    assert (rotations.transpose(-1, -2) @ rotations - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-9
    assert (torch.linalg.det(rotations) - 1).abs().max() < 1e-9


@pytest.mark.parametrize("text", ["dolly:1", "orbit:90deg", "forward 1 right 50deg"])
def test_paths_begin_and_end_at_rest(text: str) -> None:
    centres = cameras_for(text, 101, H, W).centres()
    steps = (centres[1:] - centres[:-1]).norm(dim=-1)
    assert steps[0] < steps[50] / 20 and steps[-1] < steps[50] / 20
    assert (steps[1:] - steps[:-1]).abs().max() < steps.max() / 10  # no jerk anywhere


def test_words_mean_what_they_say() -> None:
    """OpenCV axes: x right, y down, z forward."""
    for word, place in (("forward", [0, 0, 1]), ("left", [-1, 0, 0]), ("up", [0, -1, 0]), ("down", [0, 1, 0])):
        close(cameras_for(f"{word} 1", 3, H, W).centres()[-1], place)
    sine, cosine = math.sin(math.radians(20)), math.cos(math.radians(20))
    for word, look in (("right", [sine, 0, cosine]), ("pan_left", [-sine, 0, cosine]), ("up", [0, -sine, cosine])):
        close(looks(cameras_for(f"{word} 20deg", 3, H, W))[-1], look)
    close(down(cameras_for("roll 20deg", 3, H, W))[-1], [-sine, cosine, 0])
    assert torch.equal(cameras_for("forward -1", 3, H, W).extrinsics, cameras_for("back 1", 3, H, W).extrinsics)


def test_segments_follow_each_other_in_the_cameras_own_axes() -> None:
    cameras = cameras_for("right 90deg then forward 2, up 1", 31, H, W)
    close(cameras.centres()[10], [0, 0, 0])
    close(looks(cameras)[10], [1, 0, 0])
    close(cameras.centres()[20], [2, 0, 0])
    close(cameras.centres()[-1], [2, -1, 0])


def test_a_pan_after_a_tilt_keeps_the_horizon_level() -> None:
    cameras = cameras_for("tilt_up 30deg then pan_right 80deg", 11, H, W)
    right = inverse(cameras.extrinsics)[:, :, 0]
    assert right[:, 1].abs().max() < 1e-12


@pytest.mark.parametrize("text", ["orbit:360deg", "orbit:-40deg", "spiral:0.4", "spiral:-0.2"])
def test_orbit_and_spiral_look_at_the_point_ahead(text: str) -> None:
    cameras = cameras_for(text, 41, H, W)
    seen = project(to_camera(AHEAD.expand(41, 1, 3), cameras.extrinsics), cameras.intrinsics)[:, 0]
    close(seen[:, :2] - torch.tensor([(W - 1) / 2, (H - 1) / 2], dtype=torch.float64), [[0, 0]] * 41, 1e-9)
    if text.startswith("orbit"):
        close(seen[:, 2], [1.0] * 41)
        assert (looks(cameras)[20, 0] < 0) == (cameras.centres()[20, 0] > 0)
    assert (rotation_angle(cameras.extrinsics[:-1, :, :3], cameras.extrinsics[1:, :, :3]) < 0.5).all()


def test_named_paths_are_the_words_they_stand_for() -> None:
    pairs = (
        ("dolly", "forward 0.5"),
        ("truck:1", "right 1"),
        ("crane", "up 0.3"),
        ("pan", "right 30deg"),
        ("tilt:9 deg", "up 9°"),
    )
    for name, words in pairs:
        assert torch.equal(cameras_for(name, 7, H, W).extrinsics, cameras_for(words, 7, H, W).extrinsics)
    assert torch.equal(named_path("pan", 5, H, W, amount=12).extrinsics, cameras_for("pan 12deg", 5, H, W).extrinsics)


def test_the_field_of_view_is_that_of_the_longer_side() -> None:
    for height, width in ((48, 80), (80, 48)):
        fx, fy, cx, cy = cameras_for("pan", 2, height, width, fov_degrees=70).intrinsics[0].tolist()
        assert fx == fy
        assert 2 * math.degrees(math.atan(40 / fx)) == pytest.approx(70, abs=1e-9)
        assert (cx, cy) == ((width - 1) / 2, (height - 1) / 2)
    with pytest.raises(ConfigError, match="fov_degrees is 170"):
        cameras_for("pan", 2, H, W, fov_degrees=170)


def test_grammar_is_read_in_full() -> None:
    segments = parse_path("UP 0.2 pan_left 15 deg THEN forward 1,roll -3.5deg")
    assert segments == [
        Segment((0, -0.2, 0), (-15, 0, 0)),
        Segment((0, 0, 1), (0, 0, 0)),
        Segment((0, 0, 0), (0, 0, -3.5)),
    ]
    assert all(word in GRAMMAR for word in [*MOVES, *TURNS])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("orbitt", ('"orbit"', "dolly:0.5")),
        ("orbitt:30deg", ('"orbit"',)),
        ("forwrd 1", ("forwrd", '"forward"?')),
        ("forward 1 rihgt 3deg", ("rihgt", '"right"?')),
        ("forward", ("nothing",)),
        ("forward 1m", ("'1m'",)),
        ("forward 1e9", ("'1e9'",)),
        ("forward 1000", ("'1000'", "up to 100")),
        ("forward 1deg", ("forward needs a length",)),
        ("roll 3", ("roll 3deg",)),
        ("forward nan", ("'nan'",)),
        ("then forward 1", ('"then"',)),
        ("forward 1,, up 1", ("comma",)),
        ("", ("no path",)),
        ("\0", ("no path",)),
        ("x" * 5000, ("no path",)),
    ],
)
def test_slips_are_told_with_the_grammar(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        cameras_for(text, 5, H, W)
    message = str(caught.value)
    assert "\n" not in message and GRAMMAR in message and len(message) < 1200
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["orbit:30", "dolly:3deg", "orbit then forward 1", "pan:", "pan:nan"])
def test_amounts_of_names_have_their_unit(text: str) -> None:
    if text == "pan:":
        with pytest.raises(ConfigError):
            cameras_for(text, 5, H, W)
        return
    with pytest.raises(ConfigError, match=r"write, for instance, \w+:[0-9.]+(deg)?\."):
        cameras_for(text, 5, H, W)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="radius"):
        cameras_for("spiral:0.5", 5, H, W)
    with pytest.raises(ConfigError, match="finite"):
        named_path("pan", 5, H, W, amount=math.nan)
    with pytest.raises(ConfigError, match="0 frames"):
        cameras_for("pan", 0, H, W)
    with pytest.raises(ConfigError, match=r'Did you mean "pan"\?'):
        named_path("pann", 5, H, W)
    assert torch.equal(cameras_for("orbit", 1, H, W).extrinsics[0], torch.eye(3, 4, dtype=torch.float64))


@pytest.mark.parametrize("form", ["17", "re10k", "12", "16", "json"])
def test_files_of_every_form(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "cameras.txt"
    wanted = cameras_for(TEXTS[0], 9, H, W)
    write_cameras(path, wanted, form, "c2w")
    middle = (*wanted.intrinsics[0, :2].tolist(), (W - 1) / 2, (H - 1) / 2)
    read = cameras_for(str(path), 9, H, W, convention="c2w", intrinsics=middle)
    torch.testing.assert_close(read.extrinsics, wanted.extrinsics, atol=1e-9, rtol=0)
    torch.testing.assert_close(read.intrinsics, wanted.intrinsics, atol=1e-9, rtol=0)


def test_a_file_begins_at_the_identity_whatever_its_world(tmp_path: Path) -> None:
    moved = cameras_for(TEXTS[1], 12, H, W).select(range(4, 12))
    write_cameras(tmp_path / "cameras.txt", moved, "17")
    read = cameras_for(tmp_path / "cameras.txt", 8, H, W)
    assert torch.equal(read.extrinsics[0], torch.eye(3, 4, dtype=torch.float64))
    torch.testing.assert_close(read.extrinsics, moved.relative().extrinsics, atol=1e-12, rtol=0)


def test_another_number_of_frames_is_refused_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "cameras.txt"
    write_cameras(path, cameras_for("orbit:90deg", 9, H, W), "17")
    with pytest.raises(DataError, match=r"9 frames for a video of 17\. Ask for 9 frames, or set resample"):
        cameras_for(path, 17, H, W)
    read = cameras_for(path, 17, H, W, resample=True)
    torch.testing.assert_close(read.extrinsics[::2], cameras_for(path, 9, H, W).extrinsics, atol=1e-12, rtol=0)
    with pytest.raises(MissingFileError):
        cameras_for(str(tmp_path / "absent.txt"), 17, H, W)


def test_resampling_turns_evenly() -> None:
    ends = cameras_for("right 120deg forward 3", 2, H, W)
    between = resampled(ends, 7)
    angles = rotation_angle(between.extrinsics[:1, :, :3], between.extrinsics[:, :, :3]).rad2deg()
    close(angles, [0, 20, 40, 60, 80, 100, 120], 1e-9)
    close(between.centres()[:, 2], [0, 0.5, 1, 1.5, 2, 2.5, 3])
    tiny = resampled(cameras_for("right 0.0000001deg", 2, H, W), 3)
    assert torch.isfinite(tiny.extrinsics).all()
    assert len(resampled(ends.select([0]), 4).extrinsics) == 4
    close(resampled(cameras_for("dolly", 5, H, W), 1).centres(), [[0, 0, 0]])


def test_text_never_opens_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cameras.txt"
    write_cameras(path, cameras_for("orbit", 5, H, W), "17")
    with pytest.raises(ConfigError):
        path_of_text(str(path), 5, H, W)
