"""The commands as a user types them: what they leave and what they print."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.helpers import SMALL, refused
from tests.clips import make_clips
from tinyworld import Taehv
from tinyworld.cli.main import main
from tinyworld.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from tinyworld.media.read import probe


def test_training_leaves_a_complete_run(run: Path) -> None:
    for name in ("report.html", "final_model.safetensors", "latest.safetensors", "training.log", "config.yaml"):
        assert (run / name).stat().st_size > 0
    history = json.loads((run / "validation_history.json").read_text())
    assert [entry["step"] for entry in history] == [3, 6]
    assert {"psnr", "ssim", "flicker", "psnr_by_position", "baseline", "clips"} <= history[0].keys()
    assert len(history[0]["psnr_by_position"]) == 4 and history[0]["lpips"] is None
    assert "lpips not measured" in (run / "training.log").read_text()
    assert probe(next((run / "previews" / "step-6").glob("*.mp4"))).frames == 8
    model = Taehv.from_pretrained(run / "best_model")
    assert model.spec.encoder_width == 8
    Taehv.from_pretrained(run / "final_model.safetensors")


def test_a_config_written_by_a_run_repeats_it(run: Path, tmp_path: Path) -> None:
    assert main(["train", str(run / "config.yaml"), f"--output_dir={tmp_path}"]) == 0
    first, second = (load_file(folder / "final_model.safetensors") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_print_config_prints_a_recipe_and_trains_nothing(
    capsys: pytest.CaptureFixture[str], clips: Path, tmp_path: Path
) -> None:
    assert main(["train", "taehv_demo", f"--output_dir={tmp_path}", "--learning_rate", "3e-4", "--print_config"]) == 0
    assert "learning_rate: 0.0003" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_an_own_model_is_trained_further(run: Path, clips: Path, tmp_path: Path) -> None:
    start = f"--pretrained_model_path={run / 'best_model'}"
    assert main(["train", "taehv_demo", f"--data_root={clips}", f"--output_dir={tmp_path}", *SMALL, start]) == 0
    assert Taehv.from_pretrained(tmp_path / "run" / "best_model").spec.encoder_width == 8


def test_check_reports_data_frames_and_memory(capsys: pytest.CaptureFixture[str], clips: Path) -> None:
    assert main(["check", "taehv_demo", f"--data_root={clips}"]) == 0
    said = capsys.readouterr().out
    for words in ("all rules hold", "3 latents of 8 x 8 x 16", "training videos", "GiB per process"):
        assert words in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--help"],
        ["train", "taehv_demo", "--help"],
        ["check", "no_such", "-h"],
        ["train", "taehv_demo", "--n_frames", "8", "--help"],
        ["demo", "--help"],
        ["demo", "--n_frames=8", "--help"],
    ],
)
def test_help_is_printed_wherever_it_is_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().out
    assert end.value.code == 0 and f"usage: tinyworld {arguments[0]}" in said and "--n_frames" in said


def test_demo_takes_every_key_as_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "demo", "--n_frame", "8", f"--output_dir={tmp_path}")
    assert "--n_frame: unknown. Did you mean --n_frames?" in said


def test_checkpoints_are_listed_verified_and_pruned(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert main(["checkpoint", "list", str(copy)]) == 0
    assert "checkpoint-3" in (said := capsys.readouterr().out) and said.count("complete") == 2
    (copy / "checkpoint-3" / "model.safetensors").write_bytes(b"cut")
    assert main(["checkpoint", "verify", str(copy)]) == EXIT_USER_ERROR
    assert "DAMAGED" in capsys.readouterr().out
    assert main(["checkpoint", "prune", str(copy), "--keep", "1"]) == 0
    assert (copy / "checkpoint-6").exists()
    refused(capsys, "checkpoint", "list", tmp_path / "none")


def test_data_scan_lists_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clips(tmp_path, count=2)
    assert main(["data", "scan", str(tmp_path)]) == 0
    (tmp_path / "text.mp4").write_text("hello")
    assert main(["data", "scan", str(tmp_path), "--deep"]) == EXIT_USER_ERROR
    said = capsys.readouterr().out
    assert "2 usable videos, 26 frames; 1 unreadable" in said and "text.mp4" in said


def test_a_signal_ends_with_its_own_exit_code_and_latest_goes_on(clips: Path, tmp_path: Path) -> None:
    endless = {"--max_train_steps": "100000", "--validation_steps": "100000", "--num_workers": "1", "--log_steps": "1"}
    flags = [flag for flag in SMALL if flag.partition("=")[0] not in endless]
    command = [
        sys.executable, "-m", "tinyworld", "train", "taehv_demo", f"--data_root={clips}", f"--output_dir={tmp_path}",
        *flags, *(f"{flag}={value}" for flag, value in endless.items()), "--resume_from_checkpoint=latest",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for round_number in (1, 2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step") and int(line.split()[1].split("/")[0]) >= 5 * round_number:
                break
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(60) == EXIT_INTERRUPTED, said
        assert "stopped by SIGTERM; saved" in said and "Traceback" not in said
    starts = [
        json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines() if '"start"' in line
    ]
    assert (tmp_path / "run" / "report.html").exists()
    assert starts[0]["resumed_from"] is None and starts[1]["step"] >= 5


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from tinyworld.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for arguments in (["--help"], ["train", "--help"], ["train", "taehv_demo", "--print_config"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
