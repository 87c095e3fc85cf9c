"""`tinyworld report`: one run, several, and where the page goes."""

from pathlib import Path

import pytest

from tests.cli.helpers import refused
from tests.report.conftest import write_run
from tinyworld.cli.main import main


def test_one_run_has_its_page_and_several_have_one_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    assert main(["report", str(first)]) == 0
    assert main(["report", str(first), str(second)]) == 0
    assert main(["report", str(second), "--output", str(tmp_path / "own.html")]) == 0
    pages = [first / "report.html", tmp_path / "report-compare.html", tmp_path / "own.html"]
    assert capsys.readouterr().out.split() == [str(page) for page in pages]
    one, both, own = (page.read_text(encoding="utf-8") for page in pages)
    assert "<h1>2 runs compared</h1>" in both and "<h1>a</h1>" in one and "<h1>b</h1>" in own
    assert not (second / "report.html").exists()


def test_mistakes_are_one_paragraph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(tmp_path / "a")
    assert "more than once" in refused(capsys, "report", first, first)
    assert "is not a run folder" in refused(capsys, "report", first, tmp_path)
    assert "there is no folder" in refused(capsys, "report", first, "--output", tmp_path / "none" / "page.html")
    assert "is a folder" in refused(capsys, "report", first, "--output", tmp_path)
    other = write_run(tmp_path / "b")
    (other / "config.yaml").write_text("task: fantasy_world\n")
    assert "of different tasks" in refused(capsys, "report", first, other)
