"""What is read from a teacher's config alone, and its arithmetic."""

import json
import sys
from pathlib import Path

import pytest

from tests.teachers import KINDS
from tinyworld.core.errors import DataError, FramePlanError, MissingFileError, WeightsError
from tinyworld.models.teachers import TeacherFacts, read_facts

# kind: latent channels, frames per latent, pixels per latent cell, convention
REAL = {
    "cogvideox": (16, 4, 8, "raw"),
    "wan": (16, 4, 8, "normalised"),
    "wan2_2": (48, 4, 16, "normalised"),
    "hunyuan": (16, 4, 8, "scaled"),
    "hunyuan1_5": (32, 4, 16, "scaled"),
    "ltx": (128, 8, 32, "normalised"),
    "ltx2": (128, 8, 32, "normalised"),
}


def config_only(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_small_teachers_state_the_real_compression(teachers: dict[str, Path], kind: str) -> None:
    facts = read_facts(teachers[kind])
    assert (facts.latent_channels, facts.t_down, facts.spatial_compression, facts.convention) == REAL[kind]
    assert facts.class_name == KINDS[kind][0] and facts.path == teachers[kind]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wan2_2"])
def test_a_bare_config_gives_the_real_model(tmp_path: Path, kind: str) -> None:
    """Values that an older config.json leaves out are the class's defaults."""
    facts = read_facts(config_only(tmp_path, _class_name=KINDS[kind][0]))
    assert (facts.latent_channels, facts.t_down, facts.spatial_compression, facts.convention) == REAL[kind]


def test_ltx_0_9_5_counts_its_mixed_stages(tmp_path: Path) -> None:
    kinds = ["spatial", "temporal", "spatiotemporal", "spatiotemporal"]
    folder = config_only(
        tmp_path,
        _class_name="AutoencoderKLLTXVideo",
        down_block_types=["LTXVideo095DownBlock3D"] * 4,
        spatio_temporal_scaling=[True] * 4,
        downsample_type=kinds,
    )
    facts = read_facts(folder)
    assert (facts.t_down, facts.spatial_compression) == (8, 32)


def test_facts_need_no_weights_and_no_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    folder = config_only(tmp_path / "vae", _class_name="AutoencoderKLWan")
    assert read_facts(tmp_path).path == folder
    assert read_facts(str(folder)).path == folder


@pytest.mark.parametrize(
    ("kind", "counts", "wrong"),
    [
        ("wan", {1: 1, 5: 2, 9: 3, 13: 4, 81: 21}, {12: (9, 13), 2: (1, 5), 0: (1,)}),
        ("ltx", {1: 1, 9: 2, 25: 4}, {12: (9, 17)}),
        # 12 frames would become 3 latents in pairs, which is not what the decoder aligns with; 13 would come back as 16
        ("cogvideox", {1: 1, 8: 2, 9: 3, 16: 4, 17: 5, 49: 13}, {12: (9, 16), 13: (9, 16), 4: (1, 8), 0: (1,)}),
    ],
)
def test_frame_counts(
    teachers: dict[str, Path], kind: str, counts: dict[int, int], wrong: dict[int, tuple[int, ...]]
) -> None:
    facts = read_facts(teachers[kind])
    assert {n: facts.latent_count(n) for n in counts} == counts
    assert all(facts.decoded_count(latents) == n for n, latents in counts.items())
    for n, nearest in wrong.items():
        with pytest.raises(
            FramePlanError, match=rf"n_frames={n}.*{' or '.join(map(str, nearest))} .*data.n_frames"
        ) as e:
            facts.latent_count(n)
        assert e.value.nearest == nearest


def test_sizes(teachers: dict[str, Path]) -> None:
    facts: TeacherFacts = read_facts(teachers["ltx"])
    facts.check_size(64, 96)
    with pytest.raises(DataError, match=r"width=100 .* 32.*96 or 128 \(key: data.width\)"):
        facts.check_size(64, 100)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "names no _class_name"),
        ({"_class_name": "AutoencoderKLWaan"}, 'Did you mean "AutoencoderKLWan"'),
        ({"_class_name": "CogVideoXTransformer3DModel"}, "Supported: AutoencoderKLCogVideoX"),
        ({"_class_name": "AutoencoderKLWan", "z_dim": "many"}, "z_dim='many' must be a whole number"),
        ({"_class_name": "AutoencoderKLWan", "dim_mult": 4}, "dim_mult=4 must be a list"),
        ({"_class_name": "AutoencoderKLWan", "temperal_downsample": [True] * 3}, "8x time compression"),
    ],
)
def test_unusable_configs(tmp_path: Path, values: dict[str, object], said: str) -> None:
    with pytest.raises(WeightsError) as error:
        read_facts(config_only(tmp_path, **values))
    assert said in str(error.value) and str(tmp_path) in str(error.value)


def test_no_json_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": ')
    with pytest.raises(WeightsError, match="not readable JSON"):
        read_facts(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(MissingFileError, match="no config.json in it, nor in vae/"):
        read_facts(tmp_path)
    with pytest.raises(MissingFileError, match=r"teacher.ref_vae_path"):
        read_facts(tmp_path / "absent")
    (tmp_path / "vae.safetensors").touch()
    with pytest.raises(MissingFileError, match="is a file; a teacher is a diffusers folder"):
        read_facts(tmp_path / "vae.safetensors")
