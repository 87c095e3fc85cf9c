"""`tinyworld demo fantasy`, two steps of each part, on a few small rooms."""

import shlex
from pathlib import Path

import pytest

from tests.infer.world.small import make_codec
from tinyworld.cli import fantasy_demo
from tinyworld.cli.main import main
from tinyworld.data.rooms import make_rooms

NEXT = (
    "mean training depth map",
    "tinyworld view ",
    "tinyworld lift ",
    "tinyworld generate --base ",
)


@pytest.mark.slow
def test_all_parts_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fantasy_demo, "SHORT", dict.fromkeys(fantasy_demo.SHORT, 2))
    rooms = make_rooms(tmp_path / "rooms", scenes=4, frames=26, height=32, width=48, seed=2, points=False, workers=1)
    codec = make_codec(tmp_path / "codec")
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset_base_path", str(rooms), "--codec_path", str(codec), "--run_name", "world", "--cpu_threads", "1"]
    assert main(["demo", "fantasy", "--short", *flags]) == 0
    said = capsys.readouterr().out
    for part in ("2/4", "3/4", "4/4", "depth, AbsRel", "camera, AUC@30", "median depth of the clip", "report:", *NEXT):
        assert part in said, part
    world = tmp_path / "output" / "world"
    for file in (
        "base/best_model/world.json",
        "stage1/latest.safetensors",
        "stage2/report.html",
        "latents/made_by.json",
    ):
        assert (world / file).is_file(), file
    commands = [shlex.split(line)[1:] for line in said.splitlines() if line.startswith("  tinyworld ")]
    assert [command[0] for command in commands] == ["view", "lift", "view", "generate"]
    assert Path(commands[0][1]) == world / "stage2"
    for command in commands:
        assert main([*command, *{"view": ["--no_open"], "generate": ["--steps=1"]}.get(command[0], [])]) == 0, command


def test_a_flag_of_one_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "fantasy", "--max_train_steps", "5"]) == 2
    said = capsys.readouterr().err
    assert "--max_train_steps is no flag of the demo" in said and "fantasy_demo_stage1" in said


def test_next_steps_can_be_copied() -> None:
    told = fantasy_demo.next_steps(
        Path("my out/base"), Path("my out/stage2"), Path("film.mp4"), Path("my out/first.png")
    )
    commands = [shlex.split(line) for line in told.splitlines() if line.startswith("  ")]
    model = ["--base", "my out/base", "--weights", "my out/stage2"]
    assert commands[1] == ["tinyworld", "lift", "film.mp4", *model, "--output", "my out/lifted"]
    assert commands[3][:8] == ["tinyworld", "generate", *model, "--image", "my out/first.png"]


def test_the_table_shows_constants_beside_the_model() -> None:
    known = {"abs_rel": 0.37, "delta1": 0.4, "auc30": 0.0, "ate": 0.045, "diffusion": 2.0, "mean_map_abs_rel": 0.1888}
    entry = {"baseline": known, "clips": [1], "step": 3, "abs_rel": 0.1891, "delta1": 0.73}
    (line,) = (line for line in fantasy_demo.table(entry).splitlines() if "mean training depth map" in line)
    assert "0.1888" in line and "0.1891" not in line  # the model's own number stands once, above
