"""What training clips are in the mean: by hand, of a bounded number of clips, without those that cannot be read."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.infer.world.small import FRAMES, HEIGHT, WIDTH
from tests.tasks.fantasy.conftest import Small
from tinyworld.data.worlds.batch import stack_worlds
from tinyworld.data.worlds.dataset import WorldDataset
from tinyworld.data.worlds.layout import list_worlds
from tinyworld.data.worlds.scan import scan_worlds
from tinyworld.tasks.fantasy import measure
from tinyworld.tasks.fantasy import usual as module
from tinyworld.tasks.fantasy.usual import evenly, usual

SIZE = (HEIGHT, WIDTH, FRAMES)


def dataset_of(folder: Path) -> WorldDataset:
    return WorldDataset(scan_worlds(list_worlds(folder)).worlds, [SIZE])


@pytest.fixture
def rooms(small: Small, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.rooms, tmp_path / "rooms"))


def test_the_map_is_the_mean_of_the_middle_frames(small: Small) -> None:
    dataset = dataset_of(small.rooms)
    samples = [dataset.held_out_sample(world, *SIZE) for world in dataset.worlds]
    found = usual(dataset, dataset.worlds, *SIZE)
    assert found is not None and found.track.shape == (FRAMES, 9)
    middle = torch.stack([sample.depth[FRAMES // 2] for sample in samples]).double()
    valid = torch.stack([sample.mask[FRAMES // 2] for sample in samples])
    expected = (middle * valid).sum(0) / valid.sum(0)
    expected[~valid.any(0)] = middle[valid].mean()
    torch.testing.assert_close(found.depth, expected)


def test_what_is_measured_beside_it(small: Small) -> None:
    dataset = dataset_of(small.rooms)
    batch = stack_worlds([dataset.held_out_sample(world, *SIZE) for world in dataset.worlds])
    found = usual(dataset, dataset.worlds, *SIZE)
    assert found is not None
    columns = measure._geometry_baselines(batch, found)
    expected = [
        ((found.depth - depth.double()).abs() / depth.double())[mask].mean().item()
        for depth, mask in zip(batch.depth, batch.mask, strict=True)
    ]
    assert columns["mean_map_abs_rel"].tolist() == pytest.approx(expected, rel=1e-5)
    assert not any(name.startswith("mean_") for name in measure._geometry_baselines(batch, None))


def test_where_all_clips_are_equal_nothing_is_left(rooms: Path) -> None:
    dataset = dataset_of(rooms)
    first, *others = dataset.worlds[0].depth_files
    for file in others:  # frames too: the map stands for every frame of a clip
        shutil.copy(first, file)
    found = usual(dataset, dataset.worlds[:1] * 3, *SIZE)
    columns = measure._geometry_baselines(stack_worlds([dataset.held_out_sample(dataset.worlds[0], *SIZE)]), found)
    assert columns["mean_map_abs_rel"].item() == pytest.approx(0, abs=1e-5)
    assert columns["mean_map_delta1"].item() == 1 and columns["abs_rel"].item() > 0.05
    assert columns["mean_track_ate"].item() == pytest.approx(0, abs=1e-5)


def test_what_cannot_be_read_is_left_out(rooms: Path) -> None:
    dataset = dataset_of(rooms)
    rest = usual(dataset, dataset.worlds[1:], *SIZE)
    for file in dataset.worlds[0].depth_files:
        Path(file).write_bytes(b"nothing")
    found = usual(dataset, dataset.worlds, *SIZE)
    assert found is not None and rest is not None and torch.equal(found.depth, rest.depth)
    assert usual(dataset, dataset.worlds[:1], *SIZE) is None and usual(dataset, [], *SIZE) is None


def test_the_number_of_clips_is_bounded(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(range(1000))
    chosen = evenly(numbers, 64)  # type: ignore[arg-type,type-var]
    assert len(set(chosen)) == 64 and chosen == sorted(chosen) and chosen[-1] >= 980  # type: ignore[type-var,operator]
    assert evenly(numbers[:3], 64) == numbers[:3]  # type: ignore[arg-type,comparison-overlap]
    dataset = dataset_of(small.rooms)
    monkeypatch.setattr(module, "CLIPS", 2)
    found, two = (usual(dataset, worlds, *SIZE) for worlds in (dataset.worlds, dataset.worlds[::2]))
    assert found is not None and two is not None and torch.equal(found.depth, two.depth)
