"""Mistakes end in one paragraph and exit code 2, never in a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.helpers import SMALL, refused
from tests.clips import make_clips
from tinyworld.cli.main import main
from tinyworld.core.errors import EXIT_USER_ERROR


def test_weights_of_another_width_are_refused(
    capsys: pytest.CaptureFixture[str], run: Path, clips: Path, tmp_path: Path
) -> None:
    start = f"--pretrained_model_path={run / 'best_model'}"
    flags = [flag for flag in SMALL if "encoder_width" not in flag]
    said = refused(capsys, "train", "taehv_demo", f"--data_root={clips}", f"--output_dir={tmp_path}", *flags, start)
    assert "encoder_width" in said and "8" in said


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["reconstruct", "", "--model", "m"],
        ["reconstruct", "x.mp4", "--model", ""],
        ["report", ""],
        ["data", "scan", ""],
    ],
)
def test_an_empty_path_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == EXIT_USER_ERROR and "a path is needed, not an empty text" in capsys.readouterr().err


def test_a_file_where_a_folder_is_needed_is_one_paragraph(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    said = refused(
        capsys, "reconstruct", clips / "clip0.mp4", "--model", run / "best_model", "--output", tmp_path / "file"
    )
    assert f"{tmp_path / 'file'}: File exists. A folder is needed here." in said
    said = refused(
        capsys, "train", "taehv_demo", f"--data_root={clips}", *SMALL, f"--output_dir={tmp_path / 'file' / 'deeper'}"
    )
    assert "Not a directory" in said and str(tmp_path / "file") in said
    assert "error: /proc/x: " in refused(capsys, "data", "rooms", "/proc/x", "--scenes", "1")
    with pytest.raises(FileExistsError):
        main(["--debug", "reconstruct", str(clips / "clip0.mp4"), "--model", str(run / "best_model"),
              "--output", str(tmp_path / "file")])  # fmt: skip


def test_errors_of_the_program_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (OSError(5, "Input/output error"), OSError("no number"), ValueError("a bug")):
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr("tinyworld.report.build_report", _raiser(error))
            main(["report", str(tmp_path)])


def test_a_full_disk_is_one_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinyworld.report.build_report", _raiser(OSError(28, "No space left on device")))
    assert "No space left on device. Make room" in refused(capsys, "report", tmp_path)


def _raiser(error: BaseException):  # type: ignore[no-untyped-def]
    def raises(*_: object) -> None:
        raise error

    return raises


def test_ctrl_c_speaks_of_checkpoints_only_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinyworld.report.build_report", _raiser(KeyboardInterrupt()))
    assert main(["report", "train"]) == 130
    assert capsys.readouterr().err == "\nstopped.\n"
    monkeypatch.setattr("tinyworld.cli.dispatch.run_command", _raiser(KeyboardInterrupt()))
    assert main(["train", "taehv_demo"]) == main(["--debug", "demo"]) == 130
    assert capsys.readouterr().err.count("after the last checkpoint") == 2


def test_ctrl_c_while_the_program_loads_prints_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from tinyworld.cli.main import main; sys.exit(main(['report', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nstopped.\n")


@pytest.mark.parametrize("arguments", [["train"], ["check", "--n_frames", "8"]])
def test_the_recipe_comes_first(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == EXIT_USER_ERROR and "RECIPE is needed first" in capsys.readouterr().err


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


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, meant in (["trian"], "train"), (["data", "cahce"], "cache"):
        with pytest.raises(SystemExit) as end:
            main(typed)
        said = capsys.readouterr().err
        assert end.value.code == EXIT_USER_ERROR and f'Did you mean "{meant}"?' in said


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert "train as a recipe says" in said and "error" not in said.splitlines()[0]


def test_a_recipe_shows_its_values_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "taehv_demo", "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and "taehv_demo: 64]" in said


def test_a_run_too_large_for_the_cpu_is_refused_before_it_starts(
    capsys: pytest.CaptureFixture[str], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyworld.core.host_memory.available", lambda: 2**28)
    given = [f"--data_root={clips}", f"--output_dir={tmp_path}", "--device=cpu", "--train_batch_size=8",
             "--validation_height=32", "--validation_width=32"]  # fmt: skip
    said = refused(capsys, "train", "taehv_demo", *given)
    assert (
        "free main memory leaves it 0.22 GiB" in said and "--train_batch_size 4 --gradient_accumulation_steps 2" in said
    )
    assert "CUDA" not in said and not list(tmp_path.iterdir())
