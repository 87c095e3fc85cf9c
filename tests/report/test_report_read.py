"""Reading a journal: the last line wins, undone steps go; long curves are thinned without losing a spike."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tinyworld.report import words
from tinyworld.report.figures import kept_points, smoothed
from tinyworld.report.read import read_run


def run_of(folder: Path, *events: dict[str, Any]) -> Any:
    (folder / "journal.jsonl").write_text("".join(json.dumps({"time": 1.0, **event}) + "\n" for event in events))
    return read_run(folder)


def step(at: int, loss: float = 0.0) -> dict[str, Any]:
    return {"event": "step", "step": at, "losses": {"total": loss}}


def test_a_resumed_run_goes_on_from_where_it_went_back_to(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        {"event": "start", "step": 0},
        *(step(k, 1.0) for k in range(1, 9)),
        {"event": "validation", "step": 4, "metrics": {"psnr": 1.0}},
        step(9),
        step(10),
        {"event": "validation", "step": 10, "metrics": {"psnr": 2.0}},
        {"event": "start", "step": 6, "resumed_from": "checkpoint-6"},
        step(7, 2.0),
        step(8, 2.0),
    )
    assert [record["step"] for record in run.steps] == list(range(1, 9))
    assert [record["losses"]["total"] for record in run.steps] == [1.0] * 6 + [2.0] * 2
    assert [entry["step"] for entry in run.validations] == [4]
    assert len(run.lives) == 2 and run.lives[0].stop is None
    assert run.last_step == 8


def test_a_validation_stays_beside_its_own_step(tmp_path: Path) -> None:
    run = run_of(tmp_path, step(1), step(2), {"event": "validation", "step": 2, "metrics": {"psnr": 5.0}}, step(3))
    assert [entry["psnr"] for entry in run.validations] == [5.0]


def test_repeated_validation_and_checkpoint_count_once(tmp_path: Path) -> None:
    again = [{"event": "validation", "step": 2, "metrics": {"psnr": value}} for value in (5.0, 6.0)]
    saved = [{"event": "checkpoint", "step": 2, "bytes": value} for value in (1, 2)]
    run = run_of(tmp_path, step(2), *again, *saved)
    assert [entry["psnr"] for entry in run.validations] == [6.0]
    assert [entry["bytes"] for entry in run.checkpoints] == [2]


def test_the_best_model_is_the_marked_one_and_else_the_latest(tmp_path: Path) -> None:
    events = [{"event": "validation", "step": k, "metrics": {"psnr": 1.0}, "best": k == 1} for k in (1, 2)]
    assert run_of(tmp_path, *events).best["step"] == 1
    assert run_of(tmp_path, *(event | {"best": False} for event in events)).best["step"] == 2


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=400), st.integers(2, 50))
def test_thinning_keeps_extremes_ends_and_order(values: list[float | None], limit: int) -> None:
    kept = kept_points(values, limit)
    assert kept == sorted(set(kept))
    assert len(kept) <= limit + 4
    present = [value for value in values if value is not None]
    if present:
        drawn = [values[i] for i in kept if values[i] is not None]
        assert max(drawn) == max(present) and min(drawn) == min(present)
        assert kept[0] == 0 and kept[-1] == len(values) - 1


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=200))
def test_smoothing_stays_within_the_values_and_keeps_gaps(values: list[float | None]) -> None:
    result = smoothed(values)
    assert [value is None for value in result] == [value is None for value in values]
    present = [value for value in values if value is not None]
    for value in result:
        assert value is None or min(present) - 1e-3 <= value <= max(present) + 1e-3


def test_smoothing_of_a_constant_is_the_constant_from_the_first_point() -> None:
    assert all(abs(value - 3.0) < 1e-9 for value in smoothed([3.0] * 100) if value is not None)


def test_numbers_are_written_for_people() -> None:
    assert words.whole(11315539) == "11,315,539"
    assert words.fixed(None) == words.fixed(float("nan")) == words.size("x") == words.moment(None) == "–"
    assert [words.size(value) for value in (12, 1500, 181e6, 2.5e9)] == ["12 B", "1.5 kB", "181.0 MB", "2.50 GB"]
    assert [words.duration(value) for value in (0.84, 42, 185, 3725, 180000)] == [
        *("0.8 s", "42 s", "3 min 5 s", "1 h 02 min", "2 d 2 h"),
    ]


def test_a_report_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import tinyworld.report"
    subprocess.run([sys.executable, "-c", code], check=True)
