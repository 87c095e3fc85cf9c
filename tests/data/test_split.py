"""Held-out videos: by video, by id, stable."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.core.errors import DataError
from tinyworld.data.scan import ClipRef
from tinyworld.data.split import split


def clips(names: list[str]) -> list[ClipRef]:
    return [ClipRef(name, Path(f"/x/{name}.mp4"), 10, 8, 8, 24.0) for name in names]


NAMES = st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=40, unique=True)
HELD_OUT = st.one_of(st.floats(0.01, 0.99), st.just(1))


@given(names=NAMES, held_out=HELD_OUT, seed=st.integers(0, 2**31))
def test_each_clip_is_on_one_side_and_neither_is_empty(names: list[str], held_out: float | int, seed: int) -> None:
    everything = clips(names)
    train, held = split(everything, held_out, seed)
    assert train
    assert held
    assert sorted(train + held, key=everything.index) == everything
    assert train == sorted(train, key=everything.index)
    assert held == sorted(held, key=everything.index)
    assert (train, held) == split(everything, held_out, seed)


@given(names=NAMES, held_out=HELD_OUT, seed=st.integers(0, 2**31), shuffle=st.randoms())
def test_the_sides_depend_on_the_ids_only(names: list[str], held_out: float | int, seed: int, shuffle) -> None:
    other = list(names)
    shuffle.shuffle(other)
    assert {c.id for c in split(clips(names), held_out, seed)[1]} == {
        c.id for c in split(clips(other), held_out, seed)[1]
    }


def test_clips_that_come_later_move_none_to_the_other_side() -> None:
    names = [f"clip {n}" for n in range(400)]
    before_train, before_held = split(clips(names[:200]), 0.1, 3)
    train, held = split(clips(names), 0.1, 3)
    assert {c.id for c in before_train} <= {c.id for c in train}
    assert {c.id for c in before_held} <= {c.id for c in held}


def test_the_share_is_about_right_and_the_seed_matters() -> None:
    everything = clips([f"clip {n}" for n in range(2000)])
    _, held = split(everything, 0.1, 0)
    assert 150 < len(held) < 250
    assert held != split(everything, 0.1, 1)[1]


def test_a_number_of_clips() -> None:
    everything = clips([f"clip {n}" for n in range(30)])
    assert len(split(everything, 7, 0)[1]) == 7
    for wrong in (0, 30, 31):
        with pytest.raises(DataError, match=r"1 to 29 can"):
            split(everything, wrong, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_two_videos_are_needed(count: int) -> None:
    with pytest.raises(DataError, match=r"at least 2 are needed.*data\.held_out_root"):
        split(clips(["a"][:count]), 0.1, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_impossible_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(clips(["a", "b"]), fraction, 0)
