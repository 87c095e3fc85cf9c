"""The model card (README.md) of an exported model, written from its run: settings, data, held-out numbers with baselines, the
loss curve, where it comes from, how to load it, and what it cannot do. Nothing is said that the run does not show.

Paths of the machine that trained it are reduced to their last part.
"""

import time
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from tinyworld.config.keys import Key, keys
from tinyworld.config.schema import FAMILIES as TASKS
from tinyworld.config.schema import is_hub_id
from tinyworld.core.journal_lines import Record, number
from tinyworld.core.version import __version__
from tinyworld.interop.card_usage import fantasy_usage, taehv_usage
from tinyworld.interop.families import FAMILIES, OWN
from tinyworld.interop.source import TAEHV, Exported, at_step, start_of, teacher_of
from tinyworld.report.metrics import Metric, metrics_of
from tinyworld.report.read import Run
from tinyworld.report.words import ABSENT, duration, fixed, last_number, outcome, whole

CURVE_POINTS = 6
DENOISING = "diffusion"
SIGNED = "*Written by tinyworld"
"""How the last line of every card begins."""
FORMS = {
    "raw": "raw, as the VAE makes them",
    "scaled": "scaled, as the diffusion model sees them",
    "normalised": "normalised, as the diffusion model sees them",
}


def write_card(source: Exported, name: str) -> str:
    """The whole README.md. name: "org/name" of the repository, or what stands for it."""
    title = _title(source, name)
    data = ModelCardData(
        library_name="tinyworld",
        tags=_tags(source),
        license=source.about.get("license"),
        model_name=title,
        eval_results=_results(source),
    )
    usage = taehv_usage if source.architecture == TAEHV else fantasy_usage
    parts = [
        f"# {title}",
        _what(source),
        *_quality(source),
        *_training(source),
        *_origin(source),
        "## How to load it",
        usage(source, name),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(source)),
        f"{SIGNED} {__version__} from the {'run' if source.run else 'weight file'}.*",
    ]
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")
    return str(card)


def _title(source: Exported, name: str) -> str:
    """The repository's name, else the run's: a folder on a disk may have any."""
    if "/" in name or source.run is None:
        return name.rpartition("/")[2]
    return source.run.folder.resolve().name


def _tags(source: Exported) -> list[str]:
    if source.architecture == TAEHV:
        variant = source.about.get("variant") if source.about.get("latents") != OWN else None
        return ["tinyworld", "taehv", "video-autoencoder", *([variant] if variant else [])]
    return ["tinyworld", "fantasyworld", "world-model", "depth-estimation"]


def _what(source: Exported) -> str:
    if source.architecture != TAEHV:
        tensors, info = source.branch()
        size = f"of {sum(tensor.numel() for tensor in tensors.values()):,} parameters"
        text = (
            f"A geometry branch (FantasyWorld, {info.stage}) {size}. Beside a frozen Wan video transformer, whose weights are "
            "not in here, it estimates depth, points and cameras of videos"
        )
        return f"{text}, and steers what is generated along given cameras." if info.stage == "stage2" else f"{text}."
    spec, tensors = source.taehv()
    variant, latents, label = source.about.get("variant"), source.about.get("latents"), source.label()
    size = f"of {sum(tensor.numel() for tensor in tensors.values()):,} parameters"
    text = (
        f"A tiny causal video autoencoder (TAEHV) {size}{f': {label}' if label else ''}. A latent has "
        f"{spec.latent_channels} channels and stands for {spec.t_down} frames of {spec.spatial_compression} × "
        f"{spec.spatial_compression} pixels."
    )
    if latents == OWN:
        return (
            f"{text} Its latents are its own: it learned without a reference VAE, and no diffusion model speaks them."
        )
    if latents and variant:
        return f"{text} It takes the latents of {FAMILIES[variant].models} ({FORMS[latents]})."
    if latents and source.about.get("teacher"):
        return f"{text} It takes the latents of the reference VAE {source.about['teacher']} ({FORMS[latents]})."
    return text


def _quality(source: Exported) -> Iterator[str]:
    run, entry = source.run, _validation(source)
    yield "## Held-out quality"
    if run is None or entry is None:
        yield "Not measured: these weights come without the run that made them, or were never validated."
        return
    clips = entry.get("clips")
    many = (
        f"{len(clips)} held-out clip{'' if len(clips) == 1 else 's'}" if isinstance(clips, list) else "held-out clips"
    )
    exact = entry["step"] == source.about.get("step")
    at = f"At step {entry['step']}" + (
        "" if exact else f" (the weights are of step {source.about.get('step', ABSENT)})"
    )
    yield f"{at}, on {many}{_measured_size(run)}:"
    rows = ["| metric | value | baseline | |", "|---|---|---|---|"]
    for metric, value, baseline in _numbers(run, entry):
        beside = f"{baseline:.{metric.digits}f}{metric.unit} ({metric.baseline})" if baseline is not None else ABSENT
        rows.append(f"| {metric.label} | {value:.{metric.digits}f}{metric.unit} | {beside} | {metric.caption} |")
    yield "\n".join(rows)
    yield (
        "The best step was chosen on these same clips, so they flatter it a little. A baseline is what doing nothing clever "
        "reaches on them."
    )


def _numbers(run: Run, entry: Record) -> Iterator[tuple[Metric, float, float | None]]:
    """Metrics that were measured, with their baselines where there is one; not what is the frozen transformer's alone."""
    beside, monitored = entry.get("baseline"), f"loss/{DENOISING}" in start_of(run)
    for metric in metrics_of(run):
        value = number(entry.get(metric.key))
        if value is not None and not (monitored and metric.key == DENOISING):
            yield (
                metric,
                value,
                number(beside.get(metric.key)) if isinstance(beside, dict) and metric.baseline else None,
            )


def _validation(source: Exported) -> Record | None:
    """Of these weights, else of the best model of their run."""
    if source.run is None:
        return None
    return at_step(source.run, source.about.get("step")) or source.run.best


def _measured_size(run: Run) -> str:
    height, width = (run.setting("validation", f"validation_{side}") for side in ("height", "width"))
    return f" of {height} × {width} pixels" if height and width else ""


def _training(source: Exported) -> Iterator[str]:
    run = source.run
    yield "## Training"
    if run is None:
        yield "Not known: these weights come without the run that made them."
        return
    start = start_of(run)
    frames = run.setting("data", "n_frames") or run.setting("data", "num_frames")
    seconds = sum(life.seconds for life in run.lives)
    rows = {
        "recipe": run.config.get("name"),
        "steps": f"{whole(run.last_step)}, the weights are of step {whole(source.about.get('step'))}",
        "clips": f"{whole(start.get('clips', start.get('samples')))} for training, {whole(start.get('held_out'))} held out",
        "samples seen": whole(last_number(run.steps, "samples_seen")),
        "clip": f"{frames} frames of {run.setting('data', 'height')} × {run.setting('data', 'width')} pixels",
        "learning rate": f"{run.setting('optimizer', 'learning_rate')}, {run.setting('optimizer', 'lr_scheduler')}",
        "precision": "fp32" if start.get("dtype") == "no" else start.get("dtype"),
        "device": f"{start.get('world_size', 1)} × {start.get('device', ABSENT)}",
        "time": duration(seconds),
        "seed": run.setting("run", "seed"),
        "end": outcome(run, time.time())[1],
    }
    yield "\n".join(
        ["| | |", "|---|---|", *[f"| {key} | {value} |" for key, value in rows.items() if value is not None]]
    )
    yield from _curve(run)
    settings = yaml.safe_dump(_bare(run.config, run.config.get("task")), sort_keys=False, allow_unicode=True).strip()
    yield f"<details><summary>All settings</summary>\n\n```yaml\n{settings}\n```\n\n</details>"


def _curve(run: Run) -> Iterator[str]:
    """The loss at some steps, evenly spaced."""
    points = [(step["step"], value) for step in run.steps if (value := _loss(step)) is not None]
    if len(points) < 2:
        return
    last = len(points) - 1
    chosen = sorted({round(last * index / (CURVE_POINTS - 1)) for index in range(CURVE_POINTS)})
    steps = " | ".join(whole(points[index][0]) for index in chosen)
    losses = " | ".join(f"{points[index][1]:.4g}" for index in chosen)
    rule = "---|" * (len(chosen) + 1)
    yield f"Training loss (sum of the weighted terms, noisy):\n\n| step | {steps} |\n|{rule}\n| loss | {losses} |"


def _loss(record: Record) -> float | None:
    losses = record.get("losses")
    return number(losses.get("total")) if isinstance(losses, dict) else None


def _origin(source: Exported) -> Iterator[str]:
    run = source.run
    yield "## Where it comes from"
    if run is None:
        yield "Not known."
        return
    lines = []
    if source.architecture == TAEHV:
        parent, teacher = run.setting("model", "pretrained_model_path"), run.setting("teacher", "ref_vae_path")
        lines.append(f"Started from {f'the weights {_last(parent, 2)}' if parent else 'random weights'}.")
        taught = run.setting("teacher", "use_ref_vae")
        named = f"Reference VAE: {teacher_of(run) or ABSENT}, {_named(teacher)}."
        lines.append(named if taught else "No reference VAE taught it.")
        data = run.setting("data", "data_root")
    else:
        info = source.branch()[1]
        parent, base = start_of(run).get("parent"), run.setting("model", "backbone_path")
        lines.append(f"Started from {f'the branch {_last(parent, 2)}' if parent else 'random weights'}.")
        fates: dict[str, int] = {}
        for row in start_of(run).get("lineage", []):
            fates[row["fate"]] = fates.get(row["fate"], 0) + row["parameters"]
        if fates:
            lines.append(f"Parameters: {', '.join(f'{count:,} {fate}' for fate, count in fates.items())}.")
        lines.append(f"Video transformer: {_last(base)}, SHA-256 over its weights {info.base_digest}.")
        lines.append(f"Codec: {_last(run.setting('model', 'codec_path'))}.")
        data = run.setting("data", "dataset_base_path")
    lines.append(f"Data: {_last(data)}; the clips are not part of this repository.")
    yield "\n".join(f"- {line}" for line in lines)


def _limits(source: Exported) -> Iterator[str]:
    run, entry = source.run, _validation(source)
    if run is not None and entry is not None:
        for metric, value, baseline in _numbers(run, entry):
            if baseline is not None and (value <= baseline if metric.higher else value >= baseline):
                yield (
                    f"**{metric.label} is no better than its baseline**: {fixed(value, metric.digits)} against "
                    f"{fixed(baseline, metric.digits)} ({metric.baseline})."
                )
    if source.about.get("latents") == OWN:
        yield "No diffusion model speaks its latents: it decodes what it encoded itself, nothing else."
    if run is not None:
        frames = run.setting("data", "n_frames") or run.setting("data", "num_frames")
        size = f"{run.setting('data', 'height')} × {run.setting('data', 'width')}"
        yield f"Trained on clips of {frames} frames and {size} pixels; other lengths and sizes run, and are not measured here."
    if source.about.get("latents") in FORMS:
        yield "It is much smaller than the VAE whose latents it takes, and blurrier; by how much is not measured here."
    if run is not None and run.setting("seraena", "use_seraena"):
        yield "It was trained with a discriminator: part of the fine texture that it shows is invented."
    if source.architecture != TAEHV:
        yield "It reads the features of the one video transformer that it was trained with; with another it means nothing."
    yield "It has seen the training data named above and nothing else; what that data lacks, it does badly."
    if source.about.get("license") is None:
        yield "No licence is stated. Ask before you use it, and see to those of the data and of what it started and learned from."


def _results(source: Exported) -> list[EvalResult] | None:
    run, entry = source.run, _validation(source)
    if run is None or entry is None:
        return None
    results = [
        EvalResult(
            task_type="video-reconstruction" if source.architecture == TAEHV else "depth-estimation",
            dataset_type="held-out",
            dataset_name=f"held-out clips of the run {run.folder.resolve().name}",
            metric_type=metric.key,
            metric_name=metric.label,
            metric_value=round(value, 6),
        )
        for metric, value, _ in _numbers(run, entry)
    ]
    return results or None


def _last(path: Any, parts: int = 1) -> str:
    """The last parts of a path."""
    return "/".join(PurePath(path).parts[-parts:]) if path else "not recorded"


def _named(path: Any) -> str:
    """Of what may come from the hub: its name there, else the last part of its path."""
    return str(path) if path and is_hub_id(str(path)) else _last(path)


def _bare(settings: Record, task: Any) -> Record:
    """Settings without the folders of the machine that had them: of keys that the recipe does not know, no folder either."""
    known = {key.dotted: key for key in keys(TASKS[task])} if task in TASKS else {}

    def value_of(dotted: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: value_of(f"{dotted}.{key}" if dotted else str(key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [value_of(dotted, item) for item in value]
        key = known.get(dotted)
        if not isinstance(value, str) or not value or (key is not None and not _holds_path(key)):
            return value
        return _named(value) if key is not None and key.extra.get("hub") else _last(value)

    bare: Record = value_of("", settings)
    return bare


def _holds_path(key: Key) -> bool:
    marked = key.extra.keys() & {"path", "made"}
    return bool(marked) or any(word in key.metavar for word in ("DIR", "FILE", "PATH"))
