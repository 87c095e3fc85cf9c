"""Clips and one finished run, made once for all tests of the commands."""

from pathlib import Path

import pytest

from tests.cli.helpers import SMALL
from tests.clips import make_clips
from tinyworld.cli.main import main


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps."""
    output = tmp_path_factory.mktemp("output")
    assert main(["train", "taehv_demo", f"--data_root={clips}", f"--output_dir={output}", *SMALL]) == 0
    return output / "run"


@pytest.fixture(autouse=True)
def _own_working_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write below the working directory unless told otherwise; the checkout stays clean."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
