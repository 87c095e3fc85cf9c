"""The order of samples: pure, fair, whole batches of one bucket, the same for every number of processes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.core.errors import DataError
from tinyworld.core.rng import derive_seed
from tinyworld.data.order import Draw, Order

SEEDS = st.integers(0, 2**63 - 1)
BUCKETS = st.lists(
    st.one_of(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)),
    min_size=1,
    max_size=30,
)


def as_sets(bucket_of: list[int | list[int]]) -> list[set[int]]:
    return [{own} if isinstance(own, int) else set(own) for own in bucket_of]


@given(bucket_of=BUCKETS, batch=st.integers(1, 9), seed=SEEDS, step=st.integers(0, 10**9))
def test_a_batch_is_whole_of_one_bucket_and_a_pure_function_of_the_step(
    bucket_of: list[int | list[int]], batch: int, seed: int, step: int
) -> None:
    draws = Order(bucket_of, batch, seed).batch(step)
    assert len(draws) == batch
    assert len({draw.bucket for draw in draws}) == 1
    assert all(draw.bucket in as_sets(bucket_of)[draw.index] for draw in draws)
    order = Order(bucket_of, batch, seed)
    for other in (0, step + 1, step // 2):
        order.batch(other)
    assert order.batch(step) == draws


@given(bucket_of=BUCKETS, batch=st.integers(1, 9), seed=SEEDS)
def test_every_epoch_of_a_bucket_is_a_permutation_of_its_clips(
    bucket_of: list[int | list[int]], batch: int, seed: int
) -> None:
    order = Order(bucket_of, batch, seed)
    draws = [draw for step in range(4 * order.round_length) for draw in order.batch(step)]
    members = {bucket: {i for i, own in enumerate(as_sets(bucket_of)) if bucket in own} for bucket in range(4)}
    seen = Counter((draw.bucket, draw.epoch, draw.index) for draw in draws)
    assert max(seen.values()) == 1
    for bucket, clips in members.items():
        epochs = [{i for b, e, i in seen if (b, e) == (bucket, epoch)} for epoch in range(4)]
        if clips:  # four rounds hold four whole epochs at least
            assert epochs == [clips] * 4
    assert len({draw.seed for draw in draws}) == len(draws)


@given(bucket_of=BUCKETS, seed=SEEDS, size=st.integers(1, 3), step=st.integers(0, 10**6))
def test_processes_and_micro_batches_share_the_same_global_batch(
    bucket_of: list[int | list[int]], seed: int, size: int, step: int
) -> None:
    order = Order(bucket_of, 12 * size, seed)
    whole = order.batch(step)
    for world, micro in ((1, 2), (2, 1), (3, 4)):
        parts = [order.rank_slice(step, rank, world, micro) for rank in range(world)]
        assert all(len(part) == micro for part in parts)
        dealt = [draw for number in range(micro) for part in parts for draw in part[number]]
        assert dealt == whole
    one = order.rank_slice(step, 0, 1, 2)
    two = [order.rank_slice(step, rank, 2, 1) for rank in range(2)]
    assert one == [two[0][0], two[1][0]]


def test_a_distant_step_costs_no_walk_there(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order([0] * 1000 + [1] * 300, 16, 0)
    dealt: list[object] = []
    for name in ("_permutation", "_deal"):
        inner = getattr(order, name)
        monkeypatch.setattr(order, name, lambda *key, inner=inner: (dealt.append(key), inner(*key))[1])
    order.batch(10**6)
    assert len(set(dealt)) <= 3  # one round and at most two permutations
    assert order.batch(10**12)[0].epoch > 10**9


def test_seeds_give_other_orders_and_epochs_differ() -> None:
    first, second = Order([0] * 50, 50, 0), Order([0] * 50, 50, 1)
    assert [d.index for d in first.batch(0)] != [d.index for d in second.batch(0)]
    assert [d.index for d in first.batch(0)] != [d.index for d in first.batch(1)]
    assert sorted(d.index for d in first.batch(1)) == list(range(50))


def test_small_and_large_buckets_get_their_share() -> None:
    order = Order([0] * 90 + [1] * 30, 10, 0)
    assert order.round_length == 12
    counts = Counter(order.batch(step)[0].bucket for step in range(1200))
    assert counts == {0: 900, 1: 300}
    batches = [order.batch(step)[0].bucket for step in range(12)]
    assert batches != sorted(batches)  # mixed, not one bucket after the other


def test_fewer_clips_than_a_batch() -> None:
    draws = Order([5, 5, 5], 8, 0).batch(0)
    assert sorted(Counter(draw.index for draw in draws).values()) == [2, 3, 3]
    assert {draw.bucket for draw in draws} == {5}


def test_the_order_of_a_seed_never_changes() -> None:
    """Runs are resumed with later versions: this order is a promise."""
    order = Order([0, 0, 1, 0, [0, 1]], 2, 7)
    assert [[(d.index, d.bucket, d.epoch) for d in order.batch(step)] for step in range(4)] == PROMISED
    assert order.batch(0)[0] == Draw(*PROMISED[0][0][:2], seed=PROMISED_SEED, epoch=0)


PROMISED = [[(1, 0, 0), (3, 0, 0)], [(2, 1, 0), (4, 1, 0)], [(0, 0, 0), (4, 0, 0)], [(0, 0, 1), (1, 0, 1)]]
PROMISED_SEED = 1993304972442299575


@pytest.mark.parametrize("world_micro", [(5, 1), (3, 2)])
def test_what_does_not_divide_is_refused(world_micro: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be dealt"):
        Order([0], 8, 0).rank_slice(0, 0, *world_micro)


def test_nothing_to_order() -> None:
    with pytest.raises(DataError, match="no clips to train on"):
        Order([], 4, 0)
    with pytest.raises(DataError, match="no clips to train on"):
        Order([()], 4, 0)
    with pytest.raises(ValueError, match="at least 1 sample"):
        Order([0], 0, 0)
    with pytest.raises(ValueError, match="cannot be dealt to rank 2 of 2"):
        Order([0], 4, 0).rank_slice(0, 2, 2, 1)


@given(bucket_of=BUCKETS, batch=st.integers(1, 9), seed=SEEDS)
def test_every_place_in_a_stream_has_its_own_noise(bucket_of: list[int | list[int]], batch: int, seed: int) -> None:
    ids = [f"clip {number}" for number in range(len(bucket_of))]
    plain, cached = Order(bucket_of, batch, seed), Order(bucket_of, batch, seed, 2, ids)
    noise = []
    for step in range(3 * plain.round_length):
        for one, other in zip(plain.batch(step), cached.batch(step), strict=True):
            assert (one.index, one.bucket, one.epoch) == (other.index, other.bucket, other.epoch)
            assert one.noise_seed == other.noise_seed != one.seed
            noise.append(one.noise_seed)
    assert len(set(noise)) == len(noise)


@given(bucket_of=BUCKETS, seed=SEEDS, cuts=st.integers(1, 3))
def test_the_cuts_of_a_clip_come_back_in_turn(bucket_of: list[int | list[int]], seed: int, cuts: int) -> None:
    ids = [f"clip {number}" for number in range(len(bucket_of))]
    order = Order(bucket_of, 4, seed, cuts, ids)
    seeds: dict[tuple[int, int], dict[int, int]] = {}
    for step in range((2 * cuts + 1) * order.round_length):
        for draw in order.batch(step):
            seeds.setdefault((draw.bucket, draw.index), {})[draw.epoch] = draw.seed
    for by_epoch in seeds.values():
        assert len({by_epoch[epoch] for epoch in range(cuts)}) == cuts
        assert all(by_epoch[epoch] == by_epoch[epoch - cuts] for epoch in by_epoch if epoch >= cuts)
    listed = order.every_cut()
    assert {(draw.bucket, draw.index, draw.seed) for draw in listed} == {
        (*clip, cut) for clip, by_epoch in seeds.items() for cut in by_epoch.values()
    }
    assert len(listed) == cuts * len(seeds)


def test_a_clip_keeps_its_cuts_when_others_come_and_more_are_wanted() -> None:
    few = {draw.seed for draw in Order([0, 0], 2, 5, 2, ["a", "c"]).every_cut()}
    many = {draw.seed for draw in Order([0, 0, 0], 2, 5, 3, ["a", "b", "c"]).every_cut()}
    assert few < many and len(many) == 9
    assert derive_seed("cut", 5, 0, "c", 1) in few
    with pytest.raises(ValueError, match="need their ids"):
        Order([0, 0], 2, 5, 2)
