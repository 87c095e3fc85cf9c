"""report.html: one page that opens without a network, on a desk or a phone, and can be mailed as one file."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tinyworld.core.files import write_atomic
from tinyworld.core.goodput import PARTS
from tinyworld.core.journal_lines import Record, number
from tinyworld.core.version import __version__
from tinyworld.report import words
from tinyworld.report.document import embedded_json, template
from tinyworld.report.figures import machine_charts, quality_charts, training_charts
from tinyworld.report.held_out import held_out_scenes
from tinyworld.report.metrics import COLUMNS, TRAINING_MEAN, Metric, family, metrics_of
from tinyworld.report.model_label import label_of_run
from tinyworld.report.previews import EMBEDDED_BYTES, embed_previews
from tinyworld.report.read import Run, read_run

if TYPE_CHECKING:
    from tinyworld.report.shown import ShownScene

MOST_CLIPS, MOST_ROWS, MOST_METRICS = 40, 100, 6
"""Rows of the clip table and of each list of events; the page says how many more there are."""


@dataclass(frozen=True)
class Part:
    """A part of the wall time: seconds, and percent of the whole."""

    name: str
    meaning: str
    seconds: float
    percent: float


@dataclass(frozen=True)
class Tile:
    """A headline number and what it is to be compared with."""

    label: str
    value: str
    unit: str = ""
    beside: str = ""
    main: bool = False


def build_report(
    run_folder: str | Path, output: str | Path | None = None, embedded_bytes: int = EMBEDDED_BYTES
) -> Path:
    """Write the page of a run and return its path: `output`, else `report.html` in the run's folder. A finished, running, killed
    or damaged run will do.

    embedded_bytes: limit on the video files in the page. Raises MissingFileError when the folder holds no run.
    """
    folder = Path(run_folder).expanduser()
    run = read_run(folder)
    now = time.time()
    groups, preview_notes = embed_previews(run, embedded_bytes)
    scenes, scene_notes = held_out_scenes(folder)
    sections = {"quality": quality_charts(run), "training": training_charts(run), "machine": machine_charts(run)}
    page = template("page.html.j2").render(
        run=run,
        name=folder.resolve().name,
        outcome=words.outcome(run, now),
        facts=_facts(run),
        tiles=_tiles(run),
        headline=_headline(run),
        groups=groups,
        preview_columns=COLUMNS.get(family(run), ()),
        told=metrics_of(run)[:2],
        preview_notes=preview_notes + scene_notes,
        viewer=_viewer(scenes),
        sections=sections,
        clips=_clips(run),
        figures=embedded_json([chart.figure for charts in sections.values() for chart in charts]),
        plotly=Markup(get_plotlyjs()) if scenes or any(sections.values()) else None,
        lives=[words.life(life) for life in run.lives],
        preflight=_preflight(run),
        parts=_parts(run),
        restarts=[words.restart(record) for record in reversed(run.goodput.restarts)] if run.goodput else [],
        skips=[words.skip(record) for record in run.skips],
        checkpoints=[(entry, (folder / str(entry.get("path"))).is_dir()) for entry in reversed(run.checkpoints)],
        most_rows=MOST_ROWS,
        version=__version__,
        now=now,
    )
    path = Path(output).expanduser() if output else folder / "report.html"
    write_atomic(path, page)
    return path


def _viewer(scenes: list["ShownScene"]) -> Markup | None:
    """What the viewer's script reads, or None without a scene; only scenes need torch."""
    if not scenes:
        return None
    from tinyworld.report.scene_page import viewer_data

    return viewer_data(scenes)


def _facts(run: Run) -> list[tuple[str, str]]:
    """The header's line: what was trained, on what."""
    start = run.lives[-1].start if run.lives else {}
    world, dtype = number(start.get("world_size")), start.get("dtype")
    clips = start.get("clips", start.get("samples"))
    rows = [
        ("Recipe", start.get("recipe") or run.config.get("name")),
        ("Model", label_of_run(run)),
        ("Size", run.setting("model", "size")),
        ("Mode", start.get("mode")),
        ("Stage", start.get("stage")),
        ("Parent", start.get("parent")),
        ("Reference VAE", start.get("teacher")),
        ("Latents", start.get("latents")),
        ("Parameters", words.whole(start["parameters"]) if number(start.get("parameters")) else None),
        ("Device", start.get("device")),
        ("Processes", words.whole(world) if world and world > 1 else None),
        ("Precision", {"no": "fp32"}.get(str(dtype), dtype) if dtype else None),
        ("Training clips", words.whole(clips) if number(clips) is not None else None),
        ("Held-out clips", words.whole(start["held_out"]) if number(start.get("held_out")) is not None else None),
        ("tinyworld", start.get("version")),
    ]
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


def _headline(run: Run) -> str:
    """Which validation the headline numbers are from."""
    best, latest = run.best, run.latest
    if best is None or latest is None:
        due = number(run.setting("validation", "validation_steps"))
        first = f" The first is due at step {words.whole(due)}." if due and due > run.last_step else ""
        return f"No validation is recorded yet, so there is no measured quality.{first}"
    if best["step"] == latest["step"]:
        return f"From the validation at step {words.whole(best['step'])}, the best and the latest so far."
    name = {"flicker": "flicker"}.get(run.best_metric, run.best_metric.upper())
    value = words.fixed(latest.get(run.best_metric), 2 if run.best_metric == "psnr" else 4)
    return (
        f"From the best validation by {name}, at step {words.whole(best['step'])}. "
        f"The latest, at step {words.whole(latest['step'])}, has {value}."
    )


def _tiles(run: Run) -> list[Tile]:
    best = run.best
    tiles = []
    if best is not None:
        recorded = best.get("baseline")
        base = recorded if isinstance(recorded, dict) else {}
        tiles += [_beside(metric, best, base) for metric in _headlined(run)]
        tiles += _further(best) if family(run) == "taehv" else []
    if not run.lives and not run.steps:
        return tiles
    planned, seen = run.setting("training", "max_train_steps"), words.last_number(run.steps, "samples_seen")
    of = f"of {words.whole(planned)}" if number(planned) else ""
    tiles.append(Tile("Steps", words.whole(run.last_step), of, f"{words.whole(seen)} clips seen" if seen else ""))
    pace = words.median(run.steps, "seconds_per_step")
    spent = sum(life.seconds for life in run.lives)
    tiles.append(Tile("Time", words.duration(spent), "", f"{words.fixed(pace, 2)} s a step" if pace else ""))
    return tiles


def _headlined(run: Run) -> list[Metric]:
    """The metrics of the large tiles: PSNR and SSIM, or depth and cameras, or all that a video_base run has."""
    chosen = {"taehv": ("psnr", "ssim"), "video_base": ("diffusion",)}.get(family(run), ("abs_rel", "delta1", "auc30"))
    return [metric for metric in metrics_of(run) if metric.key in chosen]


def _beside(metric: Metric, best: Record, base: Record) -> Tile:
    """A metric of the best model beside its baselines."""
    value = number(best.get(metric.key))
    told = []
    for key, name in ((metric.key, metric.baseline), TRAINING_MEAN.get(metric.key, ("", ""))):
        flat = number(base.get(key))
        if flat is not None:
            gain = f" ({value - flat:+.{metric.digits}f})" if value is not None else ""
            told.append(f"{name} {words.fixed(flat, metric.digits)}{gain}")
    beside = "; ".join(told) or "no baseline recorded"
    return Tile(metric.label, words.fixed(value, metric.digits), metric.unit.strip(), beside, main=True)


def _further(best: Record) -> list[Tile]:
    """An autoencoder's other numbers."""
    flicker = Tile("Flicker", words.fixed(best.get("flicker"), 4), "", "0 is best")
    lpips, sharp = number(best.get("lpips")), number(best.get("sharpness"))
    if lpips is not None or sharp is None:
        return [flicker, Tile("LPIPS", words.fixed(lpips, 3), "", "not measured" if lpips is None else "0 is equal")]
    return [flicker, Tile("Sharpness", words.fixed(sharp, 3), "", "1 is as sharp as the original")]


def _parts(run: Run) -> list[Part]:
    """Where the wall time went, without what took none; empty when no time has passed."""
    if run.goodput is None or not run.goodput.wall:
        return []
    spent = run.goodput
    return [
        Part(name, meaning, spent.seconds[name], 100 * spent.share(name))
        for name, meaning in PARTS.items()
        if spent.seconds[name] > 0
    ]


def _preflight(run: Run) -> dict[str, Any]:
    """The table of each loss term's share of the first gradient in each part of the model."""
    rows = [(str(row.get("term")), row.get("value"), _shares(row)) for row in run.preflight]
    return {"parts": list(dict.fromkeys(part for _, _, shares in rows for part in shares)), "rows": rows}


def _shares(row: Record) -> dict[str, float]:
    shares = row.get("shares")
    known = shares.items() if isinstance(shares, dict) else ()
    return {str(part): share for part, value in known if (share := number(value)) is not None}


def _clips(run: Run) -> dict[str, Any]:
    """The latest validation's clips, the worst by the family's first metric first; of a long list both ends, `gap` rows before
    what is left out."""
    entry = run.latest or {}
    listed = entry.get("clips")
    rows: list[Record] = [clip for clip in listed if isinstance(clip, dict)] if isinstance(listed, list) else []
    metrics = [metric for metric in metrics_of(run) if any(number(row.get(metric.key)) is not None for row in rows)]
    if metrics:
        first, sign = metrics[0].key, 1.0 if metrics[0].higher else -1.0
        values = {id(row): number(row.get(first)) for row in rows}
        rows.sort(key=lambda row: (values[id(row)] is not None, sign * (values[id(row)] or 0.0)))
    left_out = max(len(rows) - MOST_CLIPS, 0)
    half = MOST_CLIPS // 2
    shown = rows[:half] + rows[-half:] if left_out else rows
    return {
        "rows": shown,
        "left_out": left_out,
        "gap": half if left_out else 0,
        "step": entry.get("step"),
        "metrics": metrics[:MOST_METRICS],
    }
