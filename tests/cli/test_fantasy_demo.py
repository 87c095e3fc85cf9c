"""`tinyworld demo fantasy`, two steps of each part, on a few small rooms."""

from pathlib import Path

import pytest

from tests.infer.world.small import make_codec
from tinyworld.cli import fantasy_demo
from tinyworld.cli.main import main
from tinyworld.data.rooms import make_rooms


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
    for part in ("2/4", "3/4", "4/4", "depth, AbsRel", "camera, AUC@30", "median depth of the clip", "report:"):
        assert part in said, part
    world = tmp_path / "output" / "world"
    for file in (
        "base/best_model/world.json",
        "stage1/latest.safetensors",
        "stage2/report.html",
        "latents/made_by.json",
    ):
        assert (world / file).is_file(), file


def test_a_flag_of_one_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "fantasy", "--max_train_steps", "5"]) == 2
    said = capsys.readouterr().err
    assert "--max_train_steps is no flag of the demo" in said and "fantasy_demo_stage1" in said
