"""The held-out clips of a run as scenes: files that the task writes beside the preview videos.

torch is imported only where there are any: a run without geometry has its report without it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tinyworld.core.errors import UserError

if TYPE_CHECKING:
    from tinyworld.report.shown import ShownScene

SUFFIX = ".npz"
MOST_SCENES = 6
"""In one page; the page says how many more there are."""


def held_out_scenes(run_folder: Path) -> tuple[list["ShownScene"], list[str]]:
    """Scenes of the latest validation that left any, by name, and notes on what is not shown and why."""
    folders = {int(path.name[5:]): path for path in (run_folder / "previews").glob("step-*") if path.name[5:].isdigit()}
    files = {step: sorted(path.glob(f"[!.]*{SUFFIX}")) for step, path in folders.items()}
    steps = [step for step, found in files.items() if found]
    if not steps:
        return [], []
    from tinyworld.report.scene_file import read_scene_file

    found, scenes, notes = files[max(steps)], [], []
    for path in found[:MOST_SCENES]:
        try:
            scenes.append(read_scene_file(path))
        except UserError as fault:
            notes.append(f"A scene of step {max(steps)} is left out. {fault}")
    if len(found) > MOST_SCENES:
        notes.append(f"{MOST_SCENES} of {len(found)} scenes are shown. All are in {found[0].parent}.")
    return scenes, notes
