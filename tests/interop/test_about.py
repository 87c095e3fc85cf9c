"""What weight files say of themselves, and what is found out about weights that are exported."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from tests.interop.public_taehv import blank
from tests.models.taehv.formula import formula_model, small_spec
from tinyworld.core.errors import ConfigError, MissingFileError, WeightsError
from tinyworld.core.variants import variant
from tinyworld.core.version import __version__
from tinyworld.interop.card import write_card
from tinyworld.interop.source import open_source
from tinyworld.models.taehv import Taehv, weights
from tinyworld.models.taehv.quantise import compress

ABOUT = {"variant": "taew2_1", "latents": "normalised", "recipe": "mine", "step": 7, "license": "mit"}


def test_metadata_and_json_say_the_same(tmp_path: Path) -> None:
    model = formula_model(small_spec("taew2_1"))
    model.save_pretrained(tmp_path, ABOUT)
    config = json.loads((tmp_path / "config.json").read_text())
    stated = {"architecture": "taehv", "spec": model.spec.to_dict(), "tinyworld_version": __version__}
    assert config == {**stated, **ABOUT}
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as content:
        metadata = content.metadata()
    texts = {key: str(value) for key, value in ABOUT.items()}
    assert metadata == {"format": "pt", **stated, "spec": json.dumps(stated["spec"]), **texts}
    assert weights.read_about(tmp_path) == texts
    assert Taehv.from_pretrained(tmp_path).spec == model.spec
    with pytest.raises(ValueError, match="nothing called author"):
        model.save_pretrained(tmp_path, {"author": "me"})


def test_files_without_a_word_say_nothing(tmp_path: Path) -> None:
    model = formula_model(small_spec("taew2_1"))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert weights.read_about(tmp_path / "a.pth") == {} and not weights.states_architecture(tmp_path / "a.pth")
    model.save_pretrained(tmp_path / "b", {"step": None})
    assert weights.read_about(tmp_path / "b") == {} and weights.states_architecture(tmp_path / "b")


def test_a_run_stands_for_its_best_model(taehv_run: Path) -> None:
    found = open_source(taehv_run)
    assert found.weights == (taehv_run / "best_model").resolve() and found.run is not None
    assert found.about == {"variant": "taew2_1", "latents": "normalised", "recipe": "taehv_demo", "step": 2}
    assert open_source(taehv_run / "checkpoint-1").about["step"] == 1
    assert open_source(taehv_run / "latest.safetensors").about["step"] == 2
    given = open_source(taehv_run, latents="raw", license_name="mit").about
    assert (given["latents"], given["license"]) == ("raw", "mit")


@pytest.mark.parametrize(
    ("changes", "latents"),
    [
        ({"teacher": {"use_ref_vae": False}}, "own"),
        ({"teacher": {"use_ref_vae": False}, "model": {"train_part": "decoder"}}, "normalised"),
        ({"teacher": {"use_ref_vae": False}, "model": {"train_part": "both", "pretrained_model_path": None}}, "own"),
    ],
)
def test_the_settings_tell_which_latents(
    changes: dict[str, dict[str, object]], latents: str, taehv_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(taehv_run, run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    for section, values in changes.items():
        settings[section] |= values
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert open_source(run).about["latents"] == latents


def test_the_journal_tells_more_than_a_name(taehv_run: Path, tmp_path: Path) -> None:
    """A variant may have been chosen for its sizes: Wan 2.1's and HunyuanVideo's are alike, a VAE of one's own like any."""
    shutil.copytree(taehv_run, tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    told = journal.read_text()
    journal.write_text(told.replace('"latents": "normalised"', '"latents": "raw"'))
    assert open_source(tmp_path / "run").about["latents"] == "raw"
    journal.write_text(told.replace("AutoencoderKLWan", "MyVae"))
    found = open_source(tmp_path / "run")
    assert "variant" not in found.about and found.about["latents"] == "normalised"
    card = write_card(found, "me/x")
    assert "takes the latents of the reference VAE MyVae" in card and "Wan 2.1" not in card and "TaehvVae" not in card
    assert open_source(tmp_path / "run", "taew2_1").about["variant"] == "taew2_1"


def test_bare_files(tmp_path: Path) -> None:
    torch.save(blank(variant("taew2_2")), tmp_path / "a.pth")
    assert open_source(tmp_path / "a.pth").about == {"variant": "taew2_2", "latents": "normalised"}
    torch.save(blank(variant("taecvx")), tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="several variants"):
        open_source(tmp_path / "b.pth")
    assert open_source(tmp_path / "b.pth", "taecvx").about == {"variant": "taecvx", "latents": "raw"}
    small = formula_model(small_spec("taecvx"))
    weights.write_folder(tmp_path / "c", compress(small.state_dict(), "int8"), small.spec)
    found = open_source(tmp_path / "c")
    assert found.about == {"variant": "taecvx", "latents": "raw"}  # the one variant with this law
    assert {tensor.dtype for tensor in found.taehv()[1].values()} == {torch.float32}
    assert found.model().spec == small.spec
    with pytest.raises(ConfigError, match="--variant taew2_2, but .* states another architecture"):
        open_source(tmp_path / "c", "taew2_2")


def test_what_cannot_be_exported(branch_run: Path, tmp_path: Path) -> None:
    base = branch_run.parent / "base"
    with pytest.raises(WeightsError, match="is a video transformer"):
        open_source(base)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").touch()
    with pytest.raises(MissingFileError, match="without weights yet"):
        open_source(tmp_path / "run")
    with pytest.raises(MissingFileError, match="No model or run at"):
        open_source(tmp_path / "nothing")
