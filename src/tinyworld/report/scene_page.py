"""One page in which a scene can be walked around: point cloud, cameras, video and depth in step, in one file, offline."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tinyworld.core.files import write_atomic
from tinyworld.core.version import __version__
from tinyworld.report.cloud_figure import packed_colours, packed_points, rounded, together
from tinyworld.report.document import embedded_json, template
from tinyworld.report.pictures import depth_pictures, encoded, fitting_width, uri
from tinyworld.report.shown import ShownScene, ShownWorld

POINTS = 60_000
"""Of one world."""
PAGE_POINTS = 200_000
"""Of all worlds of a page: 20 bytes each."""
PICTURE_BYTES = 3_000_000
"""Of all pictures of a page; base64 adds a third."""
MOST_FRAMES = 240


@dataclass(frozen=True)
class _Pictures:
    video: list[str]
    depth: list[list[str]]
    range: list[tuple[float, float]]


def build_scene_page(
    scenes: Sequence[ShownScene], file: str | Path, title: str, points: int = POINTS, notes: Sequence[str] = ()
) -> Path:
    """Write the page and return its path. points: the most of one world. Raises ValueError without a scene."""
    if not scenes:
        raise ValueError("a page needs a scene")
    page = template("scene_page.html.j2").render(
        title=title,
        viewer=viewer_data(scenes, points),
        notes=notes,
        plotly=Markup(get_plotlyjs()),
        version=__version__,
        now=time.time(),
    )
    path = Path(file)
    write_atomic(path, page)
    return path


def viewer_data(scenes: Sequence[ShownScene], points: int = POINTS) -> Markup:
    """What the viewer's script reads of one scene or more."""
    scenes = [scene.thinned(MOST_FRAMES) for scene in scenes]
    worlds = sum(len(scene.worlds) for scene in scenes)
    most = min(points, PAGE_POINTS // worlds)
    return embedded_json(
        [_scene(scene, pictures, most) for scene, pictures in zip(scenes, _pictures(scenes), strict=True)]
    )


def _pictures(scenes: Sequence[ShownScene]) -> list[_Pictures]:
    depths = [[depth_pictures(world) for world in scene.worlds] for scene in scenes]
    clips = [scene.frames for scene in scenes] + [clip for shown in depths for clip, _, _ in shown]
    width = fitting_width(clips, PICTURE_BYTES)

    def uris(clip: np.ndarray) -> list[str]:
        return [uri(encoded(picture, width)) for picture in clip]

    return [
        _Pictures(uris(scene.frames), [uris(clip) for clip, _, _ in shown], [(near, far) for _, near, far in shown])
        for scene, shown in zip(scenes, depths, strict=True)
    ]


def _scene(scene: ShownScene, pictures: _Pictures, most: int) -> dict[str, Any]:
    placed = together([(world, scene.frames) for world in scene.worlds], scene.worlds, most)
    box = placed.box
    worlds = [
        {
            "name": world.name,
            "points": packed_points(cloud.places, box),
            "colours": {name: packed_colours(colours) for name, colours in cloud.colours.items()},
            "frusta": rounded(box.placed(frustum)),
            "depth": shown,
            "range": [_length(value, scene.scale) for value in limits],
        }
        for world, cloud, frustum, shown, limits in zip(
            scene.worlds, placed.clouds, placed.frusta, pictures.depth, pictures.range, strict=True
        )
    ]
    return {
        "name": scene.name,
        "fps": scene.fps,
        "size": list(scene.frames.shape[2:0:-1]),
        "video": pictures.video,
        "worlds": worlds,
        "asked": None if scene.asked is None else rounded(box.placed(scene.asked.centres().numpy())),
        **placed.axes(scene.worlds[0].cameras),
        "facts": _facts(scene, [len(cloud.places) for cloud in placed.clouds]),
    }


def _length(value: float, scale: float) -> str:
    return f"{value * scale:.3g} m" if scale != 1 else f"{value:.3g}"


def _facts(scene: ShownScene, counts: Sequence[int]) -> list[tuple[str, str]]:
    """Labels and values of the table under the viewer."""
    count, height, width = scene.frames.shape[:3]
    rows = [(str(label).replace("_", " ").capitalize(), _told(value)) for label, value in scene.facts.items()]
    rows += [
        ("Frames", f"{count} of {height} × {width}, {scene.fps:.3g} a second"),
        ("Scale", f"{scene.scale:.4g} m per unit" if scene.scale != 1 else "1 (metres, or unknown)"),
    ]
    for world, shown in zip(scene.worlds, counts, strict=True):
        of = f" of {_available(world):,}" if _available(world) > shown else ""
        rows.append((f"Points, {world.name}" if len(counts) > 1 else "Points", f"{shown:,}{of}"))
    return [(label, value) for label, value in rows if value]


def _available(world: ShownWorld) -> int:
    return int(world.placed()[1].sum())


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_told(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
