"""Shared fixtures. Development data lies beside the checkout and is not part of the project: tests skip without it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The development data folder, or a skip with the reason."""
    if not SHARED.is_dir():
        pytest.skip("the development data folder ../shared is absent")
    return SHARED
