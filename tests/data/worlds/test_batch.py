"""Batches of samples with geometry: stacking, splitting, moving, and loading by any number of workers."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from tinyworld.core.errors import DataError
from tinyworld.core.geometry import encode_pose, plucker
from tinyworld.data.loader import step_batches
from tinyworld.data.order import Order
from tinyworld.data.worlds.batch import TENSORS, WorldBatch, stack_worlds
from tinyworld.data.worlds.dataset import WorldDataset
from tinyworld.data.worlds.scan import WorldRef


@pytest.fixture
def dataset(worlds: list[WorldRef]) -> WorldDataset:
    return WorldDataset(worlds, [(24, 24, 5), (32, 16, 3)], frame_steps=[1, 2])


@pytest.fixture
def order(dataset: WorldDataset) -> Order:
    return Order(dataset.bucket_of, 4, seed=3)


def same(one: WorldBatch, other: WorldBatch) -> bool:
    rest = [[getattr(batch, item.name) for item in fields(batch) if item.name not in TENSORS] for batch in (one, other)]
    return rest[0] == rest[1] and all(torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS)


def test_batches_are_those_of_the_order(dataset: WorldDataset, order: Order) -> None:
    for step, (batch,) in enumerate(step_batches(dataset, stack_worlds, order, 3, 6), start=3):
        samples = [dataset[draw] for draw in order.batch(step)]
        assert same(batch, stack_worlds(samples))
        for name in TENSORS:
            assert len(getattr(batch, name)) == 4
        assert torch.equal(batch.points[2], samples[2].points)
        assert batch.scale.dtype == torch.float32 and batch.usable.dtype == torch.bool
        assert (batch.ids, batch.captions) == ([s.id for s in samples], [s.caption for s in samples])
        assert len(set(batch.draws)) == 4


def test_neither_workers_nor_the_start_change_anything(dataset: WorldDataset, order: Order) -> None:
    straight = list(step_batches(dataset, stack_worlds, order, 0, 4, micro_batches=2))
    for start, workers in ((0, 2), (2, 1)):
        loaded = step_batches(dataset, stack_worlds, order, start, 4, micro_batches=2, num_workers=workers)
        for parts, others in zip(loaded, straight[start:], strict=True):
            assert all(same(one, other) for one, other in zip(parts, others, strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_readable_is_one_clear_error(num_workers: int, worlds: list[WorldRef]) -> None:
    gone = replace(worlds[0], entry=replace(worlds[0].entry, video=Path("/nowhere/video.mp4")))
    dataset = WorldDataset([gone], [(24, 24, 5)])
    with pytest.raises(DataError, match="samples in a row could not be read"):
        next(step_batches(dataset, stack_worlds, Order(dataset.bucket_of, 2, 0), 0, 4, num_workers=num_workers))


def test_splitting_keeps_every_sample(dataset: WorldDataset, order: Order) -> None:
    batch = replace(stack_worlds([dataset[draw] for draw in order.batch(0)]), faults=[("video", "reason")])
    for parts, sizes in ((1, [4]), (2, [2, 2]), (3, [2, 2]), (4, [1, 1, 1, 1]), (9, [1, 1, 1, 1])):
        pieces = batch.split(parts)
        assert [len(piece.ids) for piece in pieces] == sizes
        assert [piece.faults for piece in pieces] == [batch.faults] + [[]] * (len(sizes) - 1)
        assert [draw for piece in pieces for draw in piece.draws] == batch.draws
        assert [caption for piece in pieces for caption in piece.captions] == batch.captions
        for name in TENSORS:
            assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(batch, name))


def test_moving_keeps_the_names(dataset: WorldDataset, order: Order) -> None:
    batch = stack_worlds([dataset[draw] for draw in order.batch(0)])
    moved = batch.to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in TENSORS)
    assert (moved.draws, moved.captions, moved.faults) == (batch.draws, batch.captions, batch.faults)
    if torch.cuda.is_available():
        assert batch.pin_memory().points.is_pinned()


def test_cameras_are_those_of_the_pictures(dataset: WorldDataset, order: Order) -> None:
    batch = stack_worlds([dataset[draw] for draw in order.batch(0)])
    frames, _, height, width = batch.frames.shape[1:]
    assert (batch.cameras.height, batch.cameras.width) == (height, width)
    assert plucker(batch.cameras).shape == (4, 6, frames, height, width)
    pose = encode_pose(batch.cameras)
    assert torch.allclose(pose[:, 0, :7], torch.tensor([0.0, 0, 0, 0, 0, 0, 1]).expand(4, 7))
