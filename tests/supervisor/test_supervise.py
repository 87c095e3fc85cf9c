"""Starting again: after which ends, from where, how long after, and when no more. Children are small scripts."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.supervisor.helpers import job, restarts, starts
from tinyworld.core.errors import EXIT_HUNG, EXIT_INTERRUPTED, EXIT_USER_ERROR
from tinyworld.core.goodput import LOST, measure
from tinyworld.core.journal_lines import read_lines
from tinyworld.supervisor import supervise
from tinyworld.supervisor.supervise import EXIT_GAVE_UP

DONE = {"code": 0}


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    first = {"to": 7, "checkpoints": [5], "code": -9}
    assert supervise(job(tmp_path, first, {"from": 5, "to": 9, **DONE})) == 0
    assert json.loads((tmp_path / "argv-1").read_text())[-1] == "--resume_from_checkpoint=latest"
    (restart,) = restarts(tmp_path)
    assert restart["cause"] == "killed by SIGKILL" and restart["exit_code"] == -9 and restart["step"] == 7
    assert restart["pause"] == 0 and restart["lost_seconds"] > 0
    events = [record["event"] for record in read_lines(tmp_path / "journal.jsonl")[0]]
    assert events == ["start", *["step"] * 7, "restart", "start", *["step"] * 4]


def test_a_cut_last_line_is_ended_before_the_restart_is_written(tmp_path: Path) -> None:
    work = job(tmp_path, {"to": 1, "code": 1}, DONE)
    (tmp_path / "journal.jsonl").write_text('{"event": "start", "step": 0, "time": 1}\n{"event": "st')
    script = tmp_path / "child.py"
    script.write_text(script.read_text().replace('if plan.get("start", True):', "if False:"))
    script.write_text(script.read_text().replace('write("step"', 'None and write("step"'))
    assert supervise(work) == 0
    records, damaged = read_lines(tmp_path / "journal.jsonl")
    assert damaged == 1 and [record["event"] for record in records] == ["start", "restart"]


@pytest.mark.parametrize("journal", [True, False])
def test_what_a_person_must_mend_is_passed_through(tmp_path: Path, journal: bool) -> None:
    assert supervise(job(tmp_path, {"journal": journal, "code": EXIT_USER_ERROR})) == EXIT_USER_ERROR
    assert starts(tmp_path) == 1 and (tmp_path / "journal.jsonl").exists() == journal


def test_the_same_cause_three_times_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = {"to": 3, "message": "OutOfMemoryError: tried to allocate 17.5 GiB for /data/clip-8.mp4", "code": 1}
    again = broken | {"message": "OutOfMemoryError: tried to allocate 9 GiB for /data/other/clip-13.mp4"}
    with caplog.at_level(logging.INFO, "tinyworld"):
        assert supervise(job(tmp_path, broken, again, broken)) == EXIT_GAVE_UP
    assert starts(tmp_path) == 3 and len(restarts(tmp_path)) == 2
    said = caplog.messages[-1]
    assert "3 times" in said and "at step 3" in said and "OutOfMemoryError" in said and "training.log" in said


def test_another_cause_or_a_new_checkpoint_begins_the_count_anew(tmp_path: Path) -> None:
    crash = {"message": "RuntimeError: a", "code": 1}
    other = {"message": "RuntimeError: b", "code": 1}
    assert supervise(job(tmp_path / "a", crash, crash, other, crash, crash, DONE)) == 0
    saved = [crash | {"checkpoints": [step]} for step in range(1, 6)]
    assert supervise(job(tmp_path / "b", *saved, DONE)) == 0
    assert starts(tmp_path / "b") == 6


def test_a_child_without_a_journal_is_restarted_too(tmp_path: Path) -> None:
    assert supervise(job(tmp_path, {"journal": False, "code": 1}, {"journal": False, **DONE})) == 0
    assert starts(tmp_path) == 2 and not (tmp_path / "journal.jsonl").exists()


def test_a_hang_is_named_by_who_was_late(tmp_path: Path) -> None:
    hung = {"late": "rank 1 is late in phase save", "code": EXIT_HUNG}
    assert supervise(job(tmp_path, hung, DONE)) == 0
    assert restarts(tmp_path)[0]["cause"] == "exit code 76: rank 1 is late in phase save"


def test_words_of_an_earlier_life_are_not_the_cause(tmp_path: Path) -> None:
    lives = [{"message": "RuntimeError: a", "code": 1}, {"late": "rank 3", "code": 76}, {"start": False, "code": -11}]
    assert supervise(job(tmp_path, *lives, DONE)) == 0
    causes = [restart["cause"] for restart in restarts(tmp_path)]
    assert causes == ["exit code 1: RuntimeError: a", "exit code 76: rank 3", "killed by SIGSEGV"]


def test_work_is_lost_once_and_not_again_by_starts_that_fail(tmp_path: Path) -> None:
    assert supervise(job(tmp_path, {"to": 5, "code": -9}, {"start": False, "code": 1}, {"to": 5, **DONE})) == 0
    first, second = (restart["lost_seconds"] for restart in restarts(tmp_path))
    assert first > 0 and second == 0
    assert measure(read_lines(tmp_path / "journal.jsonl")[0]).seconds[LOST] == pytest.approx(first, abs=0.05)


def test_a_signal_to_the_child_alone_is_followed_by_a_restart(tmp_path: Path) -> None:
    told = {"message": "stopped by SIGTERM", "code": EXIT_INTERRUPTED}
    assert supervise(job(tmp_path, told, told, told, told, DONE)) == 0
    assert starts(tmp_path) == 5


def test_a_run_branches_off_until_it_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    lives = [{"code": 1}, {"checkpoints": [4], "code": -9}, DONE]
    supervise(job(tmp_path, *lives, begin_from="/other/checkpoint-9"))
    given = [json.loads((tmp_path / f"argv-{life}").read_text())[-1] for life in range(3)]
    branch = "--resume_from_checkpoint=/other/checkpoint-9"
    assert given == [branch, branch, "--resume_from_checkpoint=latest"]


def test_several_processes_find_each_other_and_the_first_to_fail_is_the_cause(tmp_path: Path) -> None:
    first = {"wait": True, "ends": [1], "message": "ValueError: on rank 1", "code": 1}
    assert supervise(job(tmp_path, first, DONE, processes=3)) == 0
    assert restarts(tmp_path)[0]["cause"] == "rank 1: exit code 1: ValueError: on rank 1"
    seen = [json.loads((tmp_path / f"environment-{rank}").read_text()) for rank in range(3)]
    assert [one["RANK"] for one in seen] == [one["LOCAL_RANK"] for one in seen] == ["0", "1", "2"]
    assert {one["WORLD_SIZE"] for one in seen} == {"3"} and len({one["MASTER_PORT"] for one in seen}) == 1
    assert [starts(tmp_path, rank) for rank in range(3)] == [2, 2, 2], "ranks 0 and 2 were waiting and had to be ended"


SUPERVISOR = "import sys; from pathlib import Path; from tinyworld.supervisor import Job, supervise; "


def in_background(folder: Path, *lives: dict[str, object], **more: object) -> "subprocess.Popen[bytes]":
    work = job(folder, *lives, **more)
    code = f"sys.exit(supervise(Job(Path({str(folder)!r}), {work.command!r}, {work.processes}, None, {work.pause})))"
    return subprocess.Popen([sys.executable, "-c", SUPERVISOR + code])


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """No such process, or one that is dead and only waits to be collected."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    supervisor = in_background(tmp_path, {"wait": True, "saving": 0.4, "code": 0}, processes=2)
    until(lambda: all((tmp_path / f"pid-{rank}").exists() for rank in (0, 1)))
    supervisor.send_signal(number)
    until(lambda: (tmp_path / "told-0").exists())
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(120) == EXIT_INTERRUPTED
    assert [(tmp_path / f"told-{rank}").read_text() for rank in (0, 1)] == [f"{number.name} "] * 2
    assert starts(tmp_path) == 1 and restarts(tmp_path) == []
    assert read_lines(tmp_path / "journal.jsonl")[0][-1]["exit_code"] == EXIT_INTERRUPTED


def test_ctrl_c_a_second_time_does_not_wait_for_the_save(tmp_path: Path) -> None:
    supervisor = in_background(tmp_path, {"wait": True, "saving": 60, "code": 0})
    until(lambda: (tmp_path / "pid-0").exists())
    supervisor.send_signal(signal.SIGINT)
    until(lambda: (tmp_path / "told-0").exists())
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(120) == EXIT_INTERRUPTED
    assert gone(int((tmp_path / "pid-0").read_text()))


def test_a_signal_in_a_pause_ends_it(tmp_path: Path) -> None:
    supervisor = in_background(tmp_path, {"code": 1}, pause=60.0)
    until(lambda: (tmp_path / "journal.jsonl").exists() and len(restarts(tmp_path)) == 1)
    supervisor.terminate()
    assert supervisor.wait(120) == EXIT_INTERRUPTED and starts(tmp_path) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties children to their parent only on Linux")
def test_no_process_survives_a_killed_supervisor(tmp_path: Path) -> None:
    supervisor = in_background(tmp_path, {"wait": True, "code": 0}, processes=2)
    until(lambda: all((tmp_path / f"pid-{rank}").exists() for rank in (0, 1)))
    pids = [int((tmp_path / f"pid-{rank}").read_text()) for rank in (0, 1)]
    assert not any(gone(pid) for pid in pids)
    supervisor.kill()
    supervisor.wait()
    until(lambda: all(gone(pid) for pid in pids))


def test_what_a_dead_child_left_running_is_ended(tmp_path: Path) -> None:
    """Loader processes outlive a killed trainer; they would hold memory and files of the run that starts anew."""
    assert supervise(job(tmp_path, {"loader": True, "code": -9}, DONE)) == 0
    until(lambda: gone(int((tmp_path / "loader").read_text())))
