"""`tinyworld view SCENE_OR_RUN`: a page in which a world can be walked around, in one file that needs no server."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyworld.cli.paths import check_writable, given_path
from tinyworld.core.errors import ConfigError, MissingFileError

if TYPE_CHECKING:
    from tinyworld.report.shown import ShownScene

POINTS = 60_000
MOST_POINTS = 500_000
PAGE = "view.html"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "view",
        help="walk around a scene, or a run's held-out scenes: points, cameras, video and depth in one HTML file",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder", metavar="SCENE_OR_RUN", type=given_path, help="a scene's folder (generate, lift), or a run's"
    )
    parser.add_argument("--output", type=given_path, metavar="FILE.html", help=f"default: {PAGE} in the folder")
    parser.add_argument("--points", type=int, default=POINTS, metavar="N", help=f"of one world; default: {POINTS}")
    parser.add_argument("--no_open", action="store_true", help="only write the page")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.report.scene_page import build_scene_page

    folder = Path(options.folder)
    if not 1 <= options.points <= MOST_POINTS:
        raise ConfigError(f"--points {options.points}: it must be 1 to {MOST_POINTS}; {POINTS} is a good value.")
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder. Give a scene's folder, or a run's.")
    output = Path(options.output) if options.output else folder / PAGE
    check_writable(output, "--output")
    scenes, notes = _scenes(folder)
    page = build_scene_page(scenes, output, folder.resolve().name, options.points, notes)
    print(page)
    if not options.no_open and _has_display():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0


def _scenes(folder: Path) -> tuple[list["ShownScene"], list[str]]:
    """Of a scene's folder one, of a run's those of its held-out clips. Raises MissingFileError where there is none."""
    from tinyworld.report.held_out import held_out_scenes

    if (folder / "scene.json").is_file():
        return [_scene(folder)], []
    if not any((folder / name).exists() for name in ("journal.jsonl", "previews")):
        raise MissingFileError(
            f"{folder}: neither a scene (a folder with scene.json, as generate and lift write it) nor a run (with "
            "journal.jsonl). Give the folder of one of them."
        )
    scenes, notes = held_out_scenes(folder)
    if not scenes:
        told = f" {' '.join(notes)}" if notes else ""
        raise MissingFileError(
            f"{folder}: this run has no held-out scenes to show: training a geometry branch leaves them in previews/step-N at "
            f"each validation. `tinyworld report` shows what else there is.{told}"
        )
    return scenes, notes


def _scene(folder: Path) -> "ShownScene":
    from tinyworld.infer.world.following import asked_cameras
    from tinyworld.infer.world.scene import read_scene
    from tinyworld.report.shown import ShownScene, ShownWorld

    scene = read_scene(folder)
    worlds = [ShownWorld("depth", scene.depth, None, scene.confidence, scene.cameras)]
    if scene.points is not None:
        worlds.append(ShownWorld("point map", scene.depth, scene.points, scene.point_confidence, scene.cameras))
    name, facts = folder.resolve().name, _told(scene.facts)
    return ShownScene(name, scene.frames, tuple(worlds), scene.fps, scene.scale, facts, asked_cameras(scene))


def _told(facts: dict[str, Any]) -> dict[str, Any]:
    """What a person reads of a scene's facts: no matrices, and of paths the names, because a page is passed on."""
    told: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            value = {name: part for name, part in value.items() if isinstance(part, str | int | float)}
        elif isinstance(value, list | tuple) and any(isinstance(part, list | tuple | dict) for part in value):
            continue
        told[key] = Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
    return {key: value for key, value in told.items() if value not in (None, "", {}, [])}


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
