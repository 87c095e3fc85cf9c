"""export: every target from a real run or a bare file, what it prints, and that nothing is overwritten."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from tests.cli.helpers import refused
from tests.interop.public_taehv import blank
from tinyworld import Taehv
from tinyworld.cli.main import main
from tinyworld.core.variants import variant
from tinyworld.interop.diffusers import TaehvVae


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A published file: half precision, no word about itself."""
    torch.save(blank(variant("taecvx")), tmp_path / "some.pth")
    return tmp_path / "some.pth"


def test_folder_holds_weights_and_a_card(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "--to", "folder", "--output", str(out), "--license", "mit"]) == 0
    said = capsys.readouterr().out
    label = "taew2_1 layout, narrow (8; 16, 8, 8, 8), own latents"
    assert f"model: {run.resolve()}/best_model: {label}, recipe taehv_demo, step" in said
    for name in ("README.md", "config.json", "model.safetensors", "manifest.json"):
        assert f"wrote {out / name} (" in said
    assert said.endswith(f'from tinyworld import Taehv\nmodel = Taehv.from_pretrained("{out}")\n')
    card = (out / "README.md").read_text()
    assert "license: mit" in card and "\n# run\n" in card and "name: run\n" in card  # the run's name, not the folder's
    assert f" parameters: {label}. A latent" in card and "- taew2_1\n" not in card
    assert "ComfyUI: no. It decodes a diffusion model's latents" in card and "TaehvVae" not in card
    before, after = (Taehv.from_pretrained(place).state_dict() for place in (run / "best_model", out))
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert "is there already" in refused(capsys, "export", run, "--to", "folder", "--output", out)


def test_hub_uploads_the_same_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def upload(api: Any, **given: Any) -> SimpleNamespace:
        seen.update(given)
        shutil.copytree(given["folder_path"], tmp_path / "hub")
        return SimpleNamespace(commit_url="https://hub/me/tiny/commit/1")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda api, name, **given: seen.update(given))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda api, name: SimpleNamespace(private=seen["private"]))
    out = tmp_path / "kept"
    flags = ["--to", "folder", "--to", "hub", "--repo", "me/tiny", "--output", str(out), "--private"]
    assert main(["export", str(run), *flags]) == 0
    said = capsys.readouterr().out
    assert "https://hub/me/tiny/commit/1" in said and 'Taehv.from_pretrained("me/tiny")' in said
    assert seen["private"] and seen["repo_id"] == "me/tiny" and "step" in seen["commit_message"]
    names = [path.name for path in sorted(out.iterdir())]
    assert [path.name for path in sorted((tmp_path / "hub").iterdir())] == names
    assert all((out / name).read_bytes() == (tmp_path / "hub" / name).read_bytes() for name in names)
    shutil.rmtree(tmp_path / "hub")
    assert main(["export", str(run), "--to", "hub", "--repo", "me/tiny"]) == 0
    assert (tmp_path / "hub" / "README.md").read_bytes() == (out / "README.md").read_bytes()
    assert not Path(seen["folder_path"]).exists()


def test_a_failed_upload_leaves_a_folder_to_send(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reachable, sent = [False], tmp_path / "hub"

    def upload(api: Any, **given: Any) -> SimpleNamespace:
        if not reachable[0]:
            raise ConnectionError("no network")
        shutil.copytree(given["folder_path"], sent)
        return SimpleNamespace(commit_url=f"https://hub/{given['commit_message']}")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda api, name, **given: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda api, name: SimpleNamespace(private=True))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    out = tmp_path / "kept"
    both = ["--to", "folder", "--to", "hub", "--repo", "me/tiny", "--private", "--output", out]
    again = f"tinyworld export {out} --to hub"
    assert f"{again} --repo me/tiny --private" in refused(capsys, "export", run, *both)
    assert "is there already" in (said := refused(capsys, "export", run, *both)) and again in said
    card = (out / "README.md").read_bytes()
    changes = ["--license", "mit", "--latents", "raw"]
    assert "--latents and --license would change nothing" in refused(
        capsys, "export", out, "--to", "hub", "--repo", "me/tiny", *changes
    )
    reachable[0] = True
    assert main(["export", str(out), "--to", "hub", "--repo", "me/tiny"]) == 0
    assert "https://hub/tinyworld export, step 6" in capsys.readouterr().out
    assert (sent / "README.md").read_bytes() == card


def test_diffusers(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vae"
    refusals = {refused(capsys, "export", run, "--to", to, "--output", out) for to in ("diffusers", "comfyui", "pth")}
    (said,) = refusals
    assert "its latents are its own, which no diffusion model speaks: use --to folder or --to onnx." in said
    assert "diffusers" not in said and "--latents" not in said and not out.exists()
    assert main(["export", str(run), "--to", "diffusers", "--output", str(out), "--latents", "normalised"]) == 0
    said = capsys.readouterr().out
    assert f'pipe.vae = TaehvVae.from_pretrained("{out}")' in said
    vae = TaehvVae.from_pretrained(out)
    assert vae.config["latents"] == "normalised"
    best = Taehv.from_pretrained(run / "best_model").state_dict()
    assert all(torch.equal(value, best[key]) for key, value in vae.state_dict().items())


def test_files_for_comfyui_and_the_public_code(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "vae"
    chosen = ["--variant", "taecvx", "--output"]
    assert main(["export", str(bare), "--to", "comfyui", *chosen, str(place)]) == 0
    said = capsys.readouterr().out
    assert (
        f"wrote {place / 'taecvx.safetensors'} (45.3 MB)" in said and "float32. Put it into ComfyUI/models/vae" in said
    )
    assert "Note:" not in said
    assert "is there already" in refused(capsys, "export", bare, "--to", "comfyui", *chosen, place)
    assert main(["export", str(bare), "--to", "pth", *chosen, str(tmp_path / "my_taecvx.pth")]) == 0
    assert f'TAEHV("{tmp_path / "my_taecvx.pth"}")' in capsys.readouterr().out
    assert torch.load(tmp_path / "my_taecvx.pth", weights_only=True)["encoder.0.weight"].dtype is torch.float16
    (tmp_path / "v1.5").mkdir()
    assert main(["export", str(bare), "--to", "comfyui", *chosen, str(tmp_path / "v1.5")]) == 0
    assert (tmp_path / "v1.5" / "taecvx.safetensors").is_file()
    assert "no folder" in refused(capsys, "export", bare, "--to", "pth", *chosen, tmp_path / "no" / "taecvx.pth")


def test_a_note_where_comfyui_would_show_wrong_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(blank(variant("taew2_1")), tmp_path / "a.pth")
    flags = ["--variant", "taew2_1", "--output", str(tmp_path / "w.safetensors")]
    assert main(["export", str(tmp_path / "a.pth"), "--to", "comfyui", *flags]) == 0
    assert "Note: It takes normalised latents" in capsys.readouterr().out


def test_mistakes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for flags, message in [
        (["--to", "comfyui", "--to", "pth", "--output", out], "--to comfyui and --to pth: one at a time"),
        (["--to", "diffusers"], "--to diffusers needs --output PATH"),
        (["--to", "hub"], "--to hub needs --repo ORG/NAME"),
        (["--to", "hub", "--repo", "me/x", "--output", out], "keeps no folder"),
        (["--to", "hub", "--repo", "me"], 'must be "ORG/NAME"'),
        (["--to", "pth", "--output", out, "--private", "--height", "8"], "--height is for --to onnx"),
        (["--to", "diffusers", "--output", out, "--license", "mit"], "--license is for --to comfyui or folder"),
        (
            ["--to", "folder", "--output", out, "--variant", "taehv", "--latents", "normalised"],
            "stated as raw or scaled",
        ),
        (["--to", "pth", "--output", out, "--latents", "raw"], "builds the public variants alone"),
        (["--to", "comfyui", "--output", out, "--latents", "raw"], "builds the public variants alone"),
        (["--to", "comfyui", "--output", out, "--latents", "raw"], "in diffusers (--to diffusers)"),
        (["--to", "folder", "--output", out, "--variant", "taew2"], "Did you mean"),
    ]:
        assert message in refused(capsys, "export", run, *flags), flags
        assert not out.exists()
    assert "No model or run at" in refused(capsys, "export", tmp_path / "no", "--to", "folder", "--output", out)
