"""evaluate fantasy: labelled sets, runs, scenes, videos and camera paths from the command line; evaluate itself stays."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.clips import moving_pattern
from tests.infer.world.planes import plane_scene
from tests.infer.world.small import FRAMES, HEIGHT, WIDTH, make_base, make_branch, make_codec
from tinyworld.cli.commands import evaluate
from tinyworld.cli.dispatch import exit_code
from tinyworld.cli.world_footage import Windows, kind_of, labelled_windows, video_windows
from tinyworld.config.dump import to_yaml
from tinyworld.config.load import load_recipe
from tinyworld.core.errors import EXIT_USER_ERROR, FramePlanError
from tinyworld.core.rng import derive_seed
from tinyworld.data.rooms import make_rooms
from tinyworld.data.worlds.dataset import WorldDataset
from tinyworld.data.worlds.layout import list_worlds
from tinyworld.data.worlds.scan import scan_worlds
from tinyworld.infer.world.conditions import Clip
from tinyworld.infer.world.scene import write_scene
from tinyworld.media.write import write_video

CLIP = Clip(HEIGHT, WIDTH, FRAMES)


def command(*argv: str | Path) -> int:
    """As the command line runs it."""
    parser = argparse.ArgumentParser(prog="tinyworld", allow_abbrev=False)
    evaluate.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["evaluate", *(str(part) for part in argv)])
    return exit_code(lambda: options.run(options))


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    assert command(*argv) == EXIT_USER_ERROR
    return capsys.readouterr().err


def numbers(file: Path) -> Any:
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("world")
    base, codec = make_base(folder / "base"), make_codec(folder / "codec")
    weights = make_branch(folder / "stage2.safetensors", base, "stage2", torch.float32, codec)
    return [f"--base={base}", f"--weights={weights}", "--device=cpu"]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "rooms"
    return make_rooms(folder, scenes=3, frames=9, height=HEIGHT, width=WIDTH, seed=5, workers=1, points=False)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(file, moving_pattern(12, 64, 80, 1), 12)
    return file


def test_a_labelled_set(model: list[str], rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "numbers.json"
    asked = ["--windows=2", "--sigma", "0.1", "0.5", "--max_clips=2", f"--json={file}"]
    assert command("fantasy", rooms, *model, *asked) == 0
    out = capsys.readouterr().out
    assert out.count("2 labelled clips, 4 windows, 5 frames of 32 × 48") == 2 and "noise 0.5" in out
    assert "median depth" in out and "still camera" in out and "AbsRel" in out
    told = numbers(file)["with_truth"]
    assert set(told) == {"0.1", "0.5"} and told["0.1"] != told["0.5"]
    lines = {(line["name"], line["beside"]): line for line in told["0.1"]["lines"]}
    assert lines["abs_rel", "median depth"]["clips"] == 2 and lines["auc30", "still camera"]["of"] == 2
    assert [row["part"] for row in told["0.1"]["clips"]] == [1, 3, 1, 3]


def test_windows_are_those_of_training(rooms: Path) -> None:
    """The middle window is the clip that a validation looks at, with its noise."""
    report = scan_worlds(list_worlds(rooms))
    dataset = WorldDataset(report.worlds, [(HEIGHT, WIDTH, FRAMES)], (2,))
    found = list(labelled_windows(rooms, Windows(CLIP, step=2)))
    assert len(found) == 3
    for world, truth in zip(report.worlds, found, strict=True):
        sample = dataset.held_out_sample(world, HEIGHT, WIDTH, FRAMES)
        assert (truth.id, truth.start, truth.usable) == (sample.id, sample.start, sample.usable)
        assert truth.seed == derive_seed("held out", sample.id)
        assert np.array_equal(truth.frames, sample.frames.permute(0, 2, 3, 1).numpy())
        for own, other in ((truth.depth, sample.depth), (truth.points, sample.points), (truth.mask, sample.mask)):
            assert torch.equal(own, other)
        assert torch.equal(truth.cameras.extrinsics, sample.extrinsics)
    several = list(labelled_windows(rooms, Windows(CLIP, windows=3, most=1)))
    assert [truth.start for truth in several] == [0, 2, 3] and len({truth.seed for truth in several}) == 3


def test_a_run_is_looked_at_by_what_it_held_out(model: list[str], rooms: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        "fantasy_demo_stage1",
        {
            "dataset_base_path": str(rooms),
            "held_out_fraction": "0.3",
            "backbone_path": model[0].partition("=")[2],
            "codec_path": str(Path(model[0].partition("=")[2]).with_name("codec")),
            "height": "32",
            "width": "48",
            "num_frames": "5",
            "frame_steps": "2",
        },
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(recipe))
    from tinyworld.tasks.fantasy.sources import find_sources

    held_out = find_sources(recipe).held_out  # type: ignore[arg-type]
    found = list(labelled_windows(run, Windows(CLIP)))
    assert kind_of(run) == "run" and 0 < len(held_out) < 3
    assert [truth.id for truth in found] == [world.id for world in held_out]
    assert all(truth.usual_depth is not None and truth.usual_depth.shape == (HEIGHT, WIDTH) for truth in found)
    assert all(truth.usual_depth is None for truth in labelled_windows(rooms, Windows(CLIP)))  # nobody trained on it
    assert [truth.start for truth in found] == [0] * len(found)  # 5 frames with step 2 are all nine
    assert [truth.start for truth in labelled_windows(run, Windows(CLIP, step=1))] == [2] * len(found)


def test_scenes_need_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        write_scene(plane_scene(5, 36, 48, seed), tmp_path / f"scene{seed}")
    scenes = [tmp_path / "scene0", tmp_path / "scene1"]
    assert command("fantasy", *scenes, "--json", tmp_path / "n.json") == 0
    assert "2 scenes without labels; intervals over clips" in capsys.readouterr().out
    lines = {line["name"]: line for line in numbers(tmp_path / "n.json")["without_truth"]["lines"]}
    agreed = lines["depth_agreement"]
    assert agreed["mean"] < 1e-4 < 0.01 < agreed["baseline"] and (agreed["wins"], agreed["of"]) == (2, 2)
    assert "ate" not in lines


def test_videos_and_what_cannot_be_read(
    model: list[str], film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.mp4").write_text("words")
    told = ["--windows=2", "--json", str(tmp_path / "n.json")]
    assert command("fantasy", film, tmp_path / "no.mp4", *model, *told) == EXIT_USER_ERROR
    out, err = capsys.readouterr()
    assert "2 scenes without labels; intervals over parts of one clip" in out and "no.mp4" in err
    assert [row["part"] for row in numbers(tmp_path / "n.json")["without_truth"]["clips"]] == [
        "1, noise 0.1",
        "5, noise 0.1",
    ]
    windows = list(video_windows(film, Windows(CLIP, step=2)))
    assert [(start, frames.shape) for start, frames in windows] == [(1, (FRAMES, HEIGHT, WIDTH, 3))]
    with pytest.raises(FramePlanError, match="--frames 1"):
        list(video_windows(film, Windows(CLIP, step=3)))


def test_follow(model: list[str], rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--seeds=2", "--steps=1", "--json", str(tmp_path / "n.json")]
    assert command("fantasy", rooms, *model, *few, "--follow", "own") == 0
    assert "1 camera paths × 2 seeds, 5 frames of 32 × 48, 1 steps, 2 first frames" in capsys.readouterr().out
    told = numbers(tmp_path / "n.json")["follow"]
    assert [row["id"] for row in told["clips"]] == ["own, seed 0", "own, seed 1"]
    assert told["clips"][0]["values"] != told["clips"][1]["values"]
    assert {line["beside"] for line in told["lines"]} == {"no camera given", "still camera"}
    assert command("fantasy", "--follow", "pan", *model, "--seeds=1", "--steps=1") == 0
    assert "no first frame" in capsys.readouterr().out


def test_mistakes(
    model: list[str], rooms: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv, said in (
        ([], "something to look at"),
        ([tmp_path / "none"], "there is nothing"),
        ([tmp_path], "no folders sample_xxx/"),
        ([film, "--sigma", "2"], "sigma=2.0"),
        ([film, "--windows=0"], "--windows 0"),
        ([film, "--frames=6"], "Use 5 or 9"),
        ([rooms, "--frames=13"], "none of the samples"),
        (["--follow", "orbti"], "orbit"),
        (["--follow", "own"], "give a data set"),
        (["--follow", "pan", "--seeds=0"], "--seeds 0"),
        ([film, "--json", tmp_path / "no" / "n.json"], "there is no folder"),
    ):
        assert said in refused(capsys, "fantasy", *model, *argv)
    assert "--base" in refused(capsys, "fantasy", film) and "--weights" in refused(capsys, "fantasy", rooms, model[0])


def test_evaluate_is_what_it_was(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_codec(tmp_path / "model")
    assert command(film, "--model", model, "--max_frames=5") == 0
    assert "PSNR" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command(film)
    assert "--model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("fantasy", "--help")
    assert "tinyworld evaluate fantasy" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command("fantasy", film, "--model", model)
    assert "unrecognized arguments: --model" in capsys.readouterr().err
