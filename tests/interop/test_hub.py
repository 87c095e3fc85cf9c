"""The hub: what is uploaded and how it is loaded again; the hub itself is replaced at the methods of its client."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors import safe_open

from tests.models.taehv.formula import formula_model, small_spec
from tinyworld.core.errors import ConfigError, MissingFileError, WeightsError
from tinyworld.interop.card import write_card
from tinyworld.interop.diffusers import TaehvVae
from tinyworld.interop.source import open_source
from tinyworld.interop.upload_folder import is_written, write_folder
from tinyworld.models.fantasy.weights import read_branch
from tinyworld.models.hub import is_name
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.hub import HubError


@dataclass
class Hub:
    """Repositories as folders; `calls` in order."""

    folder: Path
    public: set[str] = field(default_factory=set)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Stands for the network: HfApi.create_repo, repo_info, create_branch, upload_folder, and snapshot_download. As there, a
    repository that exists stays as public as it is."""
    made = Hub(tmp_path / "hub")
    monkeypatch.chdir(tmp_path)

    def create_repo(api: Any, repo_id: str, **given: Any) -> None:
        made.calls.append(("create_repo", {"repo_id": repo_id, **given}))
        made.tokens.append(api.token)
        if not given["private"] and not (made.folder / repo_id).is_dir():
            made.public.add(repo_id)

    def upload_folder(api: Any, **given: Any) -> SimpleNamespace:
        made.calls.append(("upload_folder", given))
        shutil.copytree(given["folder_path"], made.folder / given["repo_id"], dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://hub/{given['repo_id']}/commit/1")

    def download(repo_id: str, **given: Any) -> str:
        made.calls.append(("snapshot_download", {"repo_id": repo_id, **given}))
        if not (made.folder / repo_id).is_dir():
            raise FileNotFoundError(f"404 Client Error: no {repo_id}")
        return str(made.folder / repo_id)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_branch", lambda api, name, **given: made.calls.append(("create_branch", given))
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "repo_info", lambda api, name: SimpleNamespace(private=name not in made.public)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return made


def test_there_and_back(hub: Hub) -> None:
    model = formula_model(small_spec("taew2_1"))
    where = model.push_to_hub("me/tiny", about={"variant": "taew2_1"}, card="# Tiny\n", private=True, token="secret")
    assert where == "https://hub/me/tiny/commit/1"
    assert sorted(path.name for path in (hub.folder / "me/tiny").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert hub.calls[0] == ("create_repo", {"repo_id": "me/tiny", "private": True, "exist_ok": True})
    assert hub.tokens == ["secret"]
    loaded = Taehv.from_pretrained("me/tiny", revision="v1", token="other")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    name, given = hub.calls[-1]
    assert (name, given["revision"], given["token"]) == ("snapshot_download", "v1", "other")
    fetched = {
        "config.json", "model.safetensors", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-00001-of-00002.safetensors",
    }  # fmt: skip
    other = {
        "taew2_1.pth",
        "model.bin",
        "README.md",
        "transformer/model.safetensors",
        "unet/config.json",
        "big.safetensors",
    }
    patterns = given["allow_patterns"]
    assert set(huggingface_hub.utils.filter_repo_objects(fetched | other, allow_patterns=patterns)) == fetched
    vae = TaehvVae.from_pretrained("me/tiny")
    assert vae.config["latents"] == "normalised"
    model.push_to_hub("me/tiny", revision="branch")
    assert [name for name, _ in hub.calls[-3:]] == ["create_repo", "create_branch", "upload_folder"]
    assert hub.calls[-1][1]["revision"] == "branch"


def test_a_part_of_a_repository(hub: Hub) -> None:
    formula_model(small_spec("taew2_1")).save_pretrained(hub.folder / "me" / "pipe" / "vae", {"variant": "taew2_1"})
    vae = TaehvVae.from_pretrained("me/pipe", subfolder="vae")
    assert vae.config["kind"] == "wan"
    patterns = hub.calls[-1][1]["allow_patterns"]
    assert "vae/config.json" in patterns and all(pattern.startswith("vae/") for pattern in patterns)


def test_what_should_be_private_is_not_published(hub: Hub) -> None:
    model = formula_model(small_spec("taew2_1"))
    model.push_to_hub("me/open")
    assert hub.calls[0][1]["private"] is None  # as the account's or organisation's settings have it
    before = len(hub.calls)
    with pytest.raises(ConfigError, match="me/open is there already and is public.*Nothing was sent"):
        model.push_to_hub("me/open", private=True, revision="new")
    assert [name for name, _ in hub.calls[before:]] == ["create_repo"]
    model.push_to_hub("me/hidden", private=True)
    model.push_to_hub("me/hidden", private=True)
    assert [name for name, _ in hub.calls[-2:]] == ["create_repo", "upload_folder"]


def test_which_texts_read_as_names(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    assert is_name("me/tiny") and is_name("output/best_model")
    files = ["output/a.pth", "output/a.pt", "output/model.safetensors", "./me/tiny", "a/b/c", "tiny"]
    assert not any(is_name(name) for name in files) and not is_name(Path("me/tiny"))
    with pytest.raises(MissingFileError) as caught:
        Taehv.from_pretrained("output/best_model")
    assert f"{Path.cwd() / 'output/best_model'} does not exist, and the Hugging Face hub" in str(caught.value)
    assert "output/best_model: from the Hugging Face hub" in caplog.text
    before = len(hub.calls)
    for path in (Path("me/tiny"), "output/model.safetensors"):
        with pytest.raises(MissingFileError):
            TaehvVae.from_pretrained(path)
    assert len(hub.calls) == before


def test_a_path_that_exists_wins(hub: Hub, tmp_path: Path) -> None:
    model = formula_model(small_spec("taew2_1"))
    model.save_pretrained(tmp_path / "me" / "tiny")
    assert Taehv.from_pretrained("me/tiny").spec == model.spec
    assert hub.calls == []


def test_a_name_that_is_neither(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        Taehv.from_pretrained("me/nothing", revision="v2")
    said = str(caught.value)
    assert str(tmp_path / "me/nothing") in said and "404 Client Error" in said and "revision 'v2'" in said
    hub.calls.clear()
    for path in ("nothing", "a/b/c", str(tmp_path / "x"), "./me/tiny"):
        with pytest.raises(MissingFileError):
            Taehv.from_pretrained(path)
    assert hub.calls == []


def test_refusals_of_the_hub_are_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = formula_model(small_spec("taew2_1"))
    for name in ("tiny", "a/b/c", "me/ti ny", "/me"):
        with pytest.raises(ConfigError, match='must be "ORG/NAME"'):
            model.push_to_hub(name)
    assert hub.calls == []

    def refuse(api: Any, **given: Any) -> None:
        raise PermissionError("403 Forbidden: write access needed")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", refuse)
    with pytest.raises(HubError, match=r"did not take me/tiny \(PermissionError: 403 Forbidden.*hf auth login"):
        model.push_to_hub("me/tiny")


def test_a_card_is_written_from_the_run(taehv_run: Path, tmp_path: Path) -> None:
    write_folder(open_source(taehv_run, license_name="mit"), tmp_path / "out", "me/tiny-wan")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    history = json.loads((taehv_run / "validation_history.json").read_text())[-1]
    assert (card.data.license, card.data.library_name, card.data.model_name) == ("mit", "tinyworld", "tiny-wan")
    assert {"taehv", "taew2_1"} <= set(card.data.tags)
    start = json.loads((taehv_run / "journal.jsonl").read_text().splitlines()[0])
    held_out = f"{len(history['clips'])} held-out clip{'s' if len(history['clips']) > 1 else ''}"
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured["psnr"] == pytest.approx(history["psnr"], abs=1e-5) and "ssim" in measured
    for part in (
        "parameters: taew2_1 layout, narrow (8; 16, 8, 8, 8). A latent",
        "takes the latents of Wan 2.1",
        f"| PSNR | {history['psnr']:.2f} dB | {history['baseline']['psnr']:.2f} dB (mean colour) |",
        f"At step 2, on {held_out} of 32 × 32 pixels",
        f"| clips | {start['clips']} for training, {start['held_out']} held out |",
        "| samples seen | 4 |",
        "| clip | 12 frames of 32 × 32 pixels |",
        "| end | Finished all 2 steps. |",
        f"Started from the weights {taehv_run.parent.name}/parent.",
        "Reference VAE: AutoencoderKLWan, wan_vae.",
        "Data: clips;",
        'Taehv.from_pretrained("me/tiny-wan")',
        'TaehvVae.from_pretrained("me/tiny-wan", like=pipe.vae)',
        "ComfyUI: not as it is.",
        "**PSNR is no better than its baseline**:",
        "| precision | fp32 |",
        "learning_rate: 0.002",
    ):
        assert part in card.text, part
    assert "No licence is stated" not in card.text
    assert str(taehv_run.parent) not in str(card)  # nothing of the machine's folders
    first, last = (json.loads(line) for line in steps(taehv_run))
    assert f"| loss | {first['losses']['total']:.4g} | {last['losses']['total']:.4g} |" in card.text
    assert Taehv.from_pretrained(tmp_path / "out").spec == Taehv.from_pretrained(taehv_run / "best_model").spec


def test_a_card_holds_no_folder_of_the_machine(
    taehv_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even relative ones that are not there from where the card is written; names of the hub stay."""
    shutil.copytree(taehv_run, tmp_path / "run")
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    settings["data"] |= {"data_root": "customers/secret/clips", "video_dir": "customers/secret/held_out"}
    settings["run"]["output_dir"] = "customers/output"
    settings["checkpoint"]["resume_from_checkpoint"] = "customers/checkpoint-1"
    settings["teacher"]["ref_vae_path"] = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    settings["validation"]["lpips_backbone"] = "/home/customers/vgg16.pth"
    settings["run"]["of_another_version"] = "customers/else"
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "taehv_demo").mkdir()
    monkeypatch.chdir(tmp_path)  # where a folder has the name of the recipe
    card = write_card(open_source(tmp_path / "run"), "me/x")
    assert "customers" not in card and "data_root: clips\n" in card and "output_dir: output\n" in card
    assert card.count("Wan-AI/Wan2.1-T2V-1.3B-Diffusers") == 2 and "Reference VAE: AutoencoderKLWan, Wan-AI/" in card
    assert "name: taehv_demo" in card and "learning_rate: 0.002" in card and "lpips_backbone: vgg16.pth" in card


def test_a_folder_that_was_exported_goes_as_it_is(taehv_run: Path, tmp_path: Path) -> None:
    write_folder(open_source(taehv_run, license_name="mit"), tmp_path / "first", "me/tiny")
    card = tmp_path / "first" / "README.md"
    card.write_text(card.read_text().replace("# tiny", "# My tiny one"))
    assert is_written(tmp_path / "first") and not is_written(taehv_run / "best_model")
    write_folder(open_source(tmp_path / "first"), tmp_path / "second", "me/other")
    for file in (tmp_path / "first").iterdir():
        assert (tmp_path / "second" / file.name).read_bytes() == file.read_bytes()
    assert open_source(tmp_path / "second").about["step"] == 2


def steps(run: Path) -> list[str]:
    return [line for line in (run / "journal.jsonl").read_text().splitlines() if '"event": "step"' in line]


def test_a_card_of_a_branch(branch_run: Path, tmp_path: Path) -> None:
    write_folder(open_source(branch_run), tmp_path / "out", "me/world")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "model.safetensors"]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    state, info = read_branch(tmp_path / "out")
    source, before = read_branch(branch_run / "best_model")
    assert all(torch.equal(state[key], source[key]) for key in source)
    assert info.base_digest == before.base_digest and str(info.base_digest) in card.text
    assert info.meta["codec"] is None and info.meta["step"] == 2 and before.meta["codec"]
    history = json.loads((branch_run / "validation_history.json").read_text())[-1]
    for part in (
        "geometry branch (FantasyWorld, stage1)",
        f"| Depth, AbsRel | {history['abs_rel']:.3f} | {history['baseline']['abs_rel']:.3f} (median depth) |",
        "| clips | 1 for training, 3 held out |",
        "Started from random weights.",
        "Video transformer: base,",
        "Codec: codec.",
        "tinyworld lift VIDEO --base WAN_TRANSFORMER --weights world",
        "with another it means nothing",
        "No licence is stated",
    ):
        assert part in card.text, part
    assert "Denoising error" not in card.text  # in stage 1 that is the frozen transformer's
    with safe_open(str(tmp_path / "out" / "model.safetensors"), framework="pt") as content:
        assert str(branch_run.parent) not in json.dumps(content.metadata())
    assert str(branch_run.parent) not in str(card)


def test_a_branch_names_its_parent(branch_run: Path, tmp_path: Path) -> None:
    shutil.copytree(branch_run, tmp_path / "run")
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    rows = [
        {"group": "geo_blocks", "tensors": 2, "parameters": 1200, "fate": "loaded"},
        {"group": "latent_bridge", "tensors": 1, "parameters": 34, "fate": "loaded"},
        {"group": "irg_cross_attns", "tensors": 1, "parameters": 5, "fate": "new"},
    ]
    start = json.loads(lines[0]) | {"parent": "/home/me/runs/first/latest.safetensors", "lineage": rows}
    (tmp_path / "run" / "journal.jsonl").write_text("\n".join([json.dumps(start), *lines[1:]]))
    write_folder(open_source(tmp_path / "run"), tmp_path / "out", "me/world")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Started from the branch first/latest.safetensors." in text and "/home/me" not in text
    assert "Parameters: 1,234 loaded, 5 new." in text


def test_weights_without_a_run_get_an_honest_card(tmp_path: Path) -> None:
    formula_model(small_spec("taehv")).save_pretrained(tmp_path / "model")
    write_folder(open_source(tmp_path / "model"), tmp_path / "out", "bare")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "Not measured" in card.text and "Not known" in card.text and card.data.eval_results is None
    assert "takes the latents of" not in card.text


def test_a_branch_that_nobody_could_use_is_refused(branch_run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(branch_run / "latest.safetensors")
    save_file(tensors, tmp_path / "a.safetensors", metadata={"architecture": "fantasyworld"})
    with pytest.raises(WeightsError, match="cannot be read"):
        write_folder(open_source(tmp_path / "a.safetensors"), tmp_path / "out", "me/world")
