"""Point clouds of the same held-out clip by several runs, ready for panes that turn together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinyworld.report.compared import Entry
from tinyworld.report.held_out import held_out_scenes

if TYPE_CHECKING:
    from tinyworld.report.shown import ShownScene, ShownWorld

MOST_SCENES = 3
POINTS, PAGE_POINTS = 25_000, 150_000
"""Of one world, and of all of a page: nine bytes each, and a third more in base64."""
ESTIMATED, TRUE = "estimated", "true"
SAME_SCALE = 1e-3


def shared_scenes(entries: Sequence[Entry]) -> tuple[list[dict[str, Any]], list[str]]:
    """What the page's script shows of clips that two runs or more have a scene of, and notes on what is left out and why."""
    found: dict[str, list[tuple[Entry, ShownScene]]] = {}
    notes: list[str] = []
    for entry in entries:
        scenes, faults = held_out_scenes(entry.run.folder)
        notes += [f"{entry.letter}: {fault}" for fault in faults]
        for scene in scenes:
            found.setdefault(scene.name, []).append((entry, scene))
    shared = [(name, rows) for name, rows in found.items() if len(rows) > 1]
    if len(shared) > MOST_SCENES:
        notes.append(f"Point clouds of {MOST_SCENES} of {len(shared)} clips are shown.")
        shared = shared[:MOST_SCENES]
    most = min(POINTS, PAGE_POINTS // max(sum(len(rows) + 1 for _, rows in shared), 1))
    return [made for name, rows in shared if (made := _scene(name, rows, most, notes)) is not None], notes


def _scene(name: str, rows: "list[tuple[Entry, ShownScene]]", most: int, notes: list[str]) -> dict[str, Any] | None:
    """One box and one view for all panes, so that places compare; None with a note when the runs cut the clip differently."""
    from tinyworld.report.cloud_figure import packed_colours, packed_points, rounded, together

    scale = rows[0][1].scale
    if any(abs(scene.scale / scale - 1) > SAME_SCALE for _, scene in rows):
        notes.append(f"No point cloud of {name}: the runs cut it in different ways.")
        return None
    panes = [(entry.place, _world(scene, ESTIMATED), scene) for entry, scene in rows]
    panes = [pane for pane in panes if pane[1] is not None]
    truth = _world(rows[0][1], TRUE)
    shown: list[tuple[int | None, ShownWorld, ShownScene]] = [(p, w, s) for p, w, s in panes if w is not None]
    if truth is not None:
        shown.append((None, truth, rows[0][1]))
    sizes = [truth] if truth is not None else [world for _, world, _ in shown]
    placed = together([(world, scene.frames) for _, world, scene in shown], sizes, most)
    reference = truth if truth is not None else shown[0][1]
    return {
        "name": name,
        **placed.axes(reference.cameras),
        "panes": [
            {
                "run": place,
                "points": packed_points(cloud.places, placed.box),
                "colours": packed_colours(cloud.colours["video"]),
                "path": rounded(placed.box.placed(frustum[:, 0])),
            }
            for (place, _, _), cloud, frustum in zip(shown, placed.clouds, placed.frusta, strict=True)
        ],
    }


def _world(scene: "ShownScene", name: str) -> "ShownWorld | None":
    return next((world for world in scene.worlds if world.name == name), None)
