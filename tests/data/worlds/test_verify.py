"""Verdicts: good clips pass with the right numbers, and each way of being wrong is named."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tinyworld.core.errors import UserError
from tinyworld.core.geometry import Cameras, compose, inverse
from tinyworld.data.rooms import make_rooms
from tinyworld.data.worlds import verify_report
from tinyworld.data.worlds.conventions import flipped, inverted
from tinyworld.data.worlds.gather import gather
from tinyworld.data.worlds.judge import judge
from tinyworld.data.worlds.layout import list_worlds
from tinyworld.data.worlds.reprojection import Evidence, measure
from tinyworld.data.worlds.verify import Verdict, verify_worlds
from tinyworld.media.camera_files import read_cameras, write_cameras
from tinyworld.media.depth_files import read_depth
from tinyworld.media.png import write_depth_png
from tinyworld.media.read import read_frames
from tinyworld.media.write import write_video

SIZE = (64, 80)
Corrupt = Callable[[Cameras], Cameras]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rooms of 10 frames; the camera of the second moves most."""
    return make_rooms(tmp_path_factory.mktemp("rooms") / "set", 2, 10, *SIZE, fps=8, workers=1)


@pytest.fixture
def copy(rooms: Path, tmp_path: Path) -> Path:
    """A data set of the second room alone, to be spoiled."""
    folder = tmp_path / "set"
    shutil.copytree(rooms / "sample_001", folder / "sample_001")
    return folder


def one(folder: Path) -> Verdict:
    (verdict,) = verify_worlds(folder)
    return verdict


def spoil_cameras(folder: Path, change: Corrupt) -> None:
    file = folder / "sample_001" / "camera_params.txt"
    write_cameras(file, change(read_cameras(file, *SIZE)), "17")
    shutil.rmtree(folder / "sample_001" / "points", ignore_errors=True)


def spoil_depth(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Depth as float arrays, changed."""
    for file in sorted((folder / "sample_001" / "depth").glob("*.png")):
        np.save(file.with_suffix(".npy"), change(read_depth(file)))
        file.unlink()
    shutil.rmtree(folder / "sample_001" / "points", ignore_errors=True)


def test_rooms_are_ok_with_their_points(rooms: Path) -> None:
    verdicts = verify_worlds(rooms)
    assert [(verdict.id, verdict.verdict) for verdict in verdicts] == [("sample_000", "ok"), ("sample_001", "ok")]
    for verdict in verdicts:
        numbers = verdict.to_dict()
        assert numbers["relative_depth_error"] < 0.01 < numbers["relative_depth_error_without"] * 2
        assert numbers["photometric"] < 0.4 * numbers["photometric_without"]
        assert numbers["points"]["world"] < 1e-3
        assert numbers["scale"] == pytest.approx(1, abs=0.03)
        assert len(numbers["pairs"]) == 6 and numbers["step"] == 4


def of_large_pictures(cameras: Cameras) -> Cameras:
    return Cameras(cameras.extrinsics, cameras.resized(512, 640).intrinsics, cameras.height, cameras.width)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (inverted, "poses are camera-to-world, not world-to-camera"),
        (flipped, "OpenGL's (y up, z backward), not OpenCV's"),
        (lambda c: inverted(flipped(c)), "camera-to-world with OpenGL's axes"),
        (lambda c: c.select(range(len(c.extrinsics) - 1, -1, -1)), "reversed order"),
        (lambda c: c.scaled(0.5), "multiply the translations by 0."),
        (lambda c: c.scaled(2.54), "multiply the translations by 2.5"),
        (lambda c: inverted(c.scaled(1 / 3)), "not world-to-camera (--camera_convention c2w); translations and depth"),
        (of_large_pictures, "intrinsics belong to pictures of about 640x512, the video has 80x64"),
    ],
)
def test_a_wrong_convention_is_named(copy: Path, change: Corrupt, words: str) -> None:
    spoil_cameras(copy, change)
    verdict = one(copy)
    assert verdict.verdict == "bad"
    assert words in verdict.reasons[0]
    suggestion = verdict.to_dict()["suggestion"]
    factor = re.search(r"translations by ([\d.]+)", verdict.reasons[0])
    if factor is not None:
        assert min(abs(float(factor[1]) / true - 1) for true in (1 / 2, 2.54, 1 / 3)) < 0.03
    assert suggestion["relative_depth_error"] < 0.01 and suggestion["photometric"] < 4


def test_swapped_focal_lengths_are_named(copy: Path) -> None:
    """Depth and pictures are squeezed to half their width, so that fx is half of fy, and the two are exchanged."""
    spoil_cameras(copy, lambda cameras: cameras)
    found = gather(list_worlds(copy)[0], 6)
    assert found.evidence is not None and found.cameras is not None
    squeezed = Evidence(
        {k: frame[..., ::2] for k, frame in found.evidence.frames.items()},
        {k: depth[:, ::2].contiguous() for k, depth in found.evidence.depth.items()},
        found.evidence.pairs,
    )
    true = found.cameras.intrinsics / torch.tensor([2.0, 1.0, 2.0, 1.0])
    cameras = Cameras(found.cameras.extrinsics, true[:, [1, 0, 2, 3]], SIZE[0], SIZE[1] // 2)
    found.evidence, found.cameras = squeezed, cameras
    judgement = judge(found)
    assert judgement.verdict == "bad" and "fx and fy are swapped" in judgement.reasons[0]


def test_the_given_convention_mends_inverted_poses(copy: Path) -> None:
    spoil_cameras(copy, inverted)
    (verdict,) = verify_worlds(copy, convention="c2w")
    assert verdict.verdict == "ok"


@pytest.mark.parametrize(
    ("factor", "words"), [(1000.0, "too large by a factor of 1000"), (0.001, "too small by a factor of 1000")]
)
def test_units_of_depth_are_named(copy: Path, factor: float, words: str) -> None:
    spoil_depth(copy, lambda depth: depth * np.float32(factor))
    verdict = one(copy)
    assert verdict.verdict == "bad" and words in verdict.reasons[0]


def rough(depth: np.ndarray) -> np.ndarray:
    """Depth off by several hundredths here and there, as a network predicts it."""
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]] / 9.0
    shift = float(depth.mean()) * 50
    return (depth * (1 + 0.06 * np.sin(rows + shift) * np.cos(columns - shift))).astype(np.float32)


def test_rough_depth_is_a_warning_and_a_wrong_convention_still_named(copy: Path) -> None:
    spoil_depth(copy, rough)
    verdict = one(copy)
    assert verdict.verdict == "warning" and "agree only roughly" in verdict.reasons[0]
    spoil_cameras(copy, inverted)
    verdict = one(copy)
    assert verdict.verdict == "bad" and "camera-to-world" in verdict.reasons[0]
    spoil_cameras(copy, lambda cameras: inverted(cameras).scaled(0.4))
    verdict = one(copy)
    assert verdict.verdict == "bad" and "multiply the translations by 0.4" in verdict.reasons[0]


def test_a_sample_without_depth_is_a_warning(copy: Path) -> None:
    (entry,) = list_worlds(copy)
    found = gather(replace(entry, depth=None, points=None), 6)
    judgement = judge(found)
    assert not found.faults and judgement.verdict == "warning" and "no depth" in judgement.reasons[0]


def test_whole_metres_are_implausible(copy: Path) -> None:
    for file in (copy / "sample_001" / "depth").glob("*.png"):
        write_depth_png(file, np.rint(read_depth(file)) / 1000)
    verdict = one(copy)
    assert verdict.verdict == "bad" and any("whole metres" in reason for reason in verdict.reasons)


def test_mixed_scales_are_named(copy: Path) -> None:
    def mix(cameras: Cameras) -> Cameras:
        """Every other step of the camera's way is four times as long."""
        relative = cameras.relative()
        way = relative.centres()
        steps = (way[1:] - way[:-1]) * torch.tensor([0.4] * 5 + [2.5] * 4).double()[:, None]
        moved = torch.cat([way[:1], steps.cumsum(0)])
        rotation = relative.extrinsics[..., :3]
        return replace(relative, extrinsics=torch.cat([rotation, -rotation @ moved[..., None]], -1))

    spoil_cameras(copy, mix)
    verdict = one(copy)
    assert verdict.verdict == "bad" and "no common scale" in verdict.reasons[0]


def test_a_camera_that_stands_still_is_a_warning(copy: Path) -> None:
    def stand(cameras: Cameras) -> Cameras:
        return replace(cameras, extrinsics=cameras.extrinsics[:1].expand(len(cameras.extrinsics), 3, 4))

    video = copy / "sample_001" / "video.mp4"
    write_video(video, np.repeat(read_frames(video, [0]), 10, axis=0), 8)
    first = read_depth(copy / "sample_001" / "depth" / "000000.png")
    for file in (copy / "sample_001" / "depth").glob("*.png"):
        write_depth_png(file, first)
    spoil_cameras(copy, stand)
    verdict = one(copy)
    assert verdict.verdict == "warning" and "stands still" in verdict.reasons[0]


def test_cameras_of_another_clip_are_bad(rooms: Path, copy: Path) -> None:
    other = read_cameras(rooms / "sample_000" / "camera_params.txt", *SIZE)
    spoil_cameras(copy, lambda cameras: other)
    assert one(copy).verdict == "bad"


def test_points_elsewhere_are_named(copy: Path) -> None:
    cameras = read_cameras(copy / "sample_001" / "camera_params.txt", *SIZE)
    for number, file in enumerate(sorted((copy / "sample_001" / "points").glob("*.npy"))):
        pose = cameras.extrinsics[number].numpy()
        own = np.load(file) @ pose[:, :3].T + pose[:, 3]
        np.save(file, own.astype(np.float32))
    verdict = one(copy)
    assert verdict.verdict == "bad" and "each camera's own coordinates" in verdict.reasons[0]


def test_points_of_another_unit_are_bad(copy: Path) -> None:
    for file in (copy / "sample_001" / "points").glob("*.npy"):
        np.save(file, np.load(file) * np.float32(3))
    verdict = one(copy)
    assert verdict.verdict == "bad" and "points are 3 times as far away" in verdict.reasons[0]


def test_every_fault_of_every_sample_is_told(rooms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("sample_000", "sample_001"):
        shutil.copytree(rooms / name, folder / name)
    (folder / "sample_000" / "camera_params.txt").write_text("")
    (folder / "sample_000" / "depth" / "000003.png").write_bytes(b"no picture")
    first, second = verify_worlds(folder)
    assert first.verdict == "bad" and second.verdict == "ok"
    assert any("camera_params.txt" in reason for reason in first.reasons)
    assert any("depth/000003.png" in reason for reason in first.reasons)
    text = verify_report.table([first, second])
    assert "2 samples: 1 ok, 0 warning, 1 bad" in text and "    bad: " in text


def test_report_and_picture(rooms: Path, tmp_path: Path) -> None:
    verdicts = verify_worlds(rooms, draw=True)
    verify_report.write_numbers(tmp_path / "n.json", verdicts)
    saved: list[dict[str, Any]] = json.loads((tmp_path / "n.json").read_text())
    assert [item["id"] for item in saved] == ["sample_000", "sample_001"]
    assert verify_report.write_picture(tmp_path / "p.png", verdicts) == 2
    with Image.open(tmp_path / "p.png") as picture:
        rows = np.asarray(picture)
    assert rows.shape[0] == 2 * 174 and rows.std() > 20


def test_errors_of_a_plane_are_exact() -> None:
    """A wall 2 m away, seen from 0.5 m nearer: depth fits exactly; without compensation it is off by a third."""
    wall, near = torch.full((20, 30), 2.0), torch.full((20, 30), 1.5)
    ramp = torch.arange(30.0).expand(3, 20, 30) * 8
    moved = torch.eye(3, 4, dtype=torch.float64)
    moved[2, 3] = -0.5
    extrinsics = torch.stack([torch.eye(3, 4, dtype=torch.float64), moved])
    cameras = Cameras(extrinsics, torch.tensor([40.0, 40.0, 14.5, 9.5]).double().expand(2, 4), 20, 30)
    away = (torch.arange(30.0) - 14.5) * 0.75 + 14.5
    nearer = away.expand(3, 20, 30) * 8
    errors = measure(Evidence({0: ramp, 1: nearer}, {0: wall, 1: near}, ((0, 1),)), cameras)
    assert errors.depth == pytest.approx(0, abs=1e-6)
    assert errors.depth_still == pytest.approx(1 / 3, rel=1e-5)
    assert errors.photometric == pytest.approx(0, abs=1e-3)
    assert errors.photometric_still > 5
    back = compose(extrinsics[0], inverse(extrinsics[1]))
    assert float(back[2, 3]) == pytest.approx(0.5)


def test_real_samples_come_out_as_measured_before(shared: Path) -> None:
    """Two of the six; the numbers stand in geometry_check.json, over all pairs where these are over twelve."""
    known = {item["id"]: item for item in json.loads((shared / "data/rgbd/geometry_check.json").read_text())}
    items = json.loads((shared / "data/rgbd/metadata.json").read_text())
    assert len(items) == 6
    for entry in list_worlds(shared / "data/rgbd")[2::3]:
        found = gather(entry, 12)
        assert not found.faults and found.evidence is not None and found.cameras is not None
        errors, reference = measure(found.evidence, found.cameras), known[entry.id]
        assert errors.depth == pytest.approx(reference["median_rel_depth_err"], rel=0.1, abs=1e-4)
        assert errors.depth_still == pytest.approx(reference["rel_depth_err_no_compensation"], rel=0.15)
        assert errors.photometric == pytest.approx(reference["median_photometric_abs_err_0_255"], rel=0.2)
        assert errors.overlap == pytest.approx(reference["median_overlap"], abs=0.03)


def test_broken_samples_are_all_found(shared: Path) -> None:
    root = shared / "data/broken"
    passed = []
    for item in json.loads((root / "EXPECTED.json").read_text()):
        if item["path"].startswith("rgbd/"):
            try:
                if all(verdict.verdict != "bad" for verdict in verify_worlds(root / item["path"])):
                    passed.append(item["path"])
            except UserError as error:
                assert len(str(error)) > 20
    assert passed == ["rgbd/good", "rgbd/depth_one_zero"]
