"""From a recipe to the clips that are trained on and those that are held out."""

from dataclasses import dataclass
from pathlib import Path

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.console import counting
from tinyworld.core.errors import DataError
from tinyworld.data.manifest import list_videos
from tinyworld.data.scan import ClipRef, Need, ScanReport, scan
from tinyworld.data.split import split

ROOMS_FOLDER = Path("datasets") / "rooms"
"""Where the embedded data set is rendered to, below the working directory."""
ROOMS_SCENES, ROOMS_FRAMES = 16, 37
"""Its size: enough rooms to hold a few out, rendered in half a minute on two cores."""

SCAN_INDEX = ".scan-index.json"
"""What earlier scans found, by path, size and time: the next one reads only new files. In the output folder."""


@dataclass(frozen=True)
class Sources:
    """The clips of a run. `report` is what the scan of the training folder found."""

    train: list[ClipRef]
    held_out: list[ClipRef]
    report: ScanReport


def find_sources(recipe: TaehvRecipe) -> Sources:
    """List, scan and split the videos of a recipe; renders the embedded rooms when they are asked for and not there.

    Raises MissingFileError and DataError kinds: nothing found, too many unreadable, too few to hold one out.
    """
    data = recipe.data
    root, annotations = recipe.find("data.data_root"), recipe.find("data.annotation_file")
    if root is None:
        root = _rendered_rooms()
    report = scan_folder(recipe, root, annotations)
    held_out_root = recipe.find("data.held_out_root")
    if held_out_root is None:
        train, held_out = split(report.clips, data.held_out_fraction, recipe.run.seed)
    else:
        train, held_out = report.clips, scan_folder(recipe, held_out_root, None).clips
        shared = {clip.path for clip in train} & {clip.path for clip in held_out}
        if shared:
            raise DataError(
                f"{len(shared)} videos are in data_root and in held_out_root, {min(shared)} among them: metrics on clips "
                "that were trained on say nothing. Separate the folders (key: data.held_out_root)."
            )
    return Sources(train, held_out, report)


def _rendered_rooms() -> Path:
    from tinyworld.data.rooms import make_rooms

    with counting("rendering rooms") as on_progress:
        return make_rooms(ROOMS_FOLDER, ROOMS_SCENES, ROOMS_FRAMES, points=False, on_progress=on_progress)


def scan_folder(recipe: TaehvRecipe, root: Path, annotations: Path | None) -> ScanReport:
    """Probe every video below `root` against what the least demanding of the recipe's clip sizes needs."""
    data, sizes = recipe.data, [bucket for stage in recipe.stages() for bucket in stage.buckets]
    need = Need(
        height=min(size[0] for size in sizes),
        width=min(size[1] for size in sizes),
        n_frames=min(size[2] for size in sizes),
        short_clips=data.short_clips,
        quarantine_budget=data.quarantine_budget,
        frame_steps=data.frame_steps,
    )
    index = Path(recipe.run.output_dir).expanduser() / SCAN_INDEX
    index.parent.mkdir(parents=True, exist_ok=True)
    with counting("scanning videos") as on_progress:
        return scan(list_videos(root, annotations), need, index=index, on_progress=on_progress)
