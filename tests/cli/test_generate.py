"""generate and lift: a scene that can be read again, previews that go, output that is never replaced by mistake."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.clips import moving_pattern
from tests.infer.world.small import FRAMES, HEIGHT, WIDTH, make_base, make_branch, make_codec
from tinyworld.cli.commands import generate, lift
from tinyworld.cli.dispatch import exit_code
from tinyworld.core.errors import EXIT_USER_ERROR
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.infer.world.following import asked_cameras
from tinyworld.infer.world.pictures import fitted
from tinyworld.infer.world.scene import read_scene
from tinyworld.media.read import probe, read_frames
from tinyworld.media.write import write_video


def command(*argv: str | Path) -> int:
    """As the command line runs them."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    for module in (generate, lift):
        module.add_parser(commands)
    options = parser.parse_args([str(part) for part in argv])
    return exit_code(lambda: options.run(options))


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    assert command(*argv) == EXIT_USER_ERROR
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments that name it; the codec is the one the weights name."""
    folder = tmp_path_factory.mktemp("world")
    base, codec = make_base(folder / "run" / "best_model"), make_codec(folder / "codec")
    weights = make_branch(folder / "stage2.safetensors", base, "stage2", torch.float32, codec)
    return [f"--base={folder / 'run'}", f"--weights={weights}", "--device=cpu"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(file, moving_pattern(12, 64, 80, 1), 12)
    return file


def test_generate(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(moving_pattern(1, 60, 60, 2)[0]).save(tmp_path / "first.png")
    seen: list[set[str]] = []
    own = generate._write_preview

    def watched(*arguments: object) -> None:
        own(*arguments)  # type: ignore[arg-type]
        seen.append({path.name for path in (tmp_path / "scene").iterdir()})

    asked = ["--camera=dolly:0.4", f"--image={tmp_path / 'first.png'}", "--steps=3", "--seed=7", "--preview_every=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "_write_preview", watched)
        assert command("generate", *model, *asked, "--output", tmp_path / "scene") == 0
    assert seen == [set(generate.PREVIEWS)] * 2  # nothing to see at the last step but the result
    out = capsys.readouterr().out
    assert out.endswith(f"look: tinyworld view {tmp_path / 'scene'}\n")
    assert "5 frames of 32 × 48, seed 7; 3 steps" in out and "frames/s" in out and "AUC@30" in out
    scene = read_scene(tmp_path / "scene")
    assert scene.frames.shape == (FRAMES, HEIGHT, WIDTH, 3) and scene.fps == 16
    assert not any((tmp_path / "scene" / name).exists() for name in generate.PREVIEWS)
    assert scene.facts["image"] and set(scene.facts["follows"]) >= {"ate", "auc30"}
    cameras = asked_cameras(scene)
    assert cameras is not None
    assert torch.allclose(cameras.extrinsics, cameras_for("dolly:0.4", FRAMES, HEIGHT, WIDTH).extrinsics)
    assert command("generate", *model, *asked, "--output", tmp_path / "scene") == 0  # an earlier scene is replaced
    assert np.array_equal(read_scene(tmp_path / "scene").depth, scene.depth)
    lens = ["--camera_fov=30", "--camera=pan", "--frames=9", "--steps=1"]
    assert command("generate", *model, *lens, "--output", tmp_path / "other") == 0
    assert len(read_scene(tmp_path / "other").frames) == 9


def test_stage_one_says_that_no_camera_steers(
    model: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, own, device = model
    stage2 = Path(own.partition("=")[2])
    stage1 = make_branch(
        tmp_path / "stage1.safetensors", stage2.parent / "run" / "best_model", "stage1", torch.float32,
        stage2.with_name("codec"),
    )  # fmt: skip
    for weights, camera, warned in (
        (stage1, ["--camera=orbit"], True),
        (stage1, ["--camera=dolly:0"], False),
        (stage1, [], False),
        (stage2, ["--camera=orbit"], False),
    ):
        caplog.clear()
        asked = ["--steps=1", *camera, "--output", str(tmp_path / "scene")]
        with caplog.at_level("WARNING"):
            assert command("generate", base, f"--weights={weights}", device, *asked) == 0
        assert ("only stage 2 does" in caplog.text) == warned, (weights, camera)


def test_a_transformer_alone_makes_a_video(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    base, weights, device = model
    codec = Path(weights.partition("=")[2]).with_name("codec")
    size = [
        "--frames=5",
        "--height=32",
        "--width=48",
        "--steps=2",
        f"--codec={codec}",
        "--output",
        str(tmp_path / "film"),
    ]
    with caplog.at_level("WARNING"):
        assert command("generate", base, device, *size) == 0
        assert command("generate", base, device, *size) == 0
    assert "no --weights" in caplog.text
    assert [path.name for path in (tmp_path / "film").iterdir()] == ["video.mp4"]
    assert probe(tmp_path / "film" / "video.mp4").frames == 5
    assert "--codec" in refused(capsys, "generate", base, device, "--output", tmp_path / "another")


def test_lift(model: list[str], film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*model, "--start=1", "--step=2", "--output"]
    assert command("lift", film, *asked, tmp_path / "scene") == 0
    out = capsys.readouterr().out
    assert "5 of 6 frames are taken" in out and "from 64 × 80 to 32 × 48" in out
    scene = read_scene(tmp_path / "scene")
    assert np.array_equal(scene.frames, fitted(read_frames(film, range(1, 11, 2)), HEIGHT, WIDTH))
    assert scene.fps == pytest.approx(6) and scene.facts["sigma"] == pytest.approx(0.1, abs=0.01)
    whole = ["--frames=9", "--height=64", "--width=80", "--output"]
    assert command("lift", film, *model, *whole, tmp_path / "whole") == 0
    assert read_scene(tmp_path / "whole").frames.shape == (9, 64, 80, 3)
    assert "resized" not in capsys.readouterr().out


def test_how_many_frames() -> None:
    assert [lift.chosen(available, None, 13) for available in (1, 4, 5, 12, 13, 99)] == [1, 1, 5, 9, 13, 13]
    assert lift.chosen(20, 17, 13) == 17


def test_mistakes(model: list[str], film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "new")]
    for argv, said in (
        (["generate", "--camera=orbti"], "orbit"),
        (["generate", "--camera=paths/none.txt"], "none.txt"),
        (["generate", "--image=nothing.png"], "no such picture"),
        (["generate", "--frames=6"], "Use 5 or 9"),
        (["generate", "--steps=0"], "num_inference_steps=0"),
        (["generate", "--preview_every=-1"], "--preview_every -1"),
        (["lift", film, "--frames=21"], "Use at most 9"),
        (["lift", film, "--frames=8"], "Use 5 or 9"),
        (["lift", film, "--start=12"], "frames 0 to 11"),
        (["lift", film, "--sigma=2"], "sigma=2.0"),
        (["lift", tmp_path / "no.mp4"], "no.mp4"),
    ):
        assert said in refused(capsys, *argv, *model, *output)
        assert not (tmp_path / "new").exists()
    assert "--weights" in refused(capsys, "lift", film, model[0], *output)


def test_other_files_are_never_replaced(
    model: list[str], film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for argv in (["generate"], ["lift", film]):
        assert "will not be replaced" in refused(capsys, *argv, *model, "--output", tmp_path)
        assert "will not be replaced" in refused(capsys, *argv, *model, "--output", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
