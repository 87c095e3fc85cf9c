"""compress: smaller files that load, numbers before and after, a command that trains on, nothing overwritten."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from tests.cli.helpers import SMALL, refused
from tinyworld import Taehv
from tinyworld.cli.commands import compress
from tinyworld.cli.main import main
from tinyworld.models.taehv.quantise import dequantise, quantise


@pytest.fixture
def model(tmp_path: Path) -> Path:
    Taehv.from_variant("taew2_1", encoder_width=8, decoder_widths=(16, 8, 8, 8)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_int8(model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, video = tmp_path / "made" / "small", str(clips / "clip0.mp4")
    flags = ["--weights", "int8", "--output", str(small), "--videos", video, "--max_frames", "5", "--device", "cpu"]
    assert main(["compress", str(model), *flags]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^before .* encoder 8, decoder 16,8,8,8$.*^after ", said, re.MULTILINE | re.DOTALL)
    assert "PSNR" in said and "tinyworld train" not in said
    before, after = (Taehv.from_pretrained(folder).state_dict() for folder in (model, small))
    wanted = dequantise(quantise(before))
    assert all(torch.equal(after[key], wanted[key]) for key in wanted)
    assert (small / "model.safetensors").stat().st_size < 0.5 * (model / "model.safetensors").stat().st_size
    assert main(["evaluate", video, "--model", str(small), "--max_frames", "2", "--device", "cpu"]) == 0


def test_the_printed_command_trains_the_pruned_model(
    model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "a folder"
    flags = ["--keep", "0.5", "--weights", "fp16", "--output", str(small), "--calibration", str(clips)]
    assert main(["compress", str(model), *flags]) == 0
    said = capsys.readouterr().out
    assert Taehv.from_pretrained(small).spec.decoder_widths == (8, 8, 8, 8)
    assert "PSNR" not in said
    (command,) = (line for line in said.splitlines() if line.startswith("tinyworld train RECIPE"))
    arguments = shlex.split(command)[3:]
    assert arguments[:2] == ["--pretrained_model_path", str(small)]
    own = [flag for flag in SMALL if not flag.startswith(("--encoder_width", "--decoder_widths", "--max_train_steps"))]
    data = [f"--data_root={clips}", f"--output_dir={tmp_path}"]
    steps = arguments.index("--max_train_steps")
    arguments[steps + 1] = "2"
    assert main(["train", "taehv_demo", *arguments, *data, *own]) == 0


def test_rooms_stand_in_where_no_video_is_given(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compress, "CALIBRATION_ROOMS", 1)
    monkeypatch.setattr(compress, "CALIBRATION_SIZE", 16)
    assert main(["compress", str(model), "--keep", "0.5", "--output", str(tmp_path / "small")]) == 0
    assert "rendered rooms" in capsys.readouterr().out
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["spec"]["decoder_widths"] == [8, 8, 8, 8] and "quantisation" not in config


def test_mistakes_write_nothing(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, broken = tmp_path / "small", tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    before = (model / "model.safetensors").read_bytes()
    for flags, message in [
        ([], "Nothing to do"),
        (["--keep", "0"], "--keep 0.0 is the share"),
        (["--keep", "nan"], "--keep nan is the share"),
        (["--keep", "0.99"], "--keep 0.99 removes no channel"),
        (["--weights", "int8", "--calibration", str(broken)], "--calibration is for --keep"),
        (["--weights", "int8", "--max_frames", "3"], "--max_frames is for --videos"),
        (["--weights", "int8", "--videos", str(broken)], "broken.mp4"),
        (["--keep", "0.5", "--calibration", str(broken)], "broken.mp4"),
        (["--weights", "int8", "--output", str(model)], "is there already"),
    ]:
        assert message in refused(capsys, "compress", model, "--output", small, *flags)
    assert "No model at" in refused(capsys, "compress", tmp_path / "none", "--weights", "int8", "--output", small)
    assert not small.exists() and (model / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".staging")] == []
