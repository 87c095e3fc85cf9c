"""Rendered rooms, small: three scenes of nine frames with depth, points and cameras."""

from pathlib import Path

import pytest

from tinyworld.data.rooms import make_rooms
from tinyworld.data.worlds.layout import list_worlds
from tinyworld.data.worlds.scan import WorldRef, scan_worlds

FRAMES, HEIGHT, WIDTH = 9, 32, 48


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set's folder."""
    folder = tmp_path_factory.mktemp("worlds") / "rooms"
    return make_rooms(folder, scenes=3, frames=FRAMES, height=HEIGHT, width=WIDTH, seed=5, workers=1)


@pytest.fixture
def worlds(rooms: Path) -> list[WorldRef]:
    """Its samples, as a scan finds them."""
    report = scan_worlds(list_worlds(rooms))
    report.check(0)
    return report.worlds
