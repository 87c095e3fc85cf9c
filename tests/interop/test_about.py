"""What weight files say of themselves, and what is found out about weights that are exported."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from tests.clips import make_clips
from tests.interop.conftest import SHORT
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
    known = {"variant": "taew2_1", "latents": "normalised", "teacher": "AutoencoderKLWan", "recipe": "taehv_demo"}
    assert found.about == known | {"step": 2}
    assert weights.read_about(taehv_run / "best_model") == known
    assert open_source(taehv_run / "checkpoint-1").about["step"] == 1
    assert open_source(taehv_run / "latest.safetensors").about["step"] == 2
    given = open_source(taehv_run, latents="raw", license_name="mit").about
    assert (given["latents"], given["license"]) == ("raw", "mit")


@pytest.mark.parametrize(
    ("changes", "latents"),
    [
        ({"teacher": {"use_ref_vae": False}}, "own"),
        ({"teacher": {"use_ref_vae": False}, "model": {"train_part": "decoder"}}, "raw"),
        ({"teacher": {"use_ref_vae": False}, "model": {"train_part": "both", "pretrained_model_path": None}}, "own"),
    ],
)
def test_the_settings_tell_which_latents(
    changes: dict[str, dict[str, object]], latents: str, taehv_run: Path, tmp_path: Path
) -> None:
    """One half that learned beside the other speaks what its parent speaks, whatever the variant's public weights do."""
    run = tmp_path / "run"
    shutil.copytree(taehv_run, run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    for section, values in changes.items():
        settings[section] |= values
    if settings["model"]["pretrained_model_path"]:
        model = formula_model(small_spec("taew2_1"))
        model.save_pretrained(tmp_path / "parent", {"variant": "taew2_1", "latents": "raw"})
        settings["model"]["pretrained_model_path"] = str(tmp_path / "parent")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert open_source(run).about["latents"] == latents


@pytest.mark.parametrize(
    ("parent", "learned"),
    [
        ({"variant": "taew2_1", "latents": "own"}, {"latents": "own"}),
        ({"latents": "scaled", "teacher": "MyVae", "step": 4}, {"latents": "scaled", "teacher": "MyVae"}),
        ({}, {}),
        (None, {"latents": "normalised"}),
    ],
)  # fmt: skip
def test_a_half_that_learned_alone_speaks_what_its_parent_does(
    parent: dict[str, str] | None, learned: dict[str, str], tmp_path: Path
) -> None:
    """None: published weights, whose variant says it. {}: weights of tinyworld that do not say it."""
    model = formula_model(small_spec("taew2_1"))
    if parent is None:
        torch.save(model.state_dict(), tmp_path / "parent")
        shutil.move(tmp_path / "parent", tmp_path / "parent.pth")
    else:
        model.save_pretrained(tmp_path / "parent.pth", parent)
    settings = {
        "name": "half",
        "model": {
            "variant": "taew2_1",
            "pretrained_model_path": str(tmp_path / "parent.pth"),
            "train_part": "decoder",
        },
        "teacher": {"use_ref_vae": False, "latent_convention": "auto"},
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").touch()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    model.save_pretrained(tmp_path / "run" / "best_model", {"variant": "taew2_1", "recipe": "half"})
    about = open_source(tmp_path / "run").about
    assert {key: about[key] for key in ("latents", "teacher") if key in about} == learned


def test_the_task_passes_on_what_the_parent_says(tmp_path: Path) -> None:
    from tinyworld.config.load import load_recipe
    from tinyworld.tasks.taehv import TaehvTask

    model = formula_model(small_spec("taew2_1"))
    model.save_pretrained(tmp_path / "parent", {"latents": "raw", "teacher": "AutoencoderKLWan"})
    (tmp_path / "clips").mkdir()
    spec = model.spec
    flags = {
        **SHORT, "data_root": str(make_clips(tmp_path / "clips")), "height": 32, "width": 32, "n_frames": 12,
        "encoder_width": spec.encoder_width, "decoder_widths": list(spec.decoder_widths), "output_dir": str(tmp_path),
        "variant": "taew2_1", "train_part": "decoder", "pretrained_model_path": str(tmp_path / "parent"),
        "perceptual_loss_weight": 0.0,
    }  # fmt: skip
    task = TaehvTask(load_recipe("taehv_demo", flags))
    task.export(task.model.state_dict(), tmp_path / "best")
    about = weights.read_about(tmp_path / "best")
    assert (about["latents"], about["teacher"]) == ("raw", "AutoencoderKLWan")


def test_the_word_of_others_is_not_ours(tmp_path: Path) -> None:
    """Elsewhere "variant" is a number type."""
    tensors = {key: value.float() for key, value in blank(variant("taew2_2")).items()}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"variant": "fp16", "license": "theirs"})
    assert weights.read_about(tmp_path / "a.safetensors") == {}
    assert open_source(tmp_path / "a.safetensors").about == {"variant": "taew2_2", "latents": "normalised"}
    model = formula_model(small_spec("taew2_1"))
    model.save_pretrained(tmp_path / "b", {"variant": "taew9"})
    assert weights.read_about(tmp_path / "b") == {}


def test_forms_that_the_latents_do_not_have_are_refused(tmp_path: Path) -> None:
    formula_model(small_spec("taew2_1")).save_pretrained(tmp_path)
    for name, latents in (("taehv", "normalised"), ("taew2_1", "scaled")):
        with pytest.raises(ConfigError, match=f"latents='{latents}': latents of .* are stated as raw or"):
            open_source(tmp_path, name, latents)


def test_an_export_keeps_what_it_was_told(tmp_path: Path) -> None:
    about = {"variant": "taew2_1", "latents": "raw", "recipe": "mine", "step": 1000, "license": "mit"}
    formula_model(small_spec("taew2_1")).save_pretrained(tmp_path, about)
    assert open_source(tmp_path).about == about


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
