"""Samples: one set of frame numbers and one region for video, depth, points and cameras; one scale; the same every time."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.core.geometry import Cameras, project, to_camera, world_points
from tinyworld.data.order import Draw, Order
from tinyworld.data.worlds.dataset import WorldDataset, WorldSample
from tinyworld.data.worlds.layout import list_worlds
from tinyworld.data.worlds.scan import WorldRef, scan_worlds
from tinyworld.media.depth_files import read_depth
from tinyworld.media.png import write_depth_png
from tinyworld.media.read import read_frames

BUCKETS = [(24, 24, 5), (32, 16, 3)]
TENSORS = ("frames", "depth", "mask", "points", "extrinsics", "intrinsics")


def cameras(sample: WorldSample) -> Cameras:
    return Cameras(sample.extrinsics, sample.intrinsics, *sample.frames.shape[-2:])


def same(one: WorldSample, other: WorldSample) -> bool:
    rest = [(s.scale, s.usable, s.id, s.start, s.step, s.caption, s.noise_seed, s.faults) for s in (one, other)]
    return rest[0] == rest[1] and all(torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS)


def without_points(worlds: list[WorldRef]) -> list[WorldRef]:
    return [replace(world, point_files=()) for world in worlds]


def draws(dataset: WorldDataset, count: int = 8) -> list[Draw]:
    return [draw for step in range(count) for draw in Order(dataset.bucket_of, 1, seed=4).batch(step)]


def test_shapes_types_and_ranges(worlds: list[WorldRef]) -> None:
    dataset = WorldDataset(worlds, BUCKETS, frame_steps=[1, 2])
    for draw in draws(dataset):
        sample = dataset[draw]
        height, width, frames = BUCKETS[draw.bucket]
        assert sample.frames.shape == (frames, 3, height, width) and sample.frames.dtype == torch.uint8
        assert sample.depth.shape == (frames, height, width) and sample.depth.dtype == torch.float32
        assert sample.mask.shape == (frames, height, width) and sample.mask.dtype == torch.bool
        assert sample.points.shape == (frames, height, width, 3) and sample.points.dtype == torch.float32
        assert sample.extrinsics.shape == (frames, 3, 4) and sample.extrinsics.dtype == torch.float32
        assert sample.intrinsics.shape == (frames, 4) and sample.intrinsics.dtype == torch.float32
        assert torch.equal(sample.extrinsics[0], torch.eye(3, 4))
        assert sample.usable and sample.noise_seed == draw.noise_seed
        assert sample.id == worlds[draw.index].id and sample.caption == worlds[draw.index].entry.caption
        assert sample.start >= 0 and sample.start + (frames - 1) * sample.step < 9


def test_one_number_makes_the_mean_distance_one(worlds: list[WorldRef]) -> None:
    for known in (worlds, without_points(worlds)):
        dataset = WorldDataset(known, [(24, 24, 5)])
        sample = dataset[draws(dataset)[0]]
        distances = sample.points.norm(dim=-1)[sample.mask]
        assert distances.mean().item() == pytest.approx(1, abs=1e-5)
        assert 0.5 < sample.scale < 20  # metres in a room


def test_all_modalities_show_the_same_frames_of_the_same_region(worlds: list[WorldRef]) -> None:
    # The bucket is as high as the video: nothing is resized, and every value can be found in the files.
    dataset = WorldDataset(worlds, [(32, 16, 3)], frame_steps=[2])
    for draw in draws(dataset):
        sample, (cut, step) = dataset[draw], dataset.plan(draw)
        world, (top, left, height, width) = cut.world, cut.region
        numbers = [sample.start + step * n for n in range(3)]
        assert list(cut.numbers) == numbers and (height, width) == (32, 16)
        part = np.s_[top : top + height, left : left + width]
        frames = read_frames(world.entry.video, numbers)[:, part[0], part[1]]
        depth = np.stack([read_depth(world.depth_files[n])[part] for n in numbers])
        points = torch.stack([torch.from_numpy(np.load(world.point_files[n])[part]) for n in numbers]).double()
        first = world.cameras.extrinsics[numbers[0]]
        assert np.array_equal(sample.frames.permute(0, 2, 3, 1).numpy(), frames)
        assert np.allclose(sample.depth.numpy() * sample.scale, depth, rtol=1e-6)
        assert torch.allclose(sample.points.double() * sample.scale, to_camera(points, first), atol=1e-4)
        assert torch.allclose(sample.intrinsics[:, 2], (world.cameras.intrinsics[numbers, 2] - left).float())
        # a camera's centre is the same point, whichever world it is given in
        centres = to_camera(world.cameras.centres()[numbers], first)
        assert torch.allclose(cameras(sample).centres().double() * sample.scale, centres, atol=1e-5)


@pytest.mark.parametrize("bucket", [(24, 24, 5), (16, 24, 5), (40, 24, 5), (30, 50, 5)])
def test_depth_cameras_and_points_agree_after_crop_and_resize(
    bucket: tuple[int, int, int], worlds: list[WorldRef]
) -> None:
    dataset = WorldDataset(worlds, [bucket], frame_steps=[2])
    for draw in draws(dataset, 3):
        sample = dataset[draw]
        error = (world_points(sample.depth, cameras(sample)) - sample.points).norm(dim=-1)
        # a resized pixel's centre lies up to half a pixel of the video, in each direction, beside the one it takes
        focal = worlds[draw.index].cameras.intrinsics[0, :2]
        most = sample.depth * 0.5 * (1 / focal).norm().float() + 2e-3
        assert (error <= most)[sample.mask].all()


def reprojection_error(sample: WorldSample, frame: int) -> Tensor:
    """Relative depth errors of the first frame's points seen by another frame's camera."""
    known = cameras(sample)
    u, v, z = project(to_camera(sample.points[0], sample.extrinsics[frame]), known.intrinsics[frame]).unbind(-1)
    column, row = u.round(), v.round()
    inside = sample.mask[0] & (column >= 0) & (column < known.width) & (row >= 0) & (row < known.height)
    at = row[inside].long(), column[inside].long()
    valid = sample.mask[frame][at]
    return ((z[inside] - sample.depth[frame][at]).abs() / z[inside])[valid]


def test_frames_agree_with_each_other(shared: Path) -> None:
    worlds = scan_worlds(list_worlds(shared / "data/rgbd")).worlds
    dataset = WorldDataset(worlds[:1], [(144, 112, 5)], frame_steps=[4])
    for draw in draws(dataset, 2):
        sample = dataset[draw]
        for frame in (1, 4):
            errors = reprojection_error(sample, frame)
            assert len(errors) > 5000
            assert errors.median() < 0.02
        wrong = replace(sample, intrinsics=sample.intrinsics * torch.tensor([1.5, 1.5, 1, 1]))
        assert reprojection_error(wrong, 4).median() > 2 * reprojection_error(sample, 4).median()


def test_points_from_depth_and_from_files_are_the_same(worlds: list[WorldRef]) -> None:
    with_files, without = (WorldDataset(known, [(32, 16, 5)]) for known in (worlds, without_points(worlds)))
    for draw in draws(with_files, 3):
        one, other = with_files[draw], without[draw]
        assert torch.equal(one.mask, other.mask) and one.scale == pytest.approx(other.scale, rel=1e-3)
        assert torch.allclose(one.points, other.points, atol=2e-3)  # depth files hold whole millimetres


def test_the_same_draw_gives_the_same_sample_whatever_is_kept(worlds: list[WorldRef]) -> None:
    plain, keeping, tight = (
        WorldDataset(worlds, BUCKETS, frame_steps=[1, 2], cache_bytes=size) for size in (0, 10**8, 50_000)
    )
    places = draws(plain)
    for draw in [*places, *places]:
        sample = plain[draw]
        assert same(sample, keeping[draw]) and same(sample, tight[draw])
    assert not same(plain[places[0]], plain[replace(places[0], seed=places[0].seed + 1)])
    assert len({cut.region for cut, _ in map(plain.plan, places)}) > 3


def test_held_out_samples_are_the_middle(worlds: list[WorldRef]) -> None:
    dataset = WorldDataset(worlds, BUCKETS, frame_steps=[2, 1])
    sample = dataset.held_out_sample(worlds[1], 32, 16, 5)
    assert (sample.id, sample.start, sample.step, sample.noise_seed) == ("sample_001", 2, 1, 0)
    assert sample.intrinsics[0, 2].item() == pytest.approx(worlds[1].cameras.intrinsics[0, 2].item() - 16)
    assert same(sample, dataset.held_out_sample(worlds[1], 32, 16, 5))
    with pytest.raises(DataError, match="sample_001: 9 frames, a clip of 10 with step 1"):
        dataset.held_out_sample(worlds[1], 32, 16, 10)


def test_buckets(worlds: list[WorldRef]) -> None:
    buckets = [(32, 48, 9), (48, 32, 5), (64, 96, 3), (65, 20, 2), (16, 16, 10)]
    dataset = WorldDataset(worlds, buckets)
    assert dataset.bucket_of == [(0,)] * 3  # what fills without being enlarged and is long enough
    assert dataset.empty_buckets == buckets[1:]
    assert WorldDataset(worlds, buckets[1:]).bucket_of == [(1,)] * 3  # else the least: two frames would be too large
    assert WorldDataset(worlds, [(16, 16, 5), (32, 32, 5)], frame_steps=[2, 3]).bucket_of == [(0, 1)] * 3


def masked(rooms: Path, target: Path, change: dict[int, float]) -> WorldDataset:
    """One sample, its depth maps multiplied."""
    folder = Path(shutil.copytree(rooms, target))
    files = sorted((folder / "sample_000" / "depth").iterdir())
    for number, factor in change.items():
        write_depth_png(files[number], read_depth(files[number]) * factor)
    return WorldDataset(scan_worlds(list_worlds(folder)).worlds[:1], [(32, 48, 9)])


def test_a_frame_without_depth_is_masked(rooms: Path, tmp_path: Path) -> None:
    dataset = masked(rooms, tmp_path / "copy", {4: 0})
    sample = dataset.held_out_sample(dataset.worlds[0], 32, 48, 9)
    assert sample.usable and not sample.mask[4].any() and sample.mask[3].any()
    assert not sample.depth[4].any() and not sample.points[4].any()
    assert sample.points.norm(dim=-1)[sample.mask].mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("frames", [range(1), range(9)])
def test_without_depth_at_the_start_nothing_is_usable_and_all_is_finite(
    frames: range, rooms: Path, tmp_path: Path
) -> None:
    dataset = masked(rooms, tmp_path / "copy", dict.fromkeys(frames, 0))
    sample = dataset.held_out_sample(dataset.worlds[0], 32, 48, 9)
    assert not sample.usable and not sample.mask[0].any()
    assert all(getattr(sample, name).isfinite().all() for name in TENSORS)
    if len(frames) == 9:
        assert sample.scale == 1 and not sample.depth.any()


def test_far_depth_and_broken_points_are_masked(rooms: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(rooms, tmp_path / "copy"))
    file = folder / "sample_000" / "points" / "000003.npy"
    points = np.load(file)
    points[2, 5, 1] = np.nan
    points[2, 6, 0] = np.inf
    np.save(file, points)
    (world, *_) = scan_worlds(list_worlds(folder)).worlds
    depth = torch.from_numpy(np.stack([read_depth(name) for name in world.depth_files]))
    limit = depth.median().item()
    sample = WorldDataset([world], [(32, 48, 9)], max_depth=limit).held_out_sample(world, 32, 48, 9)
    expected = depth <= limit
    expected[3, 2, 5:7] = False
    assert torch.equal(sample.mask, expected)
    assert not sample.depth[~expected].any() and not sample.points[~expected].any()


@pytest.mark.parametrize(("name", "masked_frames"), [("depth_all_zero", set(range(9))), ("depth_one_zero", {4})])
def test_shared_samples_without_depth(name: str, masked_frames: set[int], shared: Path) -> None:
    (world,) = scan_worlds(list_worlds(shared / "data/broken/rgbd" / name)).worlds
    sample = WorldDataset([world], [(48, 64, 9)]).held_out_sample(world, 48, 64, 9)
    assert {number for number in range(9) if not sample.mask[number].any()} == masked_frames
    assert sample.usable == (0 not in masked_frames)
    assert all(getattr(sample, part).isfinite().all() for part in TENSORS)


def test_what_cannot_be_read_is_replaced_and_told(rooms: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(rooms, tmp_path / "copy"))
    worlds = scan_worlds(list_worlds(folder)).worlds
    for file in (folder / "sample_001" / "depth").iterdir():
        content = bytearray(file.read_bytes())
        content[60:70] = bytes(10)  # damage that a scan does not see
        file.write_bytes(content)
    dataset = WorldDataset(worlds, [(24, 24, 5)])
    broken = next(draw for draw in draws(dataset) if worlds[draw.index].id == "sample_001")
    sample = dataset[broken]
    assert sample.id != "sample_001" and sample.noise_seed == broken.noise_seed
    video = str(folder / "sample_001" / "video.mp4")
    assert {path for path, _ in sample.faults} == {video} and "damaged PNG" in sample.faults[0][1]
    assert same(sample, WorldDataset(worlds, [(24, 24, 5)])[broken])
    dataset.check_faults(dict(sample.faults), 0.05)
    with pytest.raises(DataError, match="damaged PNG"):
        dataset.check_faults(dict(sample.faults), 0)
    with pytest.raises(DataError, match="samples in a row could not be read") as caught:
        WorldDataset(worlds[1:2], [(24, 24, 5)])[replace(broken, index=0)]
    assert caught.value.passing


def test_maps_that_changed_since_the_scan_are_a_fault(rooms: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(rooms, tmp_path / "copy"))
    (world, *_) = scan_worlds(list_worlds(folder)).worlds
    write_depth_png(world.depth_files[4], np.ones((16, 48), np.float32))
    with pytest.raises(DataError, match=r"000004\.png: its size has changed to 16x48"):
        WorldDataset([world], [(24, 24, 5)]).held_out_sample(world, 24, 24, 5)
