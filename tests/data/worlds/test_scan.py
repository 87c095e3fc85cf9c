"""What a scan refuses, and why; what it lets through; whole scenes on either side of the split."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.data.worlds.headers import array_shape
from tinyworld.data.worlds.layout import list_worlds
from tinyworld.data.worlds.scan import WorldRef, WorldReport, scan_worlds
from tinyworld.data.worlds.split import split_worlds


@pytest.fixture
def copy(rooms: Path, tmp_path: Path) -> Path:
    """A copy of the rooms to break."""
    return Path(shutil.copytree(rooms, tmp_path / "copy"))


def reason(folder: Path, sample: str = "sample_001") -> str:
    """Why a sample is refused; the others are not."""
    report = scan_worlds(list_worlds(folder))
    assert [name for name, _ in report.refused] == [sample]
    assert len(report.worlds) == 2
    return report.refused[0][1]


def test_sound_samples_are_taken_as_they_are(rooms: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = scan_worlds(list_worlds(rooms), on_progress=lambda *done: seen.append(done))
    assert (report.refused, report.dropped) == ([], [])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for number, world in enumerate(report.worlds):
        assert (world.id, world.frames, world.height, world.width, world.fps) == (f"sample_00{number}", 9, 32, 48, 24)
        assert world.cameras.extrinsics.shape == (9, 3, 4) and world.cameras.extrinsics.dtype == torch.float64
        assert [file.stem for file in world.depth_files] == [f"{n:06d}" for n in range(9)]
        assert [file.stem for file in world.point_files] == [f"{n:06d}" for n in range(9)]


@pytest.mark.parametrize(
    ("parts", "fault"),
    [(["depth"], "holds 8 depth maps"), (["depth", "points"], "holds 8 point maps, the video has 9")],
)
def test_every_frame_needs_its_own(parts: list[str], fault: str, copy: Path) -> None:
    for part in parts:
        next((copy / "sample_001" / part).glob("000008.*")).unlink()
    assert fault in reason(copy)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [("num_frames", 8, "says 8 frames, the video has 9"), ("width", 96, "says 96x32 pixels .* has 48x32")],
)
def test_what_metadata_says_must_be_true(key: str, value: int, fault: str, copy: Path) -> None:
    items = json.loads((copy / "metadata.json").read_text())
    items[1][key] = value
    (copy / "metadata.json").write_text(json.dumps(items))
    with pytest.raises(DataError, match=fault):
        raise DataError(reason(copy))


@pytest.mark.parametrize("array", [np.zeros((32, 47, 3), np.float32), np.zeros((32, 48), np.float32)])
def test_points_have_the_size_of_the_video(array: np.ndarray, copy: Path) -> None:
    np.save(copy / "sample_001" / "points" / "000004.npy", array)
    assert "000004.npy: points of shape 32x4" in reason(copy)


def test_short_and_small_samples_are_dropped(rooms: Path) -> None:
    entries = list_worlds(rooms)
    assert "too short: 9 frames of the 10" in scan_worlds(entries, n_frames=10).dropped[0][1]
    assert "48x32 pixels" in scan_worlds(entries, height=65, width=48).dropped[2][1]
    assert len(scan_worlds(entries, 9, height=64, width=96).worlds) == 3
    with pytest.raises(DataError, match="none of the 3 samples can be used:\n  sample_000: too short"):
        scan_worlds(entries, n_frames=10).check(0.05)


def test_the_budget_decides(worlds: list[WorldRef]) -> None:
    report = WorldReport(worlds, [("sample_900", "it is broken")])
    report.check(0.05)  # one may always be
    with pytest.raises(DataError, match=r"1 of 4 .*\n  sample_900: it is broken"):
        report.check(0)


def test_matrices_alone_need_a_convention_and_intrinsics(copy: Path, worlds: list[WorldRef]) -> None:
    file = copy / "sample_001" / "camera_params.txt"
    file.write_text("\n".join(" ".join(line.split()[5:]) for line in file.read_text().splitlines()))
    entries = list_worlds(copy)
    with pytest.raises(ConfigError, match="data.camera_convention"):
        scan_worlds(entries)  # the recipe's business, not one sample's
    (first, second, _) = scan_worlds(entries, convention="c2w", intrinsics=(40, 40, 23.5, 15.5)).worlds
    assert not torch.allclose(first.cameras.extrinsics, worlds[0].cameras.extrinsics)
    named = [replace(entry, convention="w2c") for entry in entries]
    report = scan_worlds(named, convention="c2w", intrinsics=(40, 40, 23.5, 15.5))
    assert torch.allclose(report.worlds[1].cameras.extrinsics, worlds[1].cameras.extrinsics, atol=1e-6)
    assert not torch.allclose(second.cameras.extrinsics, worlds[1].cameras.extrinsics)


def test_arrays_by_their_headers(tmp_path: Path) -> None:
    depth = np.ones((4, 6), np.float32)
    np.save(tmp_path / "a.npy", depth)
    np.savez_compressed(tmp_path / "b.npz", depth)
    np.savez(tmp_path / "c.npz", depth=depth, confidence=depth[:2])
    for name in ("a.npy", "b.npz", "c.npz"):
        assert array_shape(tmp_path / name, "depth") == (4, 6)
    np.save(tmp_path / "whole.npy", np.ones((4, 6), np.uint16))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:-30])
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.png").write_text("no picture")
    for name, fault in (
        ("whole.npy", "numbers of type uint16"),
        ("cut.npy", "cut off"),
        ("cut.npz", "not a zip file"),
        ("text.npy", "magic"),
        ("text.png", "not a PNG"),
        ("absent.npy", "cannot be read"),
    ):
        with pytest.raises(DataError, match=fault) as caught:
            array_shape(tmp_path / name, "depth")
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(DataError, match="must hold the array points"):
        array_shape(tmp_path / "c.npz", "points")


FAULTS = {
    "meta_frame_count": "says 81 frames, the video has 9",
    "cam_nan": "line 5", "cam_inf": "line 3", "cam_too_few_lines": "6 frames", "cam_too_many_lines": "camera_params.txt",
    "cam_wrong_columns": "line 4", "cam_not_rotation": "rotation", "cam_reflection": "reflection", "cam_zero_focal": "line 1",
    "cam_index_order": "line 3", "cam_not_numbers": "line 2", "cam_empty": "empty",
    "depth_wrong_size": "depth of shape 240x320, the video is 256x192", "depth_one_wrong_size": "000005.png: depth of shape",
    "depth_8bit": "8 bits, grey", "depth_rgb": "8 bits, RGB", "depth_missing_frame": "frame 3 is missing",
    "depth_truncated_png": "000002.png: a damaged PNG",
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_broken_samples(name: str, shared: Path) -> None:
    report = scan_worlds(list_worlds(shared / "data/broken/rgbd" / name))
    ((sample, why),) = report.refused
    assert sample == "sample_900" and FAULTS[name] in why
    with pytest.raises(DataError, match="sample_900"):
        report.check(0.05)


def test_shared_samples_are_sound(shared: Path) -> None:
    assert len(scan_worlds(list_worlds(shared / "data/rgbd"), n_frames=49).worlds) == 6
    assert len(scan_worlds(list_worlds(shared / "data/broken/rgbd/good"), n_frames=9).worlds) == 1


def test_scenes_are_never_divided(worlds: list[WorldRef]) -> None:
    many = [
        replace(world, entry=replace(world.entry, id=f"{world.id}/{n}", scene=f"{world.id}-{n // 2}"))
        for world in worlds
        for n in range(8)
    ]
    for seed in range(5):
        training, held_out = split_worlds(many, 0.3, seed)
        assert held_out and training
        assert not {world.scene for world in training} & {world.scene for world in held_out}
        assert [world.id for world in many if world in training] == [world.id for world in training]
        fewer, _ = split_worlds(many[::2], 0.3, seed)
        assert {world.scene for world in fewer} <= {world.scene for world in training}
    assert len({world.scene for world in split_worlds(many, 2, 0)[1]}) == 2


def test_a_single_scene_cannot_be_divided(worlds: list[WorldRef]) -> None:
    alike = [replace(world, entry=replace(world.entry, scene="room")) for world in worlds]
    with pytest.raises(DataError, match="3 usable samples show 1 scene: at least 2 are needed"):
        split_worlds(alike, 0.2, 0)
    with pytest.raises(DataError, match="3 of 3 scenes cannot be held out: 1 to 2 can"):
        split_worlds(worlds, 3, 0)
