"""Where bars are drawn, and that log lines reach standard error as they are."""

import io
import logging
import os
import pty
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from tinyworld.core import console
from tinyworld.core.console import CONSOLE, DRAWING, ConsoleHandler, counting, draws_on, redrawn


@pytest.fixture
def screen() -> Iterator[io.TextIOWrapper]:
    """A stream that is a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        yield stream
    os.close(ours)


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [
        ({}, True),
        ({"TERM": "xterm-256color", "CI": "false", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"NO_COLOR": "1"}, False),
        ({"CI": "true", "FORCE_COLOR": "1"}, False),
    ],
)
def test_a_terminal_is_drawn_on_unless_told_otherwise(
    screen: io.TextIOWrapper, environment: dict[str, str], drawn: bool
) -> None:
    assert draws_on(screen, environment) is drawn


def test_a_file_is_never_drawn_on() -> None:
    assert not draws_on(io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"})
    closed = io.StringIO()
    closed.close()
    assert not draws_on(closed, {"TERM": "xterm"})


def test_log_lines_and_bars_leave_no_control_characters_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    long = "[bold]a line[/bold] that is longer than a terminal is wide " * 4
    handler = ConsoleHandler()
    with counting("looking") as move:
        move(1, 2)
        handler.emit(logging.makeLogRecord({"msg": long}))
        handler.emit(logging.makeLogRecord({"msg": "the view shows this", "live": True}))
    assert capsys.readouterr().err == long + "\n"
    assert not CONSOLE.is_terminal


def test_lines_go_above_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Console(file=io.StringIO(), force_terminal=True, width=60, soft_wrap=True)
    monkeypatch.setattr(console, "CONSOLE", drawn)
    with counting("looking") as move:
        move(1, 2)
        ConsoleHandler().emit(logging.makeLogRecord({"msg": "a line"}))
    shown = drawn.file.getvalue()
    assert "a line\n" in shown and "looking" in shown.split("a line\n")[1]


def test_what_draws_in_a_thread_holds_the_lock_and_ends() -> None:
    drawing, tried, drawn = threading.Event(), threading.Event(), []

    def draw() -> None:
        drawn.append(1)
        drawing.set()
        assert tried.wait(60)

    with redrawn(draw, 0.001):
        assert drawing.wait(60)
        assert not DRAWING.acquire(blocking=False)
        tried.set()
    count = len(drawn)
    assert DRAWING.acquire(blocking=False)
    DRAWING.release()
    assert "drawing" not in {thread.name for thread in threading.enumerate()} and len(drawn) == count


def test_a_terminal_that_is_gone_does_not_end_what_is_logged_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(console, "CONSOLE", Console(file=Gone()))
    ConsoleHandler().emit(logging.makeLogRecord({"msg": "a line"}))
    assert "Input/output error" in capsys.readouterr().err


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    seconds = iter([0.0, 5.0, 21.0, 21.0, 30.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(seconds))
    with counting("rendering rooms") as move:
        for done in (1, 2, 3):
            move(done, 64)
    assert [record.getMessage() for record in caplog.records] == ["rendering rooms: 2 of 64"]
