"""The live view: what it tells, that it fits, that log lines survive it, that nothing is drawn where nobody looks."""

import io
import logging
import re
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.engine.fake import FakeTask, fake_recipe
from tests.engine.terminal import Terminal, run_in_terminal
from tinyworld.core.console import LOGGER, ConsoleHandler
from tinyworld.engine.live_numbers import POINTS, Curve, LiveNumbers, Smooth, Took, Validation, WarningsKept
from tinyworld.engine.live_view import LiveView
from tinyworld.engine.loop import run_training
from tinyworld.engine.signals import StopRequest

MEANS = {
    "losses/total": 0.5,
    "losses/reconstruction": 0.3,
    "losses/flicker": 0.2,
    "learning_rate": 2e-3,
    "gradient_norm": 1.5,
}


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def numbers_after(steps: int, clock: Clock, seconds: float = 0.5, waited: float = 0.01) -> LiveNumbers:
    made = LiveNumbers("demo", 0, 600, validate_every=150, save_every=100, metric="psnr", clock=clock)
    for step in range(1, steps + 1):
        clock.now += seconds
        made.stepped(step, Took(seconds, waited, 4), 0.5, MEANS)
    return made


def drawn(
    numbers: LiveNumbers, warned: WarningsKept, stop: StopRequest, width: int, height: int, plain: bool = False
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii" if plain else "utf-8")
    console = Console(file=file, force_terminal=True, color_system=None, width=width, height=height, soft_wrap=True)
    console.print(LiveView(numbers, warned, lambda: 1204.4, stop))
    file.seek(0)
    return file.read()


def test_the_view_tells_what_there_is_to_know() -> None:
    clock = Clock()
    numbers = numbers_after(320, clock)
    numbers.validation = Validation(300, {"ssim": 0.69, "psnr": 25.4}, 25.53, 150)
    numbers.counts = {"steps skipped": 2, "clips set aside": 0}
    warned, stop = WarningsKept(clock), StopRequest()
    warned.emit(logging.makeLogRecord({"msg": "warning: step 212 skipped\nand more", "levelno": logging.WARNING}))
    clock.now += 20
    numbers.begin("validating")
    clock.now += 5
    stop.signal_name = "SIGTERM"
    shown = drawn(numbers, warned, stop, 80, 24)
    for words in (
        "demo  step 320/600", "53%  3:05 gone  2:20 left", "0.5 →", "reconstruction 0.3 →", "flicker 0.2 →",
        "2 steps/s", "8 clips/s", "waits for data 2% of the time",
        "validation at 450 in 1:05", "checkpoint at 400 in 0:40", "psnr 25.4 at 300",
        "best 25.53 at 150", "ssim 0.69", "learning rate 0.002", "gradient norm 1.5", "memory 1,204 MiB", "steps skipped: 2",
        "validating, 0:05", "SIGTERM: saves and ends", "! 0:25 ago  step 212 skipped ",
    ):  # fmt: skip
        assert words in shown, words
    numbers.start = 150
    assert "step 320/600, resumed at 150" in drawn(numbers, warned, stop, 80, 24)
    assert "set aside" not in shown and "and more" not in shown and "warning:" not in shown


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (60, 24), (60, 10), (40, 12), (20, 6)])
def test_the_view_fits_its_terminal(width: int, height: int, plain: bool) -> None:
    clock = Clock()
    numbers = numbers_after(320, clock)
    numbers.name = "a_recipe_with_a_name_that_is_longer_than_anybody_would_think_of" * 2
    for number in range(12):
        numbers.terms[f"a_term_with_a_long_name_{number}" * (1 + number % 3)] = numbers.loss
    numbers.validation = Validation(300, {f"metric{n}": 1 / 3 for n in range(20)} | {"psnr": 25.4}, 25.53, 300)
    warned = WarningsKept(clock)
    for number in range(5):
        warned.emit(logging.makeLogRecord({"msg": f"warning {number}: 写真 " + "x" * 200, "levelno": 30}))
    lines = drawn(numbers, warned, StopRequest(), width, height, plain).splitlines()
    assert {cell_len(line) for line in lines} == {width}, "a frame whose right side is straight, and no line wraps"
    assert len(lines) <= height - 2, "room for a line of the log and the cursor"
    assert "! 0:00 ago" in lines[-2], "the newest warning is never left out"


def test_of_warnings_the_newest_stay() -> None:
    warned = WarningsKept(Clock())
    for number in range(5):
        warned.handle(logging.makeLogRecord({"msg": "warning %d", "args": (number,), "levelno": logging.WARNING}))
    assert [text for _, text in warned.kept] == ["warning 2", "warning 3", "warning 4"]


def test_a_loader_that_starves_the_training_is_named() -> None:
    assert "num_workers" not in drawn(numbers_after(5, Clock()), WarningsKept(), StopRequest(), 80, 24)
    slow = drawn(numbers_after(5, Clock(), waited=0.2), WarningsKept(), StopRequest(), 80, 24)
    assert "waits for data 40% of the time" in slow and "more data.num_workers?" in slow


def test_smoothed_values_and_their_trend() -> None:
    number = Smooth()
    for value in (1.0, 2.0, 3.0):
        number.add(value)
    assert number.value == pytest.approx(2.0) and number.trend is None, (
        "a plain mean at first, and too few to see a trend"
    )
    for direction, values in ((-1, range(60, 0, -1)), (1, range(1, 61)), (0, [5.0] * 60)):
        number = Smooth()
        for value in values:
            number.add(float(value))
        assert number.trend == direction


def test_the_curve_covers_all_steps_with_few_points() -> None:
    curve = Curve()
    for value in range(10 * POINTS):
        curve.add(float(value))
        assert len(curve.points) <= POINTS
    gaps = {second - first for first, second in zip(curve.points, curve.points[1:], strict=False)}
    assert len(gaps) == 1 and curve.points[0] == gaps.pop() - 1 and curve.points[-1] > 9 * POINTS


def test_time_left_counts_steps_and_validations() -> None:
    clock = Clock()
    numbers = numbers_after(440, clock)
    numbers.validation_seconds = 7.0
    assert numbers.seconds_left() == pytest.approx(160 * 0.5 + 2 * 7.0)  # at 450 and 600
    numbers.total = 610
    assert numbers.seconds_left() == pytest.approx(170 * 0.5 + 3 * 7.0)  # and one at the end
    numbers.total = 440
    assert numbers.seconds_left() is None and numbers.steps_to(100) is None
    assert numbers_after(0, clock).seconds_left() is None


def test_a_skipped_step_leaves_no_trace_in_the_loss() -> None:
    numbers = numbers_after(3, Clock())
    numbers.stepped(4, Took(0.5, 0.0, 4), None, {"losses/total": float("nan"), "losses/flicker": float("nan")})
    assert numbers.loss.value == pytest.approx(0.5) and numbers.terms["flicker"].value == pytest.approx(0.2)
    assert numbers.step == 4 and len(numbers.recent) == 4


RUNS = """
import logging, os, signal, sys, time, warnings
from pathlib import Path
from tests.engine.fake import FakeTask, fake_recipe
from tinyworld.core.console import ConsoleHandler
from tinyworld.core.errors import Interrupted
from tinyworld.engine.live_numbers import LiveNumbers
from tinyworld.engine.loop import run_training
from tinyworld.engine.progress import TrainingProgress
from tinyworld.engine.signals import StopRequest

logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ConsoleHandler()])

def run(name, hook=None):
    task = FakeTask(frozenset({7}))
    task.step_hook = hook or (lambda step: time.sleep(0.06))
    run_training(task, fake_recipe(Path(sys.argv[1]) / name))

def says(step):
    time.sleep(0.06)
    if step == 12:
        print("a word on standard output")
        warnings.warn("a word of a library")

def signals(step):
    if step == 12:
        os.kill(os.getpid(), signal.SIGTERM)

def fails(step):
    if step == 12:
        raise RuntimeError("no power")

run("whole", says)
print("AFTER THE WHOLE RUN")
try:
    run("stopped", signals)
except Interrupted:
    print("AFTER THE SIGNAL")
try:
    run("failed", fails)
except RuntimeError:
    print("AFTER THE ERROR")
sys.stdout.flush()
with TrainingProgress(LiveNumbers("fake", 3, 20), lambda: 1.0, StopRequest()):
    print("WITHOUT END", end="")
    time.sleep(100)
"""


def test_log_lines_survive_on_a_terminal_and_it_is_left_as_it_was(tmp_path: Path) -> None:
    width = 60
    command = [sys.executable, "-c", RUNS, str(tmp_path)]
    code, written, same = run_in_terminal(command, width, 24, kill_at=("resumed at 3", 2))
    screen = Terminal(width)
    screen.write(written)
    assert code == -9, screen.text  # killed at the end; there as everywhere the cursor is to be seen
    assert same and screen.cursor_shown
    flowing = "".join(line.ljust(width) for line in screen.rows)  # a long line goes on in the next row
    for run in ("whole", "stopped", "failed"):
        logged = (tmp_path / run / "run" / "training.log").read_text().splitlines()
        told = [line.split(" ", 3)[3] for line in logged]
        assert any(line.startswith("step 5/20  loss") for line in told), (
            "the log file has the lines that the view stands for"
        )
        for line in told:
            assert (line in flowing) is not line.startswith(("step 5/", "step 10/", "step 15/", "step 20/")), line
    for words in ("a word on standard output", "UserWarning: a word of a library"):
        assert words in screen.text
    views = [part.split("╮")[0] for part in screen.text.split("╭─ ")[1:]]
    assert [view.split("  ")[1].split(" ─")[0] for view in views] == [
        "step 20/20",
        "step 13/20",
        "step 12/20",
        "step 3/20, resumed at 3",
    ], "one frame of each run is left, and none of what it was before"
    rows = screen.text.splitlines()
    for words in ("AFTER THE WHOLE RUN", "AFTER THE SIGNAL", "AFTER THE ERROR"):
        assert words in rows, "what follows begins on a line of its own"
    assert re.search(r"! \d+:\d\d ago", screen.text) and "steps skipped: 1" in screen.text


PROGRAMS = """
import logging, os, sys, time
from pathlib import Path
from tests.engine.fake import FakeTask, fake_recipe
from tinyworld.core.console import LOGGER, ConsoleHandler
from tinyworld.engine.live_numbers import LiveNumbers, Took
from tinyworld.engine.loop import run_training
from tinyworld.engine.progress import TrainingProgress
from tinyworld.engine.signals import StopRequest

logging.basicConfig(format="%(message)s")
library = logging.getLogger("a_library")
library.propagate = False
library.addHandler(logging.StreamHandler(sys.stdout))

def says(step):
    time.sleep(0.06)
    if step == 12:
        library.warning("a word of a library")

def run(name):
    task = FakeTask(frozenset({7}))
    task.step_hook = says
    run_training(task, fake_recipe(Path(sys.argv[1]) / name))

def until(holds):
    while not holds():
        time.sleep(0.01)

run("plain")
LOGGER.warning("AFTER THE RUN")
assert [handler.stream for handler in logging.root.handlers + library.handlers] == [sys.stderr, sys.stdout]
assert sys.stdout is sys.__stdout__ and not any(handler.filters for handler in logging.root.handlers)

class Own(logging.Handler):
    def emit(self, record):
        os.write(2, (self.format(record) + chr(10)).encode())

logging.root.handlers[:] = [Own()]
run("own")
logging.root.handlers[:] = [logging.StreamHandler()]

numbers, drawn = LiveNumbers("failing", 0, 20), []
def memory():
    drawn.append(1)
    if len(drawn) > 1:
        raise OSError("nothing to measure")
    return 1.0
class State:
    step, skipped_total, rewinds, faults = 1, 0, 0, {}
with TrainingProgress(numbers, memory, StopRequest()) as progress:
    until(lambda: len(drawn) > 1)
    progress.stepped(State(), Took(1, 1, 1), 1.0, {})
    print("the training goes on")
    progress.line(1, {"loss": 1.0})
assert len(drawn) == 2, "nothing is drawn after a failure"
print("AFTER THE FAILURE")

drawn.clear()
with TrainingProgress(LiveNumbers("parent", 0, 20), lambda: drawn.append(1) or 1.0, StopRequest()):
    until(lambda: drawn)
    print("half a line", end=" ")
    child = os.fork()
    if child == 0:
        frames = len(drawn)
        print("a child", end=" ")
        print("speaks")
        print("half", end="")
        LOGGER.warning("its log")
        ConsoleHandler().emit(logging.makeLogRecord({"msg": "its console"}))
        sys.stdout.flush()
        os._exit(len(drawn) - frames)
    assert os.waitpid(child, 0)[1] == 0, "a child draws no frame"
    print("and its rest")
    late = os.fork()
    if late == 0:
        until(lambda: os.path.exists(sys.argv[1] + "/over"))
        print("a late child", flush=True)
        os._exit(0)
print("AFTER THE FORKS")
open(sys.argv[1] + "/over", "w").close()
os.waitpid(late, 0)
"""


def test_the_view_bears_how_a_program_logs_what_fails_and_who_is_forked(tmp_path: Path) -> None:
    width = 100
    code, written, same = run_in_terminal([sys.executable, "-c", PROGRAMS, str(tmp_path)], width, 30)
    screen = Terminal(width)
    screen.write(written)
    assert code == 0 and same and screen.cursor_shown, screen.text
    plain, own = screen.text.split("AFTER THE RUN\n")
    flowing = "".join(line.ljust(width) for line in plain.splitlines())
    for line in (tmp_path / "plain" / "run" / "training.log").read_text().splitlines():
        told = line.split(" ", 3)[3]
        assert (told in flowing) is not told.startswith(("step 5/", "step 10/", "step 15/", "step 20/")), told
    assert "a word of a library" in plain.splitlines() and plain.count("╭") == plain.count("╰") == 1
    own, failing = own.split("the training goes on\n")
    assert "step 5/20  loss" in own and "a word of a library" in own and "╭" not in own, "lines in place of a view"
    assert "warning: the live view has ended, the run has not: OSError: nothing to measure\n" in own
    failing, forked = failing.split("AFTER THE FAILURE\n")
    assert failing.startswith("step 1/20  loss 1") and "╭" not in failing
    assert forked.count("half a line") == 1 and "half a line and its rest" in forked.splitlines()
    rows = forked.splitlines()
    assert [row for row in rows if "child" in row] == ["a child speaks", "a late child"]
    assert {"its log", "its console", "half", "AFTER THE FORKS"} < set(rows)
    assert forked.count("╭") == forked.count("╰") == 1, "no child wrote into the frame"


def test_a_frame_may_be_drawn_in_the_middle_of_a_step() -> None:
    numbers = LiveNumbers("demo", 0, 600)
    numbers.loss.add(0.5)
    assert "loss" not in drawn(numbers, WarningsKept(), StopRequest(), 80, 24)
    numbers.curve.add(0.5)
    assert "loss    0.5" in drawn(numbers, WarningsKept(), StopRequest(), 80, 24)


def test_without_a_terminal_there_is_a_line_per_interval_and_no_control_character(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    handler = ConsoleHandler()
    LOGGER.addHandler(handler)
    try:
        run_training(FakeTask(frozenset({7})), fake_recipe(tmp_path))
    finally:
        LOGGER.removeHandler(handler)
    shown = capsys.readouterr()
    assert shown.out == "" and "\x1b" not in shown.err and "\r" not in shown.err and "╭" not in shown.err
    lines = [line.split("  ")[0] for line in shown.err.splitlines() if line.startswith("step ") and "  loss " in line]
    assert lines == ["step 5/20", "step 10/20", "step 15/20", "step 20/20"]
