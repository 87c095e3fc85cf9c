"""Pauses and giving up, and what counts as the same cause."""

import pytest

from tinyworld.supervisor.cause import Cause
from tinyworld.supervisor.patience import Patience


def test_pauses_double_to_ten_minutes_and_begin_anew_after_progress() -> None:
    patience = Patience(10)
    pauses = [patience.after(f"cause {n}", progress=False) for n in range(9)]
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert [patience.after("a", progress=True), patience.after("b", progress=False)] == [10, 20]


def test_the_same_cause_is_met_three_times_only_without_progress_between() -> None:
    patience = Patience(1)
    assert [patience.after("a", progress=False) is None for _ in range(3)] == [False, False, True]
    patience = Patience(1)
    assert [patience.after("a", progress=n == 2) is None for n in range(5)] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("out of memory: 2.50 GiB of GPU 0", "out of memory: 17 GiB of GPU 3", True),
        ("cannot read /data/a b.mp4", "cannot read /scratch/x/y b.mp4", True),
        ("cannot read clips/a.mp4 (0x7f3a)", "cannot read clips/a.mp4 (0x11)", True),
        ("ValueError: loss", "TypeError: loss", False),
        ("", "", True),
    ],
)
def test_digits_addresses_and_paths_do_not_make_another_cause(one: str, other: str, same: bool) -> None:
    assert (Cause("exit code 1", one).kind == Cause("exit code 1", other).kind) == same


def test_the_same_words_with_another_exit_code_are_another_cause() -> None:
    assert Cause("exit code 1", "a").kind != Cause("exit code 2", "a").kind


def test_ends_by_ever_other_causes_come_to_an_end_too() -> None:
    patience = Patience(1)
    pauses = [patience.after(f"clip {chr(97 + n)}", progress=False) for n in range(10)]
    assert pauses.index(None) == 9


def test_signals_from_outside_are_no_cause_but_not_endless() -> None:
    patience = Patience(1)
    pauses = [patience.after(None, progress=False) for n in range(10)]
    assert pauses == [1] * 9 + [None]
