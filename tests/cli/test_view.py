"""view: the page of a scene and of a run's held-out scenes; the browser opens only where there is a display."""

import argparse
import json
import re
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.infer.world.planes import plane_scene
from tinyworld.cli.commands import view
from tinyworld.cli.dispatch import exit_code
from tinyworld.core.errors import EXIT_USER_ERROR
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.infer.world.scene import write_scene
from tinyworld.report.scene_file import write_scene_file
from tinyworld.report.shown import ShownScene, ShownWorld


def command(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    view.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["view", *map(str, argv)])
    return exit_code(lambda: options.run(options))


def held(page: Path) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="scenes">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    scenes: list[dict[str, Any]] = json.loads(found.group(1))
    return scenes


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    made = plane_scene()
    asked = cameras_for("dolly", 3, 18, 22)
    camera = {"path": "dolly", "extrinsics": asked.extrinsics.tolist(), "intrinsics": asked.intrinsics.tolist()}
    facts = {**made.facts, "camera": camera, "weights": "/home/someone/weights.safetensors", "image": None}
    write_scene(replace(made, facts=facts), tmp_path / "scene")
    return tmp_path / "scene"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: found.append(address))
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_scene(scene: Path, opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(scene, "--points=200") == 0
    page = scene / "view.html"
    assert capsys.readouterr().out.strip() == str(page) and opened == []
    (one,) = held(page)
    assert [world["name"] for world in one["worlds"]] == ["depth", "point map"] and len(one["video"]) == 3
    assert len(one["asked"]) == 3
    facts = dict(one["facts"])
    assert (
        facts["Prompt"] == "a plane" and facts["Camera"] == "path dolly" and facts["Weights"] == "weights.safetensors"
    )
    assert "Image" not in facts and facts["Points, depth"].split()[0] <= "200"


def test_the_browser_opens_where_there_is_a_display(
    scene: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert command(scene, "--no_open", f"--output={tmp_path / 'page.html'}") == 0 and opened == []
    assert command(scene, f"--output={tmp_path / 'page.html'}") == 0
    assert opened == [(tmp_path / "page.html").as_uri()]
    assert not (scene / "view.html").exists()


def test_a_run(tmp_path: Path, opened: list[str]) -> None:
    made, folder = plane_scene(), tmp_path / "run" / "previews" / "step-20"
    folder.mkdir(parents=True)
    world = ShownWorld("true", made.depth, None, None, made.cameras)
    write_scene_file(folder / "room.npz", ShownScene("room", made.frames, (world,), 8.0))
    assert command(tmp_path / "run", "--no_open") == 0
    assert [one["name"] for one in held(tmp_path / "run" / "view.html")] == ["room"]


def test_mistakes(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").touch()
    (tmp_path / "empty").mkdir()
    for argv, said in (
        ([tmp_path / "none"], "no such folder"),
        ([tmp_path / "empty"], "neither a scene"),
        ([tmp_path / "run"], "no held-out scenes"),
        ([scene, "--points=0"], "1 to"),
        ([scene, f"--output={tmp_path}"], "is a folder"),
        ([scene, f"--output={tmp_path / 'no' / 'page.html'}"], "no folder"),
    ):
        assert command(*argv) == EXIT_USER_ERROR
        assert said in capsys.readouterr().err
