"""Real runs of two steps: a TAEHV that a small Wan VAE taught, and a geometry branch."""

from pathlib import Path

import pytest

from tests.clips import make_clips
from tests.infer.world.small import FRAMES, HEIGHT, WIDTH, make_base, make_codec
from tests.teachers import make_teacher
from tinyworld.config.load import load_recipe
from tinyworld.data.rooms import make_rooms
from tinyworld.engine.loop import run_training

SHORT = {
    "num_workers": 0, "tracker_name": "none", "device": "cpu", "cpu_threads": 1, "max_train_steps": 2, "lr_warmup_steps": 0,
    "log_steps": 1, "validation_steps": 2, "checkpointing_steps": 1, "mixed_precision": "no", "train_batch_size": 2,
    "held_out_fraction": 0.3, "run_name": "run", "num_preview_clips": 0,
}  # fmt: skip


@pytest.fixture(scope="session")
def taehv_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mode distil, from weights that a folder named `parent` holds."""
    from tinyworld.tasks.taehv import TaehvTask

    folder = tmp_path_factory.mktemp("taehv_run")
    (folder / "clips").mkdir()
    flags = {
        **SHORT, "data_root": str(make_clips(folder / "clips")), "height": 32, "width": 32, "n_frames": 12,
        "encoder_width": 8, "decoder_widths": [16, 8, 8, 8], "output_dir": str(folder), "variant": "taew2_1",
        "validation_height": 32, "validation_width": 32, "use_ref_vae": True, "ref_vae_dtype": "fp32",
        "ref_vae_path": str(make_teacher(folder / "wan_vae", "wan")), "perceptual_loss_weight": 0.0,
        "pretrained_model_path": str(make_codec(folder / "parent")),
    }  # fmt: skip
    recipe = load_recipe("taehv_demo", flags)
    return run_training(TaehvTask(recipe), recipe).folder


@pytest.fixture(scope="session")
def branch_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 1, two steps, in a few rendered rooms."""
    from tinyworld.tasks.fantasy.task import FantasyTask

    folder = tmp_path_factory.mktemp("branch_run")
    rooms = make_rooms(
        folder / "rooms", scenes=4, frames=7, height=HEIGHT, width=WIDTH, seed=3, points=False, workers=1
    )
    flags = {
        **SHORT, "dataset_base_path": str(rooms), "codec_path": str(make_codec(folder / "codec")), "height": HEIGHT,
        "width": WIDTH, "num_frames": FRAMES, "frame_steps": "1", "output_dir": str(folder), "num_validation_samples": 1,
        "validation_sigmas": "0.3", "backbone_path": str(make_base(folder / "base")), "frame_cache_mb": 16,
    }  # fmt: skip
    recipe = load_recipe("fantasy_demo_stage1", flags)
    return run_training(FantasyTask(recipe), recipe).folder
