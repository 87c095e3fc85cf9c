"""One small teacher of every kind, written once per test session."""

from pathlib import Path

import pytest

from tests.teachers import KINDS, make_teacher


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("teachers")
    return {kind: make_teacher(folder / kind, kind) for kind in KINDS}
