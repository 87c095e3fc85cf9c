"""The replay buffer: never over budget, shapes apart, bit-exact after loading."""

import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinyworld.core.errors import ConfigError
from tinyworld.losses.seraena.replay import ReplayBuffer, shape_of

CPU = torch.device("cpu")
SIZES = ((8, 8), (8, 16), (16, 16), (24, 8))


def batch(count: int, height: int, width: int, first: int = 0, group: int = 1) -> tuple[Tensor, Tensor]:
    """Entries that are told apart by the value that fills them: first, first + 1, …"""
    values = torch.arange(first, first + count).view(-1, 1, 1, 1) % 256
    images = values.expand(count, 3 * group, height, width).to(torch.uint8)
    return images, values.expand(count, 2, height // 8, width // 8).half()


def saved(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


def held(buffer: ReplayBuffer) -> int:
    state = buffer.state_dict()
    return sum(tensor.nbytes for tensor in state["images"] + state["contexts"])


def equal(a: ReplayBuffer, b: ReplayBuffer) -> bool:
    first, second = a.state_dict(), b.state_dict()
    pairs = [(first["generator"], second["generator"])]
    for name in ("images", "contexts"):
        assert len(first[name]) == len(second[name])
        pairs += zip(first[name], second[name], strict=True)
    return a.bytes == b.bytes and all(torch.equal(x, y) for x, y in pairs)


@settings(max_examples=60)
@given(
    budget=st.integers(1000, 6000),
    puts=st.lists(st.tuples(st.sampled_from(SIZES), st.integers(1, 6)), max_size=25),
)
def test_budget_is_never_exceeded_and_counted_right(budget: int, puts: list[tuple[tuple[int, int], int]]) -> None:
    buffer = ReplayBuffer(budget, seed=3, device=CPU)
    for (height, width), count in puts:
        images, contexts = batch(count, height, width)
        before = buffer.bytes
        buffer.put(images, contexts)
        assert buffer.bytes == held(buffer) <= budget
        assert buffer.count(shape_of(images, contexts)) >= 1
        largest = 3 * 16 * 16 + 2 * 2 * 2 * 2
        assert buffer.bytes >= min(before, budget - 2 * largest)  # no more is thrown out than the new entry needs


def test_full_buffer_replaces_random_old_entries_by_new_ones() -> None:
    images, contexts = batch(200, 8, 8)
    buffer = ReplayBuffer(20 * (images[0].nbytes + contexts[0].nbytes), seed=0, device=CPU)
    buffer.put(images[:20], contexts[:20])
    assert sorted(buffer.draw(shape_of(images, contexts), 20)[0][:, 0, 0, 0].tolist()) == list(range(20))
    buffer.put(images[20:40], contexts[20:40])
    values = buffer.draw(shape_of(images, contexts), 20)[0][:, 0, 0, 0]
    assert len(set(values.tolist())) == 20
    assert 3 < int((values < 20).sum()) < 17  # about 20 / e are left, not none as in a queue
    buffer.put(images[40:], contexts[40:])
    assert int((buffer.draw(shape_of(images, contexts), 20)[0][:, 0, 0, 0] < 20).sum()) <= 2


def test_images_stay_with_their_context_through_replacement() -> None:
    buffer = ReplayBuffer(5000, seed=1, device=CPU)
    for round_ in range(6):
        for height, width in SIZES:
            buffer.put(*batch(5, height, width, first=20 * round_))
    for height, width in SIZES:
        shape = shape_of(*batch(1, height, width))
        if buffer.count(shape):
            images, contexts = buffer.draw(shape, buffer.count(shape))
            assert torch.equal(images[:, 0, 0, 0].half(), contexts[:, 0, 0, 0])


def test_what_is_put_and_drawn_is_copied() -> None:
    images, contexts = (tensor.contiguous() for tensor in batch(2, 8, 8))
    buffer = ReplayBuffer(10_000, seed=0, device=CPU)
    buffer.put(images, contexts)
    shape = shape_of(images, contexts)
    images.fill_(99)
    buffer.draw(shape, 2)[0].fill_(98)
    assert sorted(buffer.draw(shape, 2)[0][:, 0, 0, 0].tolist()) == [0, 1]
    assert held(buffer) == buffer.bytes


def test_shapes_are_apart() -> None:
    buffer = ReplayBuffer(100_000, seed=0, device=CPU)
    wide, tall = batch(3, 8, 16), batch(2, 16, 8)
    buffer.put(*wide)
    assert buffer.count(shape_of(*wide)) == 3 and buffer.count(shape_of(*tall)) == 0
    with pytest.raises(ValueError, match="holds 0"):
        buffer.draw(shape_of(*tall), 1)
    buffer.put(*tall)
    assert buffer.draw(shape_of(*tall), 2)[0].shape == (2, 3, 16, 8)


def test_entry_larger_than_the_budget_names_key_and_least_value() -> None:
    buffer = ReplayBuffer(2**20, seed=0, device=CPU)
    with pytest.raises(ConfigError, match=r"seraena\.seraena_buffer_mb to at least 2;"):
        buffer.put(*batch(1, 480, 832))


def test_other_number_types_are_refused() -> None:
    images, contexts = batch(1, 8, 8)
    with pytest.raises(ValueError, match="fp16"):
        ReplayBuffer(2**20, seed=0, device=CPU).put(images, contexts.float())


@settings(max_examples=30)
@given(
    puts=st.lists(st.tuples(st.sampled_from(SIZES), st.integers(1, 4)), min_size=2, max_size=24),
    cut=st.integers(0, 24),
)
def test_resumed_buffer_goes_on_bit_for_bit(puts: list[tuple[tuple[int, int], int]], cut: int) -> None:
    straight = ReplayBuffer(2500, seed=5, device=CPU)
    resumed = ReplayBuffer(2500, seed=6, device=CPU)
    for index, ((height, width), count) in enumerate(puts):
        if index == cut:
            resumed.load_state_dict(saved(straight.state_dict()))
        entries = batch(count, height, width, first=7 * index)
        for buffer in (straight, resumed) if index >= cut else (straight,):
            buffer.put(*entries)
            buffer.draw(shape_of(*entries), 1)
    if cut < len(puts):
        assert equal(straight, resumed)
