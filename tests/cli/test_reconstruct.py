"""reconstruct and evaluate: every frame back, nothing overwritten, numbers that equal those of the model."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.helpers import refused
from tests.clips import make_clips, moving_pattern
from tinyworld import Taehv
from tinyworld.cli.main import main
from tinyworld.core.errors import EXIT_USER_ERROR
from tinyworld.media.read import iter_frames, probe
from tinyworld.media.write import write_video


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


def test_reconstruct_never_writes_over_a_video_it_was_given(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, linked = tmp_path / "own", tmp_path / "linked"
    own.mkdir()
    shutil.copy(clips / "clip0.mp4", own / "film.mp4")
    linked.symlink_to(own)
    before = (own / "film.mp4").read_bytes()
    flags = ["--model", tmp_path / "not looked for", "--output"]
    for video, output in [("film.mp4", "."), (own / "film.mp4", own), (own, own), (linked / "film.mp4", own)]:
        monkeypatch.chdir(own)
        said = refused(capsys, "reconstruct", video, *flags, output)
        assert "film.mp4 would be overwritten" in said and "--output" in said
    assert (own / "film.mp4").read_bytes() == before and [path.name for path in own.iterdir()] == ["film.mp4"]


def test_reconstruct_refuses_two_videos_with_one_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [("a/x.mp4", "b/x.mp4"), ("a/x.mkv", "a/x.mp4"), ("a/x.mp4", "a/x.mp4")]
    for first, second in pairs:
        said = refused(capsys, "reconstruct", first, second, "--model", "none", "--output", tmp_path)
        assert f"{first} and {second} would both be written to {tmp_path / 'x.mp4'}" in said
        assert "separate runs" in said and "No model" not in said
    for name in ("a/x.mkv", "a/x.mp4"):
        make_clips(tmp_path / "a", count=1)
        (tmp_path / "a" / "clip0.mp4").rename(tmp_path / name)
    assert "x.mkv and" in refused(capsys, "reconstruct", tmp_path / "a", "--model", "none", "--output", tmp_path)


def test_reconstruct_keeps_the_folders_below_the_one_given(run: Path, clips: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        shutil.copy(clips / "clip0.mp4", tmp_path / "in" / name / "x.mp4")
    flags = ["--model", str(run / "best_model"), "--max_frames", "2", "--output", str(tmp_path / "out")]
    assert main(["reconstruct", str(tmp_path / "in" / ".." / "in"), *flags]) == 0
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a/x.mp4", "b/x.mp4"]


def test_a_missing_video_is_passed_over_like_an_unreadable_one(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = [str(tmp_path / "nope.mp4"), str(clips / "clip0.mp4")]
    flags = ["--model", str(run / "best_model"), "--max_frames", "2", "--output", str(tmp_path / "out")]
    assert main(["reconstruct", *videos, *flags]) == EXIT_USER_ERROR
    assert "nope.mp4: no such file" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip0.mp4"]


def test_a_picture_too_small_for_ssim_is_measured_without_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "small.mp4", moving_pattern(3, 8, 8, 0), 12)
    make_clips(tmp_path, count=1)
    model = ["--model", str(run / "best_model")]
    assert main(["reconstruct", str(tmp_path / "small.mp4"), *model, "--output", str(tmp_path / "out")]) == 0
    assert " –  " in capsys.readouterr().out and probe(tmp_path / "out" / "small.mp4").width == 24
    shutil.rmtree(tmp_path / "out")
    assert main(["evaluate", str(tmp_path), *model, "--json", str(tmp_path / "out.json")]) == 0
    whole, small = json.loads((tmp_path / "out.json").read_text())["clips"]
    assert small["ssim"] is None and small["psnr"] > 5
    assert f"SSIM {whole['ssim']:.3f}" in capsys.readouterr().out


def test_evaluate_writes_json_that_every_reader_takes(run: Path, clips: Path, tmp_path: Path) -> None:
    flags = ["--model", str(run / "best_model"), "--max_frames", "1", "--json", str(tmp_path / "out.json")]
    assert main(["evaluate", str(clips / "clip0.mp4"), str(clips / "clip1.mp4"), *flags]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((tmp_path / "out.json").read_text(), parse_constant=refuse)
    assert [clip["flicker"] for clip in found["clips"]] == [None, None] and found["mean"]["flicker"] is None
    for name in ("psnr", "ssim", "baseline_psnr"):
        assert found["mean"][name] == pytest.approx(sum(clip[name] for clip in found["clips"]) / 2)


def test_a_place_for_numbers_that_cannot_be_written_is_refused_before_the_work(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "clip0.mp4"
    shutil.copy(clips / "clip0.mp4", video)
    for place, words in [
        (tmp_path / "nowhere" / "x.json", "no folder"),
        (tmp_path, "is a folder"),
        (video, "overwrit"),
    ]:
        said = refused(capsys, "evaluate", video, "--model", tmp_path / "not looked for", "--json", place)
        assert words in said and "--json" in said and "No model" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["clip0.mp4"]


def test_a_run_folder_names_its_weights_and_a_checkpoint_is_a_model(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = clips / "clip0.mp4"
    said = refused(capsys, "evaluate", video, "--model", run)
    assert f"is a run folder; its best weights are {run / 'best_model'}" in said
    assert main(["evaluate", str(video), "--model", str(run / "checkpoint-3"), "--max_frames", "2"]) == 0


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


@pytest.mark.parametrize("command", ["reconstruct", "evaluate"])
def test_tiles_give_the_same_numbers(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "large.mp4", moving_pattern(6, 152, 200, 0), 12)
    said = {}
    for name, flags in (("whole", []), ("tiled", ["--tile", "64", "--backend", "auto"])):
        words = [command, str(tmp_path / "large.mp4"), "--model", str(run / "best_model"), *flags]
        if command == "reconstruct":
            words += ["--plain", "--output", str(tmp_path / name)]
        else:
            words += ["--json", str(tmp_path / f"{name}.json")]
        assert main(words) == 0
        said[name] = capsys.readouterr().out
    assert "backend: eager, fp32 on c" in said["whole"] and "strips of" not in said["whole"]
    assert "backend: auto (encoding eager, decoding eager), fp32" in said["tiled"]
    assert "strips of 64 rows" in said["tiled"]
    if command == "reconstruct":
        whole, tiled = (np.stack(list(iter_frames(tmp_path / name / "large.mp4"))) for name in ("whole", "tiled"))
        assert whole.shape == (6, 152, 200, 3) and np.abs(whole.astype(int) - tiled).max() <= 3
    else:
        whole, tiled = (json.loads((tmp_path / f"{name}.json").read_text())["mean"] for name in ("whole", "tiled"))
        assert tiled["psnr"] == pytest.approx(whole["psnr"], abs=1e-3)


def test_tiles_and_backends_that_cannot_be_are_refused(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", clips / "clip0.mp4", "--model", run / "best_model"]
    assert "multiple of 8 pixels" in refused(capsys, *words, "--tile", "4") and "Use 8;" in refused(
        capsys, *words, "--tile", "0"
    )
    assert "Use 96 or 104" in refused(capsys, *words, "--tile", "100")
    if importlib.util.find_spec("onnxruntime") is not None:
        assert "computes in fp32" in refused(capsys, *words, "--backend", "onnx", "--dtype", "bf16")
    monkeypatch.setattr("tinyworld.models.taehv.onnx_export.importlib.util.find_spec", lambda name: None)
    assert "pip install 'tinyworld[onnx]'" in refused(capsys, *words, "--backend", "onnx")
