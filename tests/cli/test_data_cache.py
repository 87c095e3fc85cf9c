"""`tinyworld data cache`: what it makes, says and refuses."""

from pathlib import Path

import pytest

from tests.cli.helpers import SMALL, refused
from tests.teachers import make_teacher
from tinyworld.cli.main import main


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher"), "wan")


def flags(clips: Path, teacher: Path, tmp_path: Path) -> list[str]:
    return [
        f"--data_root={clips}", f"--output_dir={tmp_path}", *SMALL, "--use_ref_vae=true", f"--ref_vae_path={teacher}",
        f"--latent_cache={tmp_path / 'cache'}",
    ]  # fmt: skip


def test_the_cache_is_filled_once(
    clips: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(clips, teacher, tmp_path)
    assert main(["data", "cache", "taehv_demo", *given, "--cached_crops=3"]) == 0
    said = capsys.readouterr().out
    entries = list((tmp_path / "cache").rglob("*.safetensors"))
    assert f"0 latents were there, {len(entries)} made (" in said and len(entries) in (9, 12)
    assert main(["data", "cache", "taehv_demo", "--prune", *given, "--cached_crops", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{len(entries) // 3} latents were there, 0 made" in said
    assert f"{len(entries) // 3 * 2} entries removed" in said
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == len(entries) // 3


def test_what_it_needs_is_said(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "data", "cache", "taehv_demo", f"--data_root={clips}", f"--output_dir={tmp_path}")
    assert "use_ref_vae=false" in said and "data.latent_cache" in said
    refused(capsys, "data", "cache", "taehv_demo", "--latent_cach=x")
    with pytest.raises(SystemExit):
        main(["data", "cache"])


def test_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", "cache", "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "usage: tinyworld data cache RECIPE" in said and "--prune" in said and "--latent_cache" in said
