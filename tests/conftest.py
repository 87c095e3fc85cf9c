"""Shared fixtures. Development data lies beside the checkout and is not part of the project: tests skip without it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no defect of the code: no test judges time.
settings.register_profile("tinyworld", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tinyworld")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The development data folder, or a skip with the reason."""
    if not SHARED.is_dir():
        pytest.skip("the development data folder ../shared is absent")
    return SHARED
