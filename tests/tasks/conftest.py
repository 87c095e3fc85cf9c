"""What the tests of the taehv task share: a few clips, a tiny teacher, small recipes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clips import make_clips
from tests.teachers import make_teacher
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe

MakeRecipe = Callable[..., TaehvRecipe]


@pytest.fixture(scope="session")
def six_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"), count=6)


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wan VAE with random weights, in diffusers' format."""
    return make_teacher(tmp_path_factory.mktemp("teachers") / "wan", "wan")


@pytest.fixture
def distil(six_clips: Path, wan: Path, tmp_path: Path) -> MakeRecipe:
    """A small recipe in mode distil; keyword arguments are keys of the recipe."""

    def make(**changes: Any) -> TaehvRecipe:
        values: dict[str, Any] = {
            "data_root": str(six_clips), "height": 32, "width": 32, "n_frames": 12, "train_batch_size": 2,
            "encoder_width": 8, "decoder_widths": [16, 8, 8, 8], "num_workers": 0, "output_dir": str(tmp_path / "out"),
            "variant": "taew2_1", "held_out_fraction": 0.3, "validation_height": 32, "validation_width": 32,
            "use_ref_vae": True, "ref_vae_path": str(wan), "ref_vae_dtype": "fp32", "tracker_name": "none",
            "device": "cpu", "mixed_precision": "no", "lr_warmup_steps": 0, "num_preview_clips": 0,
            "perceptual_loss_weight": 0.0,
        }  # fmt: skip
        return load_recipe("taehv_demo", {**values, **changes})

    return make
