"""`tinyworld replay` on a step that the real task skipped."""

from pathlib import Path

import pytest

from tests.cli.helpers import SMALL, refused
from tests.clips import make_clips
from tinyworld.cli.main import main
from tinyworld.engine import verdict


def test_a_skipped_step_comes_out_as_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "LEAST_HISTORY", 2)  # so that any rise of the loss is a spike
    clips = make_clips(tmp_path / "clips", count=3, frames=20, height=32, width=32)
    flags = [flag for flag in SMALL if not flag.startswith(("--max_train_steps", "--validation", "--checkpointing"))]
    where = [f"--data_root={clips}", f"--output_dir={tmp_path}", "--max_train_steps=20", "--spike_factor=1e-6"]
    assert main(["train", "taehv_demo", *flags, *where, "--validation_steps=20", "--rewind_after=0"]) == 0
    folder = min((tmp_path / "run" / "capsules").iterdir())
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "is a spike" in said and "rank 0: as recorded" in said and "gradient of decoder" in said
    assert "sample clip" in said
    assert "not a capsule" in refused(capsys, "replay", tmp_path)
