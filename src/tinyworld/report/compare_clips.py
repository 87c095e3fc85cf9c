"""Held-out clips of several runs beside each other, with maps of where each differs from the original.

The runs wrote previews: a video of the original and what was made of it, side by side. Their parts are laid out anew in one small
video a clip, so that all runs play in step: above the original and what each run made of it, below the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyworld.core.errors import UserError
from tinyworld.core.journal_lines import number
from tinyworld.core.names import file_name
from tinyworld.media.read import probe
from tinyworld.report.compare_maps import difference, first_frames, heat, shrunk, video_uri
from tinyworld.report.compared import Entry
from tinyworld.report.metrics import COLUMNS, Metric
from tinyworld.report.words import size

CLIP_BYTES = 12_000_000
"""Of all clips of a page together; base64 adds a third."""
MOST_CLIPS = 4
FACTORS = (8, 4, 2, 1)
FULL = 99.0
"""Percentile of the differences that the brightest colour must reach no more than: the factor follows from it."""
SAME = 6.0
"""Mean difference, of 255, of two copies of one original: more than the videos' compression makes."""


@dataclass(frozen=True)
class Panel:
    """A part of the clip's video, in its columns and rows. place: of the run, None for the original."""

    label: str
    place: int | None
    column: int
    row: int


@dataclass(frozen=True)
class Clip:
    """One clip. why: what it is an example of; width, height: of one part, pixels; told: place and numbers of each run."""

    name: str
    why: str
    uri: str
    width: int
    height: int
    columns: int
    rows: int
    panels: list[Panel]
    told: list[tuple[int, str]]


@dataclass
class Clips:
    """What the page shows. factor: by how much all maps are amplified."""

    clips: list[Clip] = field(default_factory=list)
    factor: int = 1
    steps: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Parts:
    """One clip as read: fps, uint8 T H W 3 of the original and, by run, of each further column."""

    original: np.ndarray
    made: dict[int, list[np.ndarray]]
    fps: float


def embed_clips(entries: Sequence[Entry], family: str, metrics: Sequence[Metric], limit: int = CLIP_BYTES) -> Clips:
    """Examples from the previews of each run's best validation, else of its latest. limit: bytes of all videos together."""
    result = Clips()
    if family not in COLUMNS:
        result.notes.append(f"What the previews of task {family} show is not known here.")
        return result
    folders = _folders(entries, result)
    if len(folders) < 2:
        return result
    names = sorted(set.intersection(*({path.name for path in files} for files in folders.values())))
    if not names:
        result.notes.append("The runs show different held-out clips, so none can be put side by side.")
        return result
    chosen = _chosen(entries, names, result.steps, metrics)
    read: dict[str, _Parts] = {}
    for name in chosen:
        found = _read(name, folders, COLUMNS[family], entries, result.notes)
        if found is not None:
            read[name] = found
    result.factor = _factor(list(read.values()))
    left = limit
    for name, parts in read.items():
        clip = _clip(name, chosen[name], parts, entries, result, COLUMNS[family], metrics)
        left -= len(clip.uri) * 3 // 4
        if left < 0:
            result.notes.append(f"{name} is left out, because a page holds at most {size(limit)} of clips.")
            break
        result.clips.append(clip)
    return result


def _folders(entries: Sequence[Entry], result: Clips) -> dict[int, list[Path]]:
    """The preview files of each run that has any."""
    found = {}
    for entry in entries:
        root = entry.run.folder / "previews"
        steps = {int(p.name[5:]): p for p in root.glob("step-*") if p.name[5:].isdigit() and any(p.glob("[!.]*.mp4"))}
        if not steps:
            result.notes.append(f"{entry.letter} {entry.name} has no preview clips.")
            continue
        step = entry.run.best_step if entry.run.best_step in steps else max(steps)
        result.steps[entry.place] = step
        found[entry.place] = sorted(steps[step].glob("[!.]*.mp4"))
    return found


def _numbers(entry: Entry, step: int, file: str, metrics: Sequence[Metric]) -> dict[str, float]:
    """The metrics of the clip in that validation."""
    for validation in entry.run.validations:
        clips = validation.get("clips") if validation["step"] == step else None
        for clip in clips if isinstance(clips, list) else []:
            if isinstance(clip, dict) and f"{file_name(str(clip.get('id')))}.mp4" == file:
                return {m.key: value for m in metrics if (value := number(clip.get(m.key))) is not None}
    return {}


def _chosen(
    entries: Sequence[Entry], names: list[str], steps: dict[int, int], metrics: Sequence[Metric]
) -> dict[str, str]:
    """File names and why: worst and best on average over the runs, that which tells the runs apart most, another bad one."""
    first = metrics[0]
    sign = 1.0 if first.higher else -1.0
    values: dict[str, list[float]] = {}
    for name in names:
        rows = [_numbers(entry, steps[entry.place], name, metrics) for entry in entries if entry.place in steps]
        known = [row[first.key] for row in rows if first.key in row]
        if len(known) == len(rows):
            values[name] = known
    if not values:
        return dict.fromkeys(names[:MOST_CLIPS], "")
    order = sorted(values, key=lambda name: sign * sum(values[name]))
    apart = max(values, key=lambda name: max(values[name]) - min(values[name]))
    why: dict[str, list[str]] = {order[0]: [f"worst {first.label}"]}
    why.setdefault(order[-1], []).append(f"best {first.label}")
    why.setdefault(apart, []).append("runs differ most")
    for name in order[1:]:
        if len(why) < MOST_CLIPS:
            why.setdefault(name, ["among the worst"])
    return {name: ", ".join(told) for name, told in why.items()}


def _read(
    name: str, folders: dict[int, list[Path]], columns: Sequence[str], entries: Sequence[Entry], notes: list[str]
) -> _Parts | None:
    """The clip of all runs; None, with a note, when a file is damaged or the originals are not the same."""
    parts: _Parts | None = None
    for entry in entries:
        path = next((path for path in folders.get(entry.place, []) if path.name == name), None)
        if path is None:
            continue
        try:
            fps = float(probe(path).fps)
            frames = first_frames(path)
        except UserError as fault:
            notes.append(f"A clip of {entry.letter} is left out. {fault}")
            return None
        count = len(columns)
        if _pictures_in(frames, entry) not in (None, count):
            notes.append(f"{path.stem} is left out: the preview of {entry.letter} does not show {', '.join(columns)}.")
            return None
        pieces = [frames[:, :, i * frames.shape[2] // count : (i + 1) * frames.shape[2] // count] for i in range(count)]
        if parts is None:
            parts = _Parts(pieces[0], {}, fps)
        elif parts.original.shape != pieces[0].shape or difference(parts.original, pieces[0]).mean() > SAME:
            notes.append(f"{path.stem} is left out: the runs cut or scaled it in different ways.")
            return None
        parts.made[entry.place] = pieces[1:]
    return parts


def _pictures_in(frames: np.ndarray, entry: Entry) -> int | None:
    """How many pictures of the validation's shape stand side by side; None when the shape is not known. A world's run without a
    codec shows fewer than others."""
    sides = []
    for side in ("height", "width"):
        value = number(entry.run.setting("validation", f"validation_{side}"))
        sides.append(value or number(entry.run.setting("data", side)))
    height, width = sides
    return round(frames.shape[2] / (frames.shape[1] * width / height)) if height and width else None


def _factor(clips: Sequence[_Parts]) -> int:
    gaps = [np.percentile(difference(clip.original, made[0]), FULL) for clip in clips for made in clip.made.values()]
    reach = max(gaps, default=255.0)
    return next((factor for factor in FACTORS if factor * reach <= 255), 1)


def _clip(
    name: str,
    why: str,
    parts: _Parts,
    entries: Sequence[Entry],
    result: Clips,
    columns: Sequence[str],
    metrics: Sequence[Metric],
) -> Clip:
    runs = [entry for entry in entries if entry.place in parts.made]
    panels, rows = [Panel("original", None, 0, 0)], [[shrunk(parts.original)], []]
    blank = np.zeros_like(rows[0][0])
    rows[1].append(blank)
    for place, entry in enumerate(runs, 1):
        made = parts.made[entry.place]
        panels += [Panel(columns[1], entry.place, place, 0), Panel("difference", entry.place, place, 1)]
        rows[0].append(shrunk(made[0]))
        rows[1].append(shrunk(heat(difference(parts.original, made[0]), result.factor)))
    if len(columns) == 4:  # a world: true depth, and what each run estimated
        panels.append(Panel(columns[2], None, 0, 2))
        panels += [Panel(columns[3], entry.place, place, 2) for place, entry in enumerate(runs, 1)]
        rows.append([shrunk(parts.made[runs[0].place][1]), *(shrunk(parts.made[entry.place][2]) for entry in runs)])
    grid = np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
    height, width = blank.shape[1:3]
    told = []
    for entry in runs:
        own = _numbers(entry, result.steps[entry.place], name, metrics)
        texts = [f"{m.label} {own[m.key]:.{m.digits}f}{m.unit}" for m in metrics[:2] if m.key in own]
        told.append((entry.place, " · ".join(texts)))
    title = next(
        (str(c.get("id")) for c in _all_clips(runs) if f"{file_name(str(c.get('id')))}.mp4" == name), Path(name).stem
    )
    return Clip(title, why, video_uri(grid, parts.fps), width, height, len(runs) + 1, len(rows), panels, told)


def _all_clips(entries: Sequence[Entry]) -> list[dict[str, object]]:
    found = (validation.get("clips") for entry in entries for validation in entry.run.validations)
    return [clip for clips in found if isinstance(clips, list) for clip in clips if isinstance(clip, dict)]
