"""The side-by-side clips of a run, embedded in the page as base64, within a limit of bytes."""

import base64
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from tinyworld.core.errors import UserError
from tinyworld.core.journal_lines import Record
from tinyworld.core.names import file_name
from tinyworld.media.read import probe
from tinyworld.report.read import Run
from tinyworld.report.words import size

EMBEDDED_BYTES = 24_000_000
"""Of video files in one page; base64 adds a third."""


@dataclass(frozen=True)
class Preview:
    """One clip: width and height in pixels of the whole side-by-side picture, `uri` the file itself."""

    name: str
    width: int
    height: int
    uri: str
    metrics: Record


@dataclass
class PreviewGroup:
    """The clips of one validation."""

    step: int
    label: str
    previews: list[Preview] = field(default_factory=list)


def embed_previews(run: Run, limit: int = EMBEDDED_BYTES) -> tuple[list[PreviewGroup], list[str]]:
    """Clips of the latest validation and of the best one, and notes on what was left out and why."""
    folders = {int(path.name[5:]): path for path in (run.folder / "previews").glob("step-*") if path.name[5:].isdigit()}
    if not folders:
        return [], []
    latest = max(folders)
    groups = [PreviewGroup(latest, "Latest and best validation" if latest == run.best_step else "Latest validation")]
    if run.best_step in folders and run.best_step != latest:
        groups.append(PreviewGroup(run.best_step, "Best validation"))
    columns = [[(group, path) for path in sorted(folders[group.step].glob("[!.]*.mp4"))] for group in groups]
    used, left_out, left_bytes, notes = 0, 0, 0, []
    for group, path in (pair for row in zip_longest(*columns) for pair in row if pair is not None):
        weight = path.stat().st_size
        if used + weight > limit:
            left_out, left_bytes = left_out + 1, left_bytes + weight
            continue
        try:
            info = probe(path)
        except UserError as fault:
            notes.append(f"A clip of step {group.step} is left out. {fault}")
            continue
        used += weight
        uri = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
        metrics = _metrics(run, group.step, path)
        name = str(metrics.get("id", path.stem))
        group.previews.append(Preview(name, info.width, info.height, uri, metrics))
    if left_out:
        notes.append(
            f"{left_out} {'clip is' if left_out == 1 else 'clips are'} left out ({size(left_bytes)}), because a page "
            f"holds at most {size(limit)} of video. All are in the run's folder previews."
        )
    return [group for group in groups if group.previews], notes


def _metrics(run: Run, step: int, path: Path) -> Record:
    """The numbers of the clip in that validation; empty when there are none."""
    for entry in run.validations:
        clips = entry.get("clips")
        if entry["step"] == step and isinstance(clips, list):
            named = (clip for clip in clips if isinstance(clip, dict))
            return next((clip for clip in named if file_name(str(clip.get("id"))) == path.stem), {})
    return {}
