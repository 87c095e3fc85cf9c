"""A rank that hangs, stops or dies is named by the others. Processes of plain Python: they must be able to end for real."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinyworld.core.errors import EXIT_HUNG
from tinyworld.engine import inquiry, ranks
from tinyworld.engine.inquiry import Inquiry
from tinyworld.engine.lateness import COLLECTIVE, Finding, Limits, late, left, lost
from tinyworld.engine.liveness import Liveness
from tinyworld.engine.ranks import Sign, here

PATIENCE = 120.0
PROGRAM = """
import ctypes, os, signal, sys, time
from pathlib import Path
from tinyworld.engine.liveness import Liveness
run, rank, world, timeout = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
liveness = Liveness(run, rank, world, 60, timeout, lambda text: print("late:", text, flush=True), period=0.1)
def until(name):
    while not (run / name).exists():
        time.sleep(0.01)
def meet():
    for other in range(world):
        until(f"ranks/rank-{other}.json")
def hang_in_storage():
    while True:
        time.sleep(0.05)
liveness.start()
meet()
"""

JUMPS = "from itertools import count\nreal, turn = time.time, count()\n"
JUMPS += "time.time = lambda: real() + (86400 if next(turn) % 2 else -86400)\n"
"""The clock goes a day forth or back at each look."""


class Processes:
    """Starts ranks of a run, and leaves none behind."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.started: list[subprocess.Popen[str]] = []

    def start(self, body: str, rank: int = 0, world: int = 1, timeout: float = 0.6) -> "subprocess.Popen[str]":
        arguments = [sys.executable, "-c", PROGRAM + body, str(self.run), str(rank), str(world), str(timeout)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    held = Processes(tmp_path)
    yield held
    for process in held.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_stopped(process: "subprocess.Popen[str]") -> bool:
    """Whether the child stopped since one asked last."""
    pid, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
    return pid != 0 and os.WIFSTOPPED(status)


def sign(rank: int, phase: str = "agree", step: int = 5, seconds: float = 10, **changes: Any) -> Sign:
    """Of a process on another host."""
    base = Sign(rank, f"node{rank}", 100 + rank, "", phase, step, [f"clip{rank}"], 1, seconds, False, False, "now")
    return replace(base, **changes)


def table(*signs: Sign) -> dict[int, Sign]:
    return {one.rank: one for one in signs}


@pytest.mark.parametrize("clock", ["", JUMPS])
def test_late_phase_ends_the_process_and_says_why(processes: Processes, tmp_path: Path, clock: str) -> None:
    process = processes.start(clock + 'liveness.phase("data", 12, ["clip-a", "clip-b"])\nhang_in_storage()')
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_HUNG
    assert out.startswith(f"late: Rank 0 (host {here()[0]}, pid {process.pid}) is late: for ")
    for part in (
        'phase "data" of step 12',
        "samples clip-a, clip-b",
        "loader process",
        "0.6 s (parallel.step_timeout)",
    ):
        assert part in out
    assert out.removeprefix("late: ").strip() in err  # the log has the same paragraph
    verdict = json.loads((tmp_path / "ranks/late.json").read_text())
    assert (verdict["rank"], verdict["phase"], verdict["ids"]) == (0, "data", ["clip-a", "clip-b"])
    assert verdict["pid"] == process.pid and verdict["text"] in out
    stacks = (tmp_path / "ranks/rank-0.stacks.txt").read_text()
    assert "hang_in_storage" in stacks and 'phase "data" of step 12' in stacks


def test_startup_has_its_own_time(processes: Processes) -> None:
    process = processes.start(
        'liveness.phase("set up", 0, startup=True)\ntime.sleep(0.6)\nliveness.phase("data", 0)\nhang_in_storage()',
        timeout=0.4,
    )
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_HUNG
    assert 'phase "data"' in out


def test_phases_in_time_never_fire(processes: Processes, tmp_path: Path) -> None:
    body = 'for step in range(60):\n    liveness.phase("agree" if step % 2 else "data", step)\n    time.sleep(0.05)\n'
    process = processes.start(JUMPS + body + "liveness.close()\nliveness.close()", timeout=2)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "")
    last = json.loads((tmp_path / "ranks/rank-0.json").read_text())
    assert (last["step"], last["closed"]) == (59, True)
    assert not (tmp_path / "ranks/late.json").exists()


def test_folder_that_cannot_be_written(processes: Processes, tmp_path: Path) -> None:
    """`world` is 0 so that nobody waits for files that never come."""
    (tmp_path / "ranks").write_text("a file")
    body = 'for step in range(10):\n    liveness.phase("data", step)\n    time.sleep(0.03)\nhang_in_storage()'
    process = processes.start(body.replace("hang", "liveness.phase('reduce', 10, ['clip-c'])\nhang"), world=0)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_HUNG
    assert err.count("cannot show the other ranks that it lives") == 1
    assert "in hang_in_storage" in err  # the stacks, for want of a file
    assert 'in phase "reduce" of step 10, samples clip-c' in out


def test_stopped_rank_is_named_by_the_one_that_waits(processes: Processes) -> None:
    stopped = processes.start(
        'liveness.phase("data", 3, ["clip-x"])\nos.kill(os.getpid(), signal.SIGSTOP)\nhang_in_storage()', 1, 2
    )
    waits = processes.start('liveness.phase("agree", 3)\nhang_in_storage()', 0, 2)
    wait_for(lambda: is_stopped(stopped))
    out, _ = waits.communicate(timeout=PATIENCE)
    assert waits.returncode == EXIT_HUNG
    state = "is stopped" if sys.platform == "linux" else "no sign of life"
    assert f"Rank 1 (host {here()[0]}, pid {stopped.pid}) {state}" in out
    assert "found this after" in out and 'phase "agree" of step 3' in out
    stopped.send_signal(signal.SIGCONT)
    again, _ = stopped.communicate(timeout=PATIENCE)
    assert (stopped.returncode, again) == (EXIT_HUNG, out)  # it ends with the others, by the same verdict


def test_all_name_the_one_that_is_busy(processes: Processes, tmp_path: Path) -> None:
    busy = processes.start('liveness.phase("data", 7, ["clip-y"])\nhang_in_storage()', 1, 2)
    waits = processes.start('liveness.phase("agree", 7, ["clip-z"])\ntime.sleep(99)', 0, 2)
    texts = [process.communicate(timeout=PATIENCE)[0] for process in (busy, waits)]
    assert [busy.returncode, waits.returncode] == [EXIT_HUNG, EXIT_HUNG]
    assert texts[0] == texts[1]
    assert f"Rank 1 (host {here()[0]}, pid {busy.pid}) is late" in texts[0] and "samples clip-y." in texts[0]
    assert "clip-z" not in texts[0]
    assert "in hang_in_storage" in (tmp_path / "ranks/rank-1.stacks.txt").read_text()
    assert "in hang_in_storage" not in (tmp_path / "ranks/rank-0.stacks.txt").read_text()


def test_rank_that_is_not_late_yet_ends_with_the_others(processes: Processes, tmp_path: Path) -> None:
    """It moved on to another phase in time, while another waited too long for it: its stacks are wanted now."""
    moves = processes.start(
        'step = 0\nwhile True:\n    liveness.phase("validate", 1, [f"clip{step}"])\n    step += 1\n    time.sleep(0.05)',
        1,
        2,
        20,
    )
    waits = processes.start('liveness.phase("agree", 1)\nhang_in_storage()', 0, 2)
    texts = [process.communicate(timeout=PATIENCE)[0] for process in (moves, waits)]
    assert [moves.returncode, waits.returncode] == [EXIT_HUNG, EXIT_HUNG]
    assert texts[0] == texts[1] and 'in phase "validate" of step 1, samples clip' in texts[0]
    assert "<module>" in (tmp_path / "ranks/rank-1.stacks.txt").read_text()


def test_killed_rank_is_missing(processes: Processes, tmp_path: Path) -> None:
    ask = 'liveness.phase("reduce", 4)\nuntil("killed")\nprint(liveness.who_is_missing())\nliveness.close()'
    asks = processes.start(ask, 0, 2, 60)
    killed = processes.start('liveness.phase("forward and backward", 4, ["clip-k"])\nhang_in_storage()', 1, 2, 60)
    wait_for(lambda: "forward" in str(ranks.read_json(tmp_path / "ranks/rank-1.json")))
    killed.kill()
    (tmp_path / "killed").touch()  # the parent has not waited for it yet: it is a zombie, and gone all the same
    out, _ = asks.communicate(timeout=PATIENCE)
    assert asks.returncode == 0
    assert out.startswith(f"Rank 1 (host {here()[0]}, pid {killed.pid}) is dead: its process is gone.")
    assert 'phase "forward and backward" of step 4, samples clip-k' in out


def test_process_that_was_stopped_does_not_blame_itself(processes: Processes, tmp_path: Path) -> None:
    body = 'liveness.phase("data", 1)\n(run / "runs").touch()\nuntil("on")\nuntil_time = time.monotonic() + 0.3\n'
    body += "while time.monotonic() < until_time:\n    time.sleep(0.01)\nliveness.close()"
    process = processes.start(body, timeout=2)
    wait_for((tmp_path / "runs").exists)
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(process))
    time.sleep(3)
    (tmp_path / "on").touch()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "")
    assert "rank 0: this process did not run for" in err


def test_stacks_are_written_while_native_code_holds_python(processes: Processes, tmp_path: Path) -> None:
    body = "def hold_python():\n    ctypes.PyDLL(None).usleep(1_000_000)\n"
    body += 'liveness.phase("update", 1)\ntime.sleep(0.3)\nhold_python()\n'
    process = processes.start(body + 'liveness.phase("data", 2)\ntime.sleep(0.3)\nliveness.close()')
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "did not run for" in err
    assert "in hold_python" in (tmp_path / "ranks/rank-0.stacks.txt").read_text()


def test_forked_children_end(processes: Processes) -> None:
    body = "time.sleep(0.4)\nchild = os.fork()\nif child == 0:\n    sys.exit(5)\nended = 0\nfor _ in range(500):\n"
    body += "    ended, status = os.waitpid(child, os.WNOHANG)\n    if ended:\n        break\n    time.sleep(0.01)\n"
    body += "else:\n    os.kill(child, signal.SIGKILL)\nprint(ended == child and os.waitstatus_to_exitcode(status))"
    process = processes.start(body, timeout=60)
    assert process.communicate(timeout=PATIENCE)[0] == "5\n"


def test_a_new_life_clears_the_former_one(tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    folder.mkdir()
    for name in ("late.json", "missing.json", "rank-0.json", "rank-0.stacks.txt", ".rank-0.json-0", "rank-1.json"):
        (folder / name).write_text('{"text": "old"}')
    liveness = Liveness(tmp_path, 0, 1, 1000, 1000)
    liveness.start()
    liveness.close()
    assert sorted(path.name for path in folder.iterdir()) == ["rank-0.json", "rank-0.stacks.txt", "rank-1.json"]
    assert json.loads((folder / "rank-0.json").read_text())["pid"] == os.getpid()
    assert (folder / "rank-0.stacks.txt").read_text() == ""


def test_nobody_is_missing_until_one_leaves(tmp_path: Path) -> None:
    pair = [Liveness(tmp_path, rank, 2, 1000, 1000, period=0.05) for rank in range(2)]
    try:
        for one in pair:
            one.start()
        assert pair[0].who_is_missing() is None
        (tmp_path / "ranks/missing.json").unlink()
        pair[1].phase("reduce", 8)
        pair[1].close()
        missing = pair[0].who_is_missing()
        assert missing is not None and "Rank 1" in missing and "has left the run" in missing and "step 8" in missing
    finally:
        for one in pair:
            one.close()


@pytest.mark.parametrize(
    ("signs", "own", "rank", "reason", "others"),
    [
        ([sign(0), sign(1, "data", seconds=2), sign(2)], 0, 1, "late", ()),  # waits for nobody
        ([sign(0, step=6), sign(1, "reduce"), sign(2, step=6)], 0, 1, "late", ()),  # a step behind
        ([sign(0, "reduce"), sign(1, "agree"), sign(2, "reduce")], 0, 1, "late", ()),  # the earlier collective
        ([sign(0), sign(1, "data"), sign(2, "data", seconds=11)], 0, 2, "late", (1,)),  # the longest, all are told
        ([sign(0, seconds=9), sign(1), sign(2, seconds=11)], 0, 2, "deadlock", (0, 1)),
        ([sign(0, "validate", 6), sign(1, "agree", 6), sign(2, "data")], 0, 0, "late", ()),  # its own time is up
        ([sign(0), sign(1, "update", closed=True), sign(2)], 0, 1, "left", ()),
        (
            [sign(0, "save"), sign(1, "end", closed=True), sign(2, closed=True)],
            0,
            0,
            "late",
            (),
        ),  # they had nothing to wait for
        ([sign(0), sign(1)], 0, 2, "absent", ()),
    ],
)
def test_who_is_late(signs: list[Sign], own: int, rank: int, reason: str, others: tuple[int, ...]) -> None:
    finding = late(table(*signs), (), 3, own, COLLECTIVE)
    assert (finding.rank, finding.reason, finding.others) == (rank, reason, others)


def test_phases_with_collectives_inside_can_be_declared() -> None:
    signs = table(sign(0, "forward and backward"), sign(1, "data"))
    assert late(signs, (), 2, 0, COLLECTIVE).rank == 0
    assert late(signs, (), 2, 0, COLLECTIVE | {"forward and backward"}).rank == 1


def test_what_this_host_sees_goes_before_silence() -> None:
    host, space = here()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    gone = sign(2, host=host, pid=child.pid, pid_space=space)
    assert lost(table(sign(0), sign(1), gone), {1}, 3) == Finding(2, "gone", gone)
    assert lost(table(sign(0), sign(1), replace(gone, closed=True)), (), 3) is None
    assert lost(table(sign(0), sign(1), replace(gone, pid_space="another")), (), 3) is None
    assert left(table(sign(0), replace(gone, closed=True))) is not None


def make_inquiry(folder: Path, own: int, world: int) -> Inquiry:
    return Inquiry(folder, own, world, Limits(100, 10), COLLECTIVE, 0.05)


@pytest.mark.parametrize("shift", [-3600, 3600])  # long ago, and from before a clock was set back
def test_only_a_sign_that_stays_as_it_is_means_silence(tmp_path: Path, shift: int) -> None:
    signs = [sign(0, "agree"), sign(1, "data"), sign(2, "data", seconds=12)]
    for one in signs:
        ranks.write_sign(tmp_path, one)
    now = time.time() + shift
    for rank in (1, 2):
        os.utime(tmp_path / f"rank-{rank}.json", (now, now))
    writer = threading.Timer(0.1, ranks.write_sign, (tmp_path, signs[2]))
    writer.start()
    verdict = make_inquiry(tmp_path, 0, 3).late(signs[0], True)
    writer.join()
    assert (verdict["rank"], verdict["reason"]) == (1, "silent")
    assert "Rank 1 (host node1, pid 101) gives no sign of life" in verdict["text"]


def test_the_first_verdict_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (sign(0), sign(1, "data")):
        ranks.write_sign(tmp_path, one)
    first = make_inquiry(tmp_path, 0, 2).late(sign(0), True)
    assert first["rank"] == 1 and first["found_by"] == 0
    ranks.write_sign(tmp_path, sign(0, "data", 4))
    assert make_inquiry(tmp_path, 1, 2).late(sign(1, "data"), True) == first
    (tmp_path / "late.json").write_text("")  # the first died over it: the next one speaks after a while
    monkeypatch.setattr(inquiry, "READING", 0.1)
    waiting = make_inquiry(tmp_path, 1, 2)
    assert not waiting.is_decided()
    assert waiting.late(sign(1, "agree"), True)["found_by"] == 1
    assert waiting.is_decided()
