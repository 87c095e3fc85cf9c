"""What the tests of the commands share."""

from pathlib import Path

import pytest

from tinyworld.cli.main import main
from tinyworld.core.errors import EXIT_USER_ERROR

SMALL = [
    "--height=32", "--width=32", "--n_frames=8", "--train_batch_size=2", "--encoder_width=8", "--decoder_widths=16,8,8,8",
    "--max_train_steps=6", "--lr_warmup_steps=1", "--validation_steps=3", "--checkpointing_steps=3", "--num_workers=0",
    "--num_preview_clips=1", "--tracker_name=none", "--device=cpu", "--run_name=run", "--held_out_fraction=0.3",
]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """Run a command that must end with exit code 2 and one paragraph; returns the paragraph."""
    assert main([str(part) for part in argv]) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert "error:" in said and "Traceback" not in said
    return said
