"""A small video world to train: rendered rooms, a narrow codec, a transformer with random weights, and recipes over them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.infer.world.small import FRAMES, HEIGHT, WIDTH, make_base, make_codec
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe
from tinyworld.data.rooms import make_rooms


@dataclass(frozen=True)
class Small:
    """Folders that recipes name."""

    rooms: Path
    codec: Path
    base: Path

    def recipe(self, name: str, output: Path, run: str, **flags: Any) -> FantasyRecipe:
        """The demo's recipe `name` at the smallest size, two steps long."""
        own: dict[str, Any] = {
            "dataset_base_path": str(self.rooms), "codec_path": str(self.codec), "height": HEIGHT, "width": WIDTH,
            "num_frames": FRAMES, "frame_steps": "1", "num_workers": 0, "frame_cache_mb": 16, "held_out_fraction": 0.3,
            "output_dir": str(output), "run_name": run, "tracker_name": "none", "device": "cpu", "cpu_threads": 1,
            "train_batch_size": 2, "max_train_steps": 2, "lr_warmup_steps": 1, "log_steps": 1, "validation_steps": 2,
            "checkpointing_steps": 1, "num_validation_samples": 1, "num_preview_clips": 1, "mixed_precision": "no",
            "validation_sigmas": "0.3", "ema_decay": 0.5,
        }  # fmt: skip
        if name != "fantasy_demo_base":
            own["backbone_path"] = str(self.base)
        recipe = load_recipe(name, {**own, **flags})
        assert isinstance(recipe, FantasyRecipe)
        return recipe


def make_small(folder: Path) -> Small:
    rooms = make_rooms(
        folder / "rooms", scenes=4, frames=7, height=HEIGHT, width=WIDTH, seed=3, points=False, workers=1
    )
    return Small(rooms, make_codec(folder / "codec"), make_base(folder / "base"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("small_world"))
