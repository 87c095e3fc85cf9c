"""Architectures as data."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from tinyworld.core.errors import ConfigError, WeightsError
from tinyworld.core.variants import VARIANTS, TaehvSpec, variant

# name: patch, latent channels, time compression, space compression, decoder block, flavour
TABLE = {
    "taehv": (1, 16, 4, 8, "base", "plain"),
    "taew2_1": (1, 16, 4, 8, "base", "plain"),
    "taecvx": (1, 16, 4, 8, "base", "cogvideox"),
    "taeos1_3": (1, 16, 4, 8, "base", "plain"),
    "taew2_2": (2, 48, 4, 16, "base", "plain"),
    "taehv1_5": (2, 32, 4, 16, "base", "plain"),
    "taeh3": (2, 24, 4, 16, "base", "h3"),
    "taeltx_2": (4, 128, 8, 32, "base", "plain"),
    "taeltx2_3": (4, 128, 8, 32, "base", "plain"),
    "taew2_2_super": (2, 48, 4, 16, "super", "plain"),
    "taehv1_5_super": (2, 32, 4, 16, "super", "plain"),
}


def test_the_public_variants_are_these() -> None:
    found = {
        name: (s.patch_size, s.latent_channels, s.t_down, s.spatial_compression, s.decoder_block, s.flavour)
        for name, s in VARIANTS.items()
    }
    assert found == TABLE


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_decodes_at_the_rate_it_encodes(name: str) -> None:
    spec = variant(name)
    assert (spec.t_up, spec.spatial_upscale) == (spec.t_down, spec.spatial_compression)
    assert spec.size_multiple == spec.spatial_compression


@pytest.mark.parametrize("name", VARIANTS)
def test_json_and_back(name: str) -> None:
    assert TaehvSpec.from_dict(json.loads(json.dumps(variant(name).to_dict()))) == variant(name)


def test_a_misspelt_variant_names_its_nearest() -> None:
    with pytest.raises(ConfigError, match=r'Did you mean "taew2_2"\?.*model\.variant'):
        variant("taew2.2")


def test_a_description_names_unknown_and_missing_keys() -> None:
    values = variant("taehv").to_dict()
    values["latent_chanels"] = values.pop("latent_channels")
    with pytest.raises(WeightsError, match=r"unknown keys: latent_chanels; missing keys: latent_channels"):
        TaehvSpec.from_dict(values)


def test_a_description_of_no_model_is_refused() -> None:
    with pytest.raises(WeightsError, match="decoder_widths"):
        TaehvSpec.from_dict({**variant("taehv").to_dict(), "decoder_widths": 64})
    with pytest.raises(WeightsError, match="flavour='vanilla' must be one of plain, cogvideox, h3"):
        TaehvSpec.from_dict({**variant("taehv").to_dict(), "flavour": "vanilla"})


def test_all_problems_of_a_spec_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TaehvSpec(patch_size=0, latent_channels=True, decoder_widths=(1, 2, 3), encoder_time_downscale=(1, 1, 0))  # type: ignore[arg-type]
    assert len(caught.value.problems) == 4


def test_h3_cuts_chunks_for_4x_compression_only() -> None:
    with pytest.raises(ConfigError, match="4x time compression"):
        replace(variant("taeh3"), encoder_time_downscale=(True, True, True))


def test_arithmetic_and_variants_load_without_torch() -> None:
    code = "import sys, tinyworld.core.frames, tinyworld.core.variants; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
