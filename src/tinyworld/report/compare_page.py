"""report-compare.html: several runs on one page, in one file that opens without a network."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tinyworld.core.files import write_atomic
from tinyworld.core.goodput import PARTS
from tinyworld.core.journal_lines import number
from tinyworld.core.version import __version__
from tinyworld.report import words
from tinyworld.report.compare_clips import CLIP_BYTES, embed_clips
from tinyworld.report.compare_clouds import shared_scenes
from tinyworld.report.compare_curves import (
    axes,
    machine_charts,
    monitor_charts,
    quality_charts,
    term_charts,
    training_charts,
)
from tinyworld.report.compare_events import events, timeline
from tinyworld.report.compare_pace import pace, peak_memory
from tinyworld.report.compare_quality import FEWEST, measured_apart
from tinyworld.report.compare_settings import differences
from tinyworld.report.compare_shares import loss_shares
from tinyworld.report.compare_table import better_at
from tinyworld.report.compared import PAGE, Entry, common_parent, family_of, read_together
from tinyworld.report.document import embedded_json, template
from tinyworld.report.metrics import AUTOENCODER, WORLD, Metric

FEW_SETTINGS = 14
"""Rows of settings that stand open."""
WEIGHT = "@@weight@@"
"""Stands in the page for its own size until that is known."""


@dataclass(frozen=True)
class Card:
    """The head of one run: how it ended, and label and value of its main numbers."""

    entry: Entry
    outcome: tuple[str, str]
    rows: list[tuple[str, str]]


def build_comparison(
    run_folders: Sequence[str | Path], output: str | Path | None = None, clip_bytes: int = CLIP_BYTES
) -> Path:
    """Write one page about two runs or more and return its path: `output`, else PAGE in the folder that they share.

    Finished, running, killed and damaged runs will do; each fault becomes a note. clip_bytes: limit on the videos in the page.
    Raises MissingFileError when a folder holds no run; ConfigError for runs of different tasks, one given twice, or too many.
    """
    entries = read_together(run_folders)
    kind = family_of(entries)
    metrics = [metric for metric in (AUTOENCODER if kind == "taehv" else WORLD) if _measured(entries, metric)]
    page = template("compare.html.j2").render(**_content(entries, kind, metrics, clip_bytes))
    path = Path(output).expanduser() if output else common_parent([entry.run.folder for entry in entries]) / PAGE
    weight = words.size(len(page.encode()))
    write_atomic(path, page.replace(WEIGHT, weight))
    return path


def _measured(entries: Sequence[Entry], metric: Metric) -> bool:
    return any(number(found.get(metric.key)) is not None for entry in entries for found in entry.run.validations)


def _content(entries: Sequence[Entry], kind: str, metrics: Sequence[Metric], clip_bytes: int) -> dict[str, Any]:
    now = time.time()
    changed = differences(entries)
    sections = {
        "quality": quality_charts(entries, metrics),
        "training": training_charts(entries, changed),
        "terms": term_charts(entries),
        "monitors": monitor_charts(entries),
        "machine": machine_charts(entries),
    }
    clips = embed_clips(entries, kind, metrics or AUTOENCODER[:1], clip_bytes)
    scenes, scene_notes = shared_scenes(entries)
    shown = [{"letter": entry.letter, "name": entry.name, "place": entry.place} for entry in entries]
    drawn = {"runs": shown, "axes": axes(entries), "charts": [one for part in sections.values() for one in part]}
    return {
        "entries": entries,
        "together": common_parent([entry.run.folder for entry in entries]),
        "cards": [_card(entry, metrics, now) for entry in entries],
        "notes": [f"{entry.letter} {entry.name}: {note}" for entry in entries for note in entry.run.notes],
        "changed": changed,
        "few_settings": FEW_SETTINGS,
        "rows": better_at(entries, metrics),
        "apart": measured_apart([entry for entry in entries if entry.run.validations]),
        "fewest": FEWEST,
        "clips": clips,
        "scenes": embedded_json(scenes) if scenes else None,
        "scene_names": [scene["name"] for scene in scenes],
        "panes": max((len(scene["panes"]) for scene in scenes), default=0),
        "scene_notes": scene_notes,
        "sections": sections,
        "shares": loss_shares(entries),
        "goodput": _goodput(entries),
        "timeline": timeline(entries),
        "events": [(entry, *events(entry)) for entry in entries],
        "data": embedded_json([drawn]),
        "plotly": Markup(get_plotlyjs()) if scenes or drawn["charts"] else None,
        "weight": WEIGHT,
        "version": __version__,
        "now": now,
    }


def _card(entry: Entry, metrics: Sequence[Metric], now: float) -> Card:
    run, rows = entry.run, []
    for metric in metrics[:2]:
        value = number(run.best.get(metric.key)) if run.best else None
        if value is not None:
            rows.append((metric.label, f"{value:.{metric.digits}f}{metric.unit}"))
    if run.best:
        rows.append(("Best model", f"step {run.best['step']:,}"))
    planned = number(run.setting("training", "max_train_steps"))
    rows.append(("Steps", f"{run.last_step:,}" + (f" of {planned:,.0f}" if planned else "")))
    speed, memory = pace(run), peak_memory(run)
    if run.goodput and run.goodput.wall:
        rows.append(("Time", words.duration(run.goodput.wall)))
        rows.append(("Goodput", f"{100 * run.goodput.goodput:.0f} %"))
    if speed:
        rows.append(("Throughput", f"{speed.median:.3g} clips/s"))
    if memory:
        rows.append(("Memory", f"{memory:.3g} GiB"))
    return Card(entry, words.outcome(run, now), rows)


def _goodput(entries: Sequence[Entry]) -> list[tuple[Entry, list[tuple[str, str, float, float]]]]:
    """For each run with a time: part, what it is, seconds, percent."""
    found = []
    for entry in entries:
        spent = entry.run.goodput
        if spent is not None and spent.wall:
            parts = [(p, meaning, spent.seconds[p], 100 * spent.share(p)) for p, meaning in PARTS.items()]
            found.append((entry, [part for part in parts if part[2] > 0]))
    return found
