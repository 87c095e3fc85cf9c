"""Where teachers are found, what is refused, and what their digest depends on."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file

from tests.teachers import make_teacher
from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.models.teachers import open_teacher, read_facts

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def wan(teachers: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(teachers["wan"], tmp_path / "wan"))


def rewrite(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_every_weight_comes_from_the_file(wan: Path) -> None:
    stored, loaded = load_file(wan / WEIGHTS), open_teacher(wan, dtype=torch.float32).vae.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)


def test_pipeline_folder(teachers: dict[str, Path], tmp_path: Path) -> None:
    path = make_teacher(tmp_path, "wan", pipeline=True)
    assert read_facts(path).path == path / "vae"
    assert open_teacher(path).digest == open_teacher(teachers["wan"]).digest


def test_sharded_weights(wan: Path) -> None:
    tensors = load_file(wan / WEIGHTS)
    names = list(tensors)
    shards = {"a.safetensors": names[:10], "b.safetensors": names[10:]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, wan / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (wan / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    (wan / WEIGHTS).unlink()
    loaded = open_teacher(wan, dtype=torch.float32).vae.state_dict()
    assert all(torch.equal(tensors[name], loaded[name]) for name in names)
    (wan / "b.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"has no b.safetensors; it holds a.safetensors"):
        open_teacher(wan)


def test_digest(teachers: dict[str, Path], wan: Path) -> None:
    path = teachers["wan"]
    usual = open_teacher(path).digest
    assert len(usual) == 64
    rewrite(wan, _name_or_path="elsewhere", _diffusers_version="0.1")
    assert open_teacher(wan).digest == usual, "neither the path nor who saved it matters"
    rewrite(wan, latents_std=[1.0] * 16)
    others = [
        open_teacher(wan).digest,
        open_teacher(path, dtype=torch.float32).digest,
        open_teacher(path, convention="raw").digest,
        open_teacher(path, tiling=True).digest,
        open_teacher(make_teacher(wan.parent / "other weights", "wan", seed=1)).digest,
        open_teacher(teachers["hunyuan"]).digest,
    ]
    assert len({usual, *others}) == 1 + len(others)


def test_missing_weights(wan: Path) -> None:
    (wan / WEIGHTS).rename(wan / "diffusion_pytorch_model.bin")
    with pytest.raises(
        MissingFileError, match=r"it holds config.json, diffusion_pytorch_model.bin.*teacher.ref_vae_path"
    ):
        open_teacher(wan)


def test_truncated_weights(wan: Path) -> None:
    content = (wan / WEIGHTS).read_bytes()
    (wan / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        open_teacher(wan)


def test_tensors_that_do_not_fit(wan: Path) -> None:
    tensors = load_file(wan / WEIGHTS)
    moved = tensors.pop("quant_conv.weight")
    save_file({**tensors, "quant_conv.kernel": moved, "post_quant_conv.bias": torch.zeros(3)}, wan / WEIGHTS)
    with pytest.raises(WeightsError) as error:
        open_teacher(wan)
    for said in (
        "missing (quant_conv.weight)",
        "unexpected (quant_conv.kernel)",
        "of another shape (post_quant_conv.bias)",
    ):
        assert said in str(error.value)


def test_config_that_makes_no_model(wan: Path) -> None:
    rewrite(wan, num_res_blocks="two")
    with pytest.raises(WeightsError, match="makes no AutoencoderKLWan"):
        open_teacher(wan)


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable is read at import
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for call in (read_facts, open_teacher):
        with pytest.raises(MissingFileError, match=r"'nobody/nothing'.*local folder works.*teacher.ref_vae_path"):
            call("nobody/nothing")


@pytest.mark.parametrize("pipeline", [True, False])
def test_hub_gives_config_first_and_weights_when_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: bool
) -> None:
    repository = make_teacher(tmp_path / "hub", "wan", pipeline=pipeline)
    asked: list[str] = []

    def config(repo: str, name: str) -> str:
        asked.append(name)
        if not (repository / name).is_file():
            raise EntryNotFoundError(name)
        return str(repository / name)

    def snapshot(repo: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(repository)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", config)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    assert read_facts("org/name").kind == "wan"
    assert asked == (["vae/config.json"] if pipeline else ["vae/config.json", "config.json"])
    assert open_teacher("org/name").digest == open_teacher(repository).digest
    prefix = "vae/" if pipeline else ""
    assert prefix + WEIGHTS in asked and prefix + "diffusion_pytorch_model-*.safetensors" in asked
