"""The commands as a user types them: what they leave, what they print, how mistakes end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.clips import make_clips
from tinyworld import Taehv
from tinyworld.cli.main import main
from tinyworld.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from tinyworld.media.read import probe

SMALL = [
    "--height=32", "--width=32", "--n_frames=8", "--train_batch_size=2", "--encoder_width=8", "--decoder_widths=16,8,8,8",
    "--max_train_steps=6", "--lr_warmup_steps=1", "--validation_steps=3", "--checkpointing_steps=3", "--num_workers=0",
    "--num_preview_clips=1", "--tracker_name=none", "--device=cpu", "--run_name=run", "--held_out_fraction=0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps."""
    output = tmp_path_factory.mktemp("output")
    assert main(["train", "taehv_demo", f"--data_root={clips}", f"--output_dir={output}", *SMALL]) == 0
    return output / "run"


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """Run a command that must end with exit code 2 and one paragraph; returns the paragraph."""
    assert main([str(part) for part in argv]) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert "error:" in said and "Traceback" not in said
    return said


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


def test_weights_of_another_width_are_refused(
    capsys: pytest.CaptureFixture[str], run: Path, clips: Path, tmp_path: Path
) -> None:
    start = f"--pretrained_model_path={run / 'best_model'}"
    flags = [flag for flag in SMALL if "encoder_width" not in flag]
    said = refused(capsys, "train", "taehv_demo", f"--data_root={clips}", f"--output_dir={tmp_path}", *flags, start)
    assert "encoder_width" in said and "8" in said


def test_check_reports_data_frames_and_memory(capsys: pytest.CaptureFixture[str], clips: Path) -> None:
    assert main(["check", "taehv_demo", f"--data_root={clips}"]) == 0
    said = capsys.readouterr().out
    for words in ("all rules hold", "3 latents of 8 x 8 x 16", "training videos", "GiB per process"):
        assert words in said


def test_check_names_the_nearest_frame_counts(capsys: pytest.CaptureFixture[str], clips: Path, tmp_path: Path) -> None:
    said = refused(capsys, "check", "taehv_h100", "--data_root", clips, "--n_frames", "19")
    assert "Use 16 or 20" in said and "data.n_frames" in said and "pad_frames" in said


def test_a_misspelt_key_names_the_nearest(capsys: pytest.CaptureFixture[str], clips: Path) -> None:
    assert "--n_frames" in refused(capsys, "check", "taehv_demo", "--data_root", clips, "--n_frame", "16")
    assert "taehv_demo" in refused(capsys, "check", "taehv_dem")


def test_missing_files_say_where_was_looked(capsys: pytest.CaptureFixture[str], clips: Path, tmp_path: Path) -> None:
    where = ["--data_root", str(clips), "--output_dir", str(tmp_path)]
    said = refused(capsys, "train", "taehv_demo", *where, "--pretrained_model_path", "checkpoints/none.safetensors")
    assert str(Path.cwd() / "checkpoints" / "none.safetensors") in said and "model.pretrained_model_path" in said
    said = refused(capsys, "train", "taehv_demo", *where, *SMALL, "--resume_from_checkpoint", "checkpoint-7")
    assert "checkpoint-7" in said
    assert "data.data_root" in refused(capsys, "train", "taehv_demo", "--data_root", tmp_path / "nowhere")


def test_an_empty_folder_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert str(tmp_path) in refused(capsys, "train", "taehv_demo", "--data_root", tmp_path)


def test_a_single_video_cannot_be_split(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_clips(tmp_path, count=1)
    assert "at least 2" in refused(capsys, "check", "taehv_demo", "--data_root", tmp_path)


def test_too_many_unreadable_files_are_refused_and_few_are_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_clips(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert main(["check", "taehv_demo", f"--data_root={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "1 unreadable" in said and "broken.mp4" in said
    assert "data.quarantine_budget" in refused(
        capsys, "check", "taehv_demo", "--data_root", tmp_path, "--quarantine_budget", "0"
    )


def test_reconstruct_returns_every_frame(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = clips / "clip0.mp4"
    assert main(["reconstruct", str(video), "--model", str(run / "best_model"), "--output", str(tmp_path)]) == 0
    written = probe(tmp_path / "clip0.mp4")
    assert (written.frames, written.width, written.height) == (13, 3 * 64, 48)
    assert "PSNR" in capsys.readouterr().out
    flags = ["--plain", "--max_frames", "6", "--dtype", "bf16"]
    assert main(["reconstruct", str(video), "--model", str(run / "best_model"), "--output", str(tmp_path), *flags]) == 0
    written = probe(tmp_path / "clip0.mp4")
    assert (written.frames, written.width, written.height) == (6, 64, 48)


def test_evaluate_goes_on_after_an_unreadable_video(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_clips(tmp_path, count=2)
    (tmp_path / "broken.mp4").write_bytes(b"")
    flags = ["--model", str(run / "best_model"), "--json", str(tmp_path / "out.json")]
    assert main(["evaluate", str(tmp_path), *flags]) == EXIT_USER_ERROR
    said = capsys.readouterr()
    assert "broken.mp4" in said.err and "mean of 2 videos" in said.out
    found = json.loads((tmp_path / "out.json").read_text())
    assert [Path(clip["video"]).name for clip in found["clips"]] == ["clip0.mp4", "clip1.mp4"]
    assert all(clip["psnr"] > 5 and clip["frames"] == 13 for clip in found["clips"])


def test_evaluate_equals_the_model_called_directly(run: Path, clips: Path, tmp_path: Path) -> None:
    from tinyworld.media.read import read_frames
    from tinyworld.metrics.image import flicker, psnr, ssim

    model = Taehv.from_pretrained(run / "best_model")
    main(
        ["evaluate", str(clips / "clip1.mp4"), "--model", str(run / "best_model"), "--json", str(tmp_path / "out.json")]
    )
    found = json.loads((tmp_path / "out.json").read_text())["clips"][0]
    frames = torch.from_numpy(read_frames(clips / "clip1.mp4", range(13))).permute(0, 3, 1, 2).float().div(255)[None]
    made = model.reconstruct(frames)
    assert found["psnr"] == pytest.approx(float(psnr(made, frames)), abs=1e-4)
    assert found["ssim"] == pytest.approx(float(ssim(made, frames)), abs=1e-5)
    assert found["flicker"] == pytest.approx(float(flicker(made, frames)), abs=1e-5)


def test_checkpoints_are_listed_verified_and_pruned(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

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


@pytest.mark.shared
def test_every_broken_clip_is_refused_or_used_but_never_a_traceback(
    shared: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for clip in sorted((shared / "data" / "broken" / "clips").iterdir()):
        flags = ["--model", str(run / "best_model"), "--output", str(tmp_path), "--max_frames", "40"]
        code = main(["reconstruct", str(clip), *flags])
        said = capsys.readouterr()
        assert code in (0, EXIT_USER_ERROR) and "Traceback" not in said.err
        assert code == 0 or clip.name in said.err
    assert main(["data", "scan", str(shared / "data" / "broken" / "clips"), "--deep"]) == EXIT_USER_ERROR
    said = capsys.readouterr().out
    truncated, other = ("truncated_no_moov", "truncated_faststart"), ("zero_byte", "audio_only", "text", "corrupt_bits")
    for name in (*truncated, *other, "variable_resolution.ts", "variable_resolution.mp4"):
        assert any(name in line and "UNREADABLE" in line for line in said.splitlines()), name


def test_report_of_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "report", tmp_path)


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
