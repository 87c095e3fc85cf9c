"""The scripts that `tinyworld completion` prints, asked by the shells themselves where they are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tinyworld.cli.dispatch import COMMANDS
from tinyworld.cli.main import main

NAMES = {module.__name__.rpartition(".")[2] for module in COMMANDS}
ASK = """source {script}
asked() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_tinyworld; echo "${{COMPREPLY[@]}}"; }}
asked {words}
"""


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", request.param]) == 0
    file = tmp_path / "_tinyworld"
    file.write_text(capsys.readouterr().out)
    return file


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in ("tinyworld", *words))
    done = subprocess.run(
        ["bash", "-c", ASK.format(script=script, words=quoted)],
        capture_output=True,
        text=True,
        cwd=script.parent,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_offers_commands_recipes_keys_values_and_files(script: Path) -> None:
    (script.parent / "taehv_mine.yaml").write_text("extends: taehv_demo\n")
    assert set(completed(script, "")) >= NAMES
    offered = completed(script, "train", "taehv")
    assert {"taehv_demo", "taehv_h100", "taehv_mine.yaml"} <= set(offered) and "fantasy_stage1" not in offered
    assert completed(script, "train", "taehv_demo", "--max_train") == ["--max_train_steps"]
    assert completed(script, "train", "fantasy_stage1", "--stage1_ch") == ["--stage1_checkpoint"]
    assert completed(script, "check", "taehv_demo", "--use_seraena", "") == ["true", "false"]
    assert completed(script, "train", "taehv_demo", "--task", "fantasy_world:stage2") == ["fantasy_world:stage2"]
    assert "taehv_mine.yaml" in completed(script, "report", "taehv_m")
    assert completed(script, "data", "ca") == ["cache"]


@pytest.mark.parametrize("script", ["zsh", "fish"], indirect=True)
def test_other_shells_read_their_script(script: Path, request: pytest.FixtureRequest) -> None:
    shell = request.node.callspec.params["script"]
    text = script.read_text()
    assert "taehv_demo" in text and "stage1_checkpoint" in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(script)], check=True, timeout=60)


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_flags_of_the_commands_themselves_are_offered(script: Path) -> None:
    assert completed(script, "train", "taehv_demo", "--print") == ["--print_config"]
    assert completed(script, "supervise", "taehv_demo", "--proc") == ["--processes"]
    assert completed(script, "check", "taehv_demo", "--para") == ["--parameters"]
