"""What a model is called: a bare variant's name only where it is one."""

from pathlib import Path
from typing import Any

import pytest

from tinyworld.core.variants import VARIANTS
from tinyworld.report.model_label import label_of_run, model_label
from tinyworld.report.read import Run

NARROW = {"encoder_width": 32, "decoder_widths": [128, 64, 32, 32]}
TAUGHT, ALONE = {"use_ref_vae": True}, {"use_ref_vae": False}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_public_model_is_called_by_its_name(name: str) -> None:
    spec = VARIANTS[name]
    assert model_label(name, spec.encoder_width, spec.decoder_widths, own_latents=False) == name


@pytest.mark.parametrize(
    ("model", "teacher", "label"),
    [
        ({}, TAUGHT, "taew2_1"),
        ({}, {}, "taew2_1"),  # nothing says that its latents are its own
        ({"encoder_width": None, "decoder_widths": None}, ALONE, "taew2_1 layout, own latents"),
        (NARROW, TAUGHT, "taew2_1 layout, narrow (32; 128, 64, 32, 32)"),
        (NARROW, ALONE, "taew2_1 layout, narrow (32; 128, 64, 32, 32), own latents"),
        ({"encoder_width": 96}, TAUGHT, "taew2_1 layout, other widths (96; 256, 128, 64, 64)"),
        ({"pretrained_model_path": "a.pth", "train_part": "decoder"}, ALONE, "taew2_1"),
        ({"pretrained_model_path": "a.pth", "train_part": "both"}, ALONE, "taew2_1 layout, own latents"),
        ({"decoder_widths": "damaged"}, TAUGHT, "taew2_1"),
        ({"variant": "of another version"}, ALONE, "of another version"),
    ],
)
def test_settings_of_a_run(model: dict[str, Any], teacher: dict[str, Any], label: str) -> None:
    run = Run(Path(), config={"model": {"variant": "taew2_1", **model}, "teacher": teacher})
    assert label_of_run(run) == label


def test_a_world_model_has_none() -> None:
    assert label_of_run(Run(Path(), config={"model": {"size": "1.3b"}})) is None
