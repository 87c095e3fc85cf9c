"""Agreement with the public reference implementation on every golden case."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.models.taehv.formula import formula_model
from tinyworld.core.frames import decoded_count, latent_count
from tinyworld.core.variants import variant
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.model import Mode

TOLERANCE = 1e-4
CASES = {  # case: variant, preview flags
    "base_n12": ("taehv", None),
    "base_n10": ("taew2_1", None),
    "base_n20": ("taeos1_3", None),
    "cogvideox_n16_even": ("taecvx", None),
    "cogvideox_n12_odd": ("taecvx", None),
    "wan22_patch2_n9": ("taew2_2", None),
    "hunyuan15_patch2_n8": ("taehv1_5", None),
    "ltx_patch4_n16": ("taeltx_2", None),
    "super_wan22_n8": ("taew2_2_super", None),
    "preview_no_time_upscale_n12": ("taehv", {"time": False, "space": True}),
    "preview_no_upscale_n12": ("taehv", {"time": False, "space": False}),
}


def case_of(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], Taehv]:
    entry = next(entry for entry in json.loads((shared / "golden/cases.json").read_text()) if entry["name"] == name)
    variant_name, flags = CASES[name]
    model = formula_model(variant(variant_name))
    return entry, load_file(shared / f"golden/{name}.safetensors"), model.preview(**flags) if flags else model


@pytest.mark.shared
def test_no_case_is_left_out(shared: Path) -> None:
    assert {entry["name"] for entry in json.loads((shared / "golden/cases.json").read_text())} == set(CASES)


@pytest.mark.shared
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_golden(shared: Path, name: str) -> None:
    entry, tensors, model = case_of(shared, name)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry["params"]
    for mode in get_args(Mode):
        latents = model.encode(tensors["frames"], mode=mode)
        decoded = model.decode(tensors["latents"], mode=mode)
        torch.testing.assert_close(latents, tensors["latents"], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(decoded, tensors["decoded"], atol=TOLERANCE, rtol=0)
    assert tensors["latents"].shape[1] == latent_count(entry["frames"], model.spec)
    assert tensors["decoded"].shape[1] == decoded_count(tensors["latents"].shape[1], model.spec)
