"""The examples as a user runs them: programs of their own, from another folder, on a few small clips."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clips import make_clips

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Run = Callable[..., str]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"), count=5, frames=16, height=72, width=72)


@pytest.fixture
def run_example(tmp_path: Path) -> Run:
    """Run examples/NAME with arguments in tmp_path; what it prints, errors included."""

    def run(name: str, *arguments: str, code: int = 0) -> str:
        command = [sys.executable, str(EXAMPLES / name), *arguments]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == code, done.stdout
        assert "Warning" not in done.stdout and "Traceback" not in done.stdout
        return done.stdout

    return run
