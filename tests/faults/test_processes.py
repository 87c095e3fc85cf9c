"""A rank of two is killed, stopped or hangs; the run is told to stop; two runs want one folder."""

import os
import signal
from pathlib import Path

import pytest

from tests.faults import tasks
from tests.faults.processes import PATIENCE, Run, events, quiet_recipe
from tinyworld.core.errors import EXIT_HUNG, EXIT_INTERRUPTED, EXIT_USER_ERROR
from tinyworld.engine import checkpoint

PATIENT = {"parallel": {"startup_timeout": 60, "step_timeout": 6}}
LONG = {"training": {"max_train_steps": 2000}, "validation": {"validation_steps": 100000}}


def goes_on(folder: Path, step: int) -> None:
    """The run resumes from its newest checkpoint and ends well."""
    finish = {"training": {"max_train_steps": step + 2}, "checkpoint": {"resume_from_checkpoint": "latest"}}
    with Run(tasks.quiet, quiet_recipe(folder, **finish)) as run:
        assert run.codes() == [0, 0], run.said(0) + run.said(1)


def test_a_killed_rank_is_named_and_the_run_goes_on_afterwards(tmp_path: Path) -> None:
    with Run(tasks.slow, quiet_recipe(tmp_path, **LONG, **PATIENT)) as run:
        run.until("checkpoint", 8)
        run.signal(1, signal.SIGKILL)
        codes = run.codes()
        said = run.said(0)
    assert codes[1] == -signal.SIGKILL and codes[0] == EXIT_HUNG, said
    assert "Rank 1" in said and str(run.ranks[1].pid) in said
    step = checkpoint.step_of(checkpoint.newest_good(run.folder) or Path())
    assert step >= 8
    goes_on(tmp_path, step)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_rank_saves_and_ends_both(tmp_path: Path, number: int) -> None:
    with Run(tasks.slow, quiet_recipe(tmp_path, **LONG)) as run:
        run.until("step", 5)
        run.signal(1, number)
        assert run.codes() == [EXIT_INTERRUPTED] * 2, run.said(0) + run.said(1)
        assert run.said(0).count("Go on with") == 1 and "Go on with" not in run.said(1)
    stop = events(run.folder, "stop")[-1]
    newest = checkpoint.newest_good(run.folder)
    assert newest is not None and checkpoint.step_of(newest) == stop["step"]
    goes_on(tmp_path, stop["step"])


def test_a_stopped_rank_is_named_with_its_process(tmp_path: Path) -> None:
    with Run(tasks.slow, quiet_recipe(tmp_path, **LONG, **PATIENT)) as run:
        run.until("checkpoint", 8)
        run.signal(1, signal.SIGSTOP)
        run.ranks[0].join(PATIENCE)
        assert run.ranks[0].exitcode == EXIT_HUNG, run.said(0)
        assert "Rank 1" in run.said(0) and str(run.ranks[1].pid) in run.said(0)
        pid = run.ranks[1].pid
        assert pid is not None
        os.kill(pid, signal.SIGCONT)
    assert events(run.folder, "stop")[-1]["reason"] == "hung"
    step = checkpoint.step_of(checkpoint.newest_good(run.folder) or Path())
    goes_on(tmp_path, step)


@pytest.mark.parametrize("make, phase, where", [
    (tasks.late_data, "data", "wait_for_ever_in_the_loader"),
    (tasks.late_step, "forward and backward", "wait_for_ever_in_the_step"),
])  # fmt: skip
def test_a_rank_that_hangs_is_named_with_its_phase_and_its_stacks(tmp_path: Path, make, phase: str, where: str) -> None:  # type: ignore[no-untyped-def]
    with Run(make, quiet_recipe(tmp_path, **PATIENT)) as run:
        assert run.codes() == [EXIT_HUNG] * 2, run.said(0) + run.said(1)
        said = run.said(0) + run.said(1)
    assert "Rank 1" in said and phase in said
    stacks = (run.folder / "ranks" / "rank-1.stacks.txt").read_text()
    assert where in stacks
    (stop,) = events(run.folder, "stop")
    assert stop["reason"] == "hung" and "Rank 1" in stop["message"]


def test_two_runs_want_one_folder(tmp_path: Path) -> None:
    with Run(tasks.slow, quiet_recipe(tmp_path, **LONG), world=1) as first:
        first.until("checkpoint", 4)
        resume = {"checkpoint": {"resume_from_checkpoint": "latest"}}
        with Run(tasks.slow, quiet_recipe(tmp_path, **LONG, **resume), world=1) as second:
            assert second.codes() == [EXIT_USER_ERROR]
            assert "in use by another training process" in second.said(0)
        first.signal(0, signal.SIGTERM)
        assert first.codes() == [EXIT_INTERRUPTED]
