"""The account of the wall time on journals written by hand, with known answers; the parts always add up to the whole."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.core.goodput import (
    COMPUTE,
    DATA,
    DOWN,
    LOST,
    OTHER,
    PARTS,
    SAVING,
    STARTUP,
    VALIDATION,
    Goodput,
    duration,
    measure,
    table,
)  # fmt: skip
from tinyworld.core.journal_lines import Record


def at(time: float, event: str, step: int, **facts: Any) -> Record:
    return {"event": event, "time": 1000.0 + time, "step": step, **facts}


def steps(time: float, step: int, seconds: float = 2.0, data: float = 0.5) -> Record:
    return at(time, "step", step, seconds_per_step=seconds, data_seconds=data)


def spent(*records: Record) -> dict[str, float]:
    """The parts that took time, after a check that all add up."""
    goodput = measure(records)
    assert set(goodput.seconds) == set(PARTS)
    times = [record["time"] for record in records]
    assert goodput.wall == pytest.approx(max(times) - min(times))
    return {part: pytest.approx(seconds) for part, seconds in goodput.seconds.items() if seconds > 1e-9}


def test_one_life() -> None:
    assert spent(
        at(0, "start", 0),
        steps(30, 10),  # start-up 10, ten steps of 2 s of which 0.5 s waiting
        steps(51, 20),  # 1 s of logging
        at(58, "validation", 20, seconds=6.5),
        at(61, "checkpoint", 20, seconds=3.0),
        steps(81, 30),
        at(82, "stop", 30, reason="finished", exit_code=0),
    ) == {STARTUP: 10, COMPUTE: 45, DATA: 15, VALIDATION: 6.5, SAVING: 3, OTHER: 1 + 0.5 + 1}


def test_a_background_save_costs_only_what_training_waited_even_when_it_is_told_later() -> None:
    assert spent(
        at(0, "start", 0),
        steps(20, 10),
        steps(43, 20),  # waited 3 s within
        at(43, "checkpoint", 10, seconds=19.0, stall=3.0),
    ) == {COMPUTE: 30, DATA: 10, SAVING: 3}


def test_killed_and_restarted_by_the_supervisor() -> None:
    assert spent(
        at(0, "start", 0),
        steps(20, 10),
        at(20, "checkpoint", 10, seconds=5.0, stall=0.0),
        steps(40, 20),
        at(48, "restart", 20, cause="killed by SIGKILL", pause=10.0),  # 8 s at work since the last line
        at(63, "start", 10),  # 10 s of pause, 5 s from the start of the process to its first word
        steps(90, 20),
        at(90, "stop", 20, exit_code=0),
    ) == {COMPUTE: 30, DATA: 10, LOST: 28, DOWN: 10, STARTUP: 5 + 7}


def test_killed_and_started_again_by_hand() -> None:
    assert spent(
        at(0, "start", 0),
        steps(20, 10),
        at(20, "checkpoint", 10, seconds=0.0),
        steps(40, 20),
        at(3640, "start", 15),  # branches within the logged interval: five of its ten steps count
        steps(3650, 20),
    ) == {COMPUTE: 30, DATA: 10, LOST: 10, DOWN: 3600}


def test_stopped_by_a_signal_loses_nothing_although_its_last_steps_were_not_logged() -> None:
    assert spent(
        at(0, "start", 0),
        steps(20, 10),
        at(37, "checkpoint", 17, seconds=3.0),
        at(38, "stop", 17, reason="signal", exit_code=75),
        at(138, "start", 17),
        steps(144, 20),
        at(144, "stop", 20, reason="finished", exit_code=0),
    ) == {COMPUTE: 30, DATA: 10, SAVING: 3, OTHER: 1, DOWN: 100}


def test_an_error_loses_the_steps_since_the_checkpoint() -> None:
    assert spent(
        at(0, "start", 0),
        steps(20, 10),
        at(20, "checkpoint", 10, seconds=0.0),
        at(35, "stop", 17, reason="error", exit_code=1),  # seven steps, and 1 s of the one that failed
        at(37, "restart", 17, pause=4.0),
        at(45, "start", 10),
        steps(65, 20),
    ) == {COMPUTE: 30, DATA: 10, LOST: 14, OTHER: 1, DOWN: 2 + 4, STARTUP: 4}


def test_waiting_for_a_process_that_hung_is_lost() -> None:
    assert spent(
        at(0, "start", 0),
        steps(20, 10),
        at(20, "checkpoint", 10, seconds=0.0),
        at(620, "stop", 0, reason="hung", exit_code=76),
        at(621, "restart", 10, pause=1.0),
        at(623, "start", 10),
        steps(643, 20),
    ) == {COMPUTE: 30, DATA: 10, LOST: 600, DOWN: 2, STARTUP: 1}


def test_failed_starts_are_start_up_and_the_pauses_between_them_down_time() -> None:
    assert spent(
        at(0, "start", 0),
        at(7, "stop", 0, reason="error", exit_code=1),
        at(7, "restart", 0, pause=10.0),
        at(20, "restart", 0, pause=20.0),  # this one wrote nothing at all
        at(45, "start", 0),
        steps(66, 10),
    ) == {STARTUP: 7 + 3 + 5 + 1, DOWN: 30, COMPUTE: 15, DATA: 5}


def test_skipped_and_rewound_steps_do_not_count() -> None:
    assert spent(
        at(0, "start", 0),
        steps(20, 10),
        at(20, "checkpoint", 10, seconds=0.0),
        at(36, "skip", 18),
        steps(40, 20),
        at(50, "skip", 25),
        at(50, "rewind", 10, from_step=25),
        steps(70, 20),
    ) == {COMPUTE: 30, DATA: 10, LOST: 30}
    assert spent(at(0, "start", 0), at(5, "skip", 3), steps(20, 10)) == {COMPUTE: 13.5, DATA: 4.5, LOST: 2}


def test_a_run_that_is_still_at_work_and_one_without_any_time() -> None:
    assert spent(at(0, "start", 0), steps(25, 10), at(32, "preflight", 10)) == {
        STARTUP: 5, COMPUTE: 15, DATA: 5, OTHER: 7,
    }  # fmt: skip
    assert spent(at(0, "start", 0), at(9, "preflight", 0)) == {STARTUP: 9}
    assert measure([]).goodput == 0.0 and table(measure([])) == "goodput 0.0% of 0.0 s"


def test_the_table_names_each_part_and_the_restarts() -> None:
    restart = {"event": "restart", "step": 5, "time": 0.0}
    seconds = dict.fromkeys(PARTS, 0.0) | {COMPUTE: 5400.0, DATA: 1800.0, DOWN: 800.0}
    lines = table(Goodput(seconds, [restart, restart])).splitlines()
    assert lines[0] == "goodput 90.0% of 2 h 13 min with 2 restarts"
    assert [line.split("  ")[1] for line in lines[1:]] == [COMPUTE, DATA, DOWN] and "67.5%" in lines[1]


def test_durations_are_written_for_people() -> None:
    assert [duration(value) for value in (0.84, 42, 185, 3725, 180000)] == [
        "0.8 s", "42 s", "3 min 5 s", "1 h 02 min", "2 d 2 h",
    ]  # fmt: skip


EVENTS = st.fixed_dictionaries(
    {
        "event": st.sampled_from(
            ["start", "step", "step", "skip", "rewind", "validation", "checkpoint", "stop", "restart"]
        ),
        "time": st.one_of(st.none(), st.floats(0, 1e6), st.just(float("nan"))),
        "step": st.integers(-5, 50),
    },
    optional={
        key: st.one_of(st.none(), st.floats(-10, 1e4), st.text(max_size=2))
        for key in ("seconds_per_step", "data_seconds", "seconds", "stall", "pause", "from_step")
    },
)


@given(st.lists(EVENTS, max_size=30))
def test_whatever_a_journal_holds_the_parts_add_up_and_none_is_negative(records: list[Record]) -> None:
    known = [record["time"] for record in records if record["time"] is not None and record["time"] == record["time"]]
    goodput = measure(records)
    assert goodput.wall == pytest.approx(max(known) - known[0] if known else 0.0, abs=1e-3)
    assert all(seconds >= -1e-6 for seconds in goodput.seconds.values())
    assert 0 <= goodput.goodput <= 1 + 1e-9
