"""The command `doctor`: text, log, pipe, run folder; exit codes."""

import io
from pathlib import Path

import pytest

from tests.cli.helpers import refused
from tinyworld.cli.main import main
from tinyworld.core.errors import EXIT_USER_ERROR

MISMATCH = "The size of tensor a (17) must match the size of tensor b (16) at non-singleton dimension 1"


def assert_error_12(said: str) -> None:
    assert said.startswith("1. ") and "error 12 of the guide" in said and "--n_frames 20" in said
    assert "seen:" in said and "n_frames was 19" in said and max(map(len, said.splitlines())) <= 100


def test_a_message_as_one_argument_or_as_words(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([MISMATCH], MISMATCH.split()):
        assert main(["doctor", *words]) == 0
        assert_error_12(capsys.readouterr().out)


def test_a_log_and_a_pipe(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.log").write_bytes(b"step 1\r\n\xff\xfe\n" + MISMATCH.encode())
    for words in (["--log", str(tmp_path / "train.log")], [str(tmp_path / "train.log")]):
        assert main(["doctor", *words]) == 0
        said = capsys.readouterr().out
        assert_error_12(said)
        assert "train.log line 3" in said
    monkeypatch.setattr("sys.stdin", io.StringIO(f"step 1\n{MISMATCH}\n"))
    assert main(["doctor", "-"]) == 0
    assert_error_12(capsys.readouterr().out)


def test_a_finished_run_and_a_damaged_one(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    assert main(["doctor", str(run)]) == 0
    assert "finished at step 6" in capsys.readouterr().out
    (tmp_path / "checkpoint-500").mkdir()
    assert main(["doctor", str(tmp_path)]) == 0
    assert "checkpoint-500 is empty" in capsys.readouterr().out


def test_what_is_not_known_is_said_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("all is well", "x" * 5000, "null\0byte"):
        assert main(["doctor", text]) == EXIT_USER_ERROR
        said = capsys.readouterr().out
        assert said.startswith("No known cause.") and "training.log" in said


def test_a_command_is_shown_on_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "Signal 15 (SIGTERM) received by PID 2766193"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "tinyworld supervise RECIPE --run_name RUN" in lines


def test_mistakes_are_one_paragraph(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--log FILE" in refused(capsys, "doctor")
    assert "--log FILE" in refused(capsys, "doctor", "text", "--log", "x.log")
    assert "No file or folder output/not_there" in refused(capsys, "doctor", "output/not_there")
    for name in ("none.log", "none.txt"):
        assert f"No file or folder {name}. Name a log" in refused(capsys, "doctor", name)
    assert str(tmp_path / "none.log") in refused(capsys, "doctor", "--log", tmp_path / "none.log")
    assert "not a run folder" in refused(capsys, "doctor", tmp_path)
