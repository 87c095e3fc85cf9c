"""Rooms and codecs for the tests of the cache of conditions."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.fantasy.cache.helpers import CUTS, SMALL
from tests.teachers import make_teacher
from tinyworld.data.rooms import make_rooms
from tinyworld.models.taehv import Taehv


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms") / "rooms"
    return make_rooms(folder, scenes=4, frames=11, height=32, width=48, seed=5, points=False, workers=1)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two TAEHV of other weights, and a Wan VAE."""
    folder = tmp_path_factory.mktemp("codecs")
    for seed in (0, 1):
        torch.manual_seed(seed)
        Taehv.from_variant("taew2_1", **SMALL).save_pretrained(folder / str(seed))
    return [folder / "0", folder / "1", make_teacher(folder / "vae", "wan")]


@pytest.fixture
def worlds(rooms: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(rooms, tmp_path / "worlds")


@pytest.fixture
def flags(worlds: Path, codecs: list[Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "dataset_base_path": str(worlds), "height": 32, "width": 32, "num_frames": 5, "frame_steps": [1, 2],
        "codec_path": str(codecs[0]), "condition_cache": str(tmp_path / "cache"), "cached_crops": CUTS, "num_workers": 0,
        "train_batch_size": 2, "device": "cpu", "output_dir": str(tmp_path / "out"), "tracker_name": "none",
    }  # fmt: skip
