"""What a run folder tells, however the run ended: journal, validation history, config, previews.

A line that a kill cut, a file that is missing or damaged never stops the report. Each such fault becomes a note for
the reader, and only what is there is shown.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tinyworld.core.errors import MissingFileError
from tinyworld.core.goodput import Goodput, measure
from tinyworld.core.journal_lines import JOURNAL, Record, number, read_lines

HISTORY, CONFIG = "validation_history.json", "config.yaml"


@dataclass
class Life:
    """One process of the run: its start event, its stop event (None: running or killed), the supervisor's restart event
    after it, its last sign of life."""

    start: Record
    stop: Record | None = None
    restart: Record | None = None
    last_time: float = 0.0
    last_step: int = 0

    @property
    def seconds(self) -> float:
        began = number(self.start.get("time"))
        return max(self.last_time - began, 0.0) if began is not None else 0.0


@dataclass
class Run:
    """Everything that the page shows. Steps and validations are in order, each step once: the last line wins."""

    folder: Path
    lives: list[Life] = field(default_factory=list)
    steps: list[Record] = field(default_factory=list)
    validations: list[Record] = field(default_factory=list)
    best_step: int | None = None
    best_metric: str = "psnr"
    checkpoints: list[Record] = field(default_factory=list)
    preflight: list[Record] = field(default_factory=list)
    """Each loss term's shares of the first gradient."""
    skips: list[Record] = field(default_factory=list)
    rewinds: list[Record] = field(default_factory=list)
    changes: list[Record] = field(default_factory=list)
    """Settings that a resume changed."""
    quarantined: dict[str, str] = field(default_factory=dict)
    goodput: Goodput | None = None
    config_text: str | None = None
    config: Record = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> Record | None:
        """The validation of the best model, or the latest one when none is marked."""
        marked = [entry for entry in self.validations if entry["step"] == self.best_step]
        return marked[-1] if marked else self.latest

    @property
    def latest(self) -> Record | None:
        return self.validations[-1] if self.validations else None

    @property
    def last_step(self) -> int:
        return max([life.last_step for life in self.lives[-1:]] + [record["step"] for record in self.steps[-1:]] + [0])

    def setting(self, section: str, key: str) -> Any:
        """A value of config.yaml, or None when the file does not have it."""
        values = self.config.get(section)
        return values.get(key) if isinstance(values, dict) else None


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises MissingFileError when the folder is not there or holds nothing of a run."""
    _check_is_run(folder)
    run = Run(folder)
    _read_journal(run)
    _read_validations(run)
    config = folder / CONFIG
    try:
        run.config_text = config.read_text(encoding="utf-8", errors="replace")
        loaded = yaml.safe_load(run.config_text)
        run.config = loaded if isinstance(loaded, dict) else {}
    except OSError:
        run.notes.append(f"{CONFIG} is missing, so the settings of the run are not known.")
    except yaml.YAMLError:
        run.notes.append(f"{CONFIG} is damaged; its text is shown as it is.")
    return run


def _check_is_run(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingFileError(f"No run folder at {folder}. Give the folder of a run, such as output/<run>.")
    marks = [JOURNAL, HISTORY, CONFIG, "checkpoint-*", "final_model.safetensors"]
    if any(True for mark in marks for _ in folder.glob(mark)):
        return
    below = sorted({path.parent for mark in (JOURNAL, CONFIG) for path in folder.glob(f"*/{mark}")})
    newest = sorted(below, key=lambda path: path.stat().st_mtime, reverse=True)[:3]
    hint = f" Runs in it, newest first: {', '.join(str(path) for path in newest)}." if newest else ""
    raise MissingFileError(f"{folder} is not a run folder: it has no {JOURNAL} and no {CONFIG}.{hint}")


def _read_journal(run: Run) -> None:
    try:
        records, damaged = read_lines(run.folder / JOURNAL)
    except OSError:
        run.notes.append(f"There is no {JOURNAL}: curves, events and the outcome are not known.")
        return
    if damaged:
        are = "is" if damaged == 1 else "are"
        run.notes.append(
            f"{damaged} of {len(records) + damaged} lines of {JOURNAL} could not be read and {are} left out. A process that is "
            "killed while it writes leaves such a line."
        )
    for record in records:
        _take(run, record)
    run.goodput = measure(records) if run.lives else None
    if not run.lives:
        run.notes.append(f"{JOURNAL} has no start event, so the device and the model size are not known.")


def _take(run: Run, record: Record) -> None:
    """Sort one event in. Training that goes back to an earlier step undoes the steps and validations after it."""
    event, step = record["event"], record["step"]
    if event == "start":
        run.lives.append(Life(record))
    if run.lives and event != "restart":
        life = run.lives[-1]
        life.last_time = max(life.last_time, number(record.get("time")) or 0.0)
        life.last_step = step
    if event == "step":
        if run.steps and step <= run.steps[-1]["step"]:
            run.steps = [earlier for earlier in run.steps if earlier["step"] < step]
            run.validations = [earlier for earlier in run.validations if earlier["step"] < step]
        run.steps.append(record)
    elif event == "validation":
        run.validations = [earlier for earlier in run.validations if earlier["step"] < step] + [record]
    elif event == "checkpoint":
        run.checkpoints = [earlier for earlier in run.checkpoints if earlier["step"] != step] + [record]
    elif event == "preflight":
        terms = record.get("terms")
        run.preflight = [term for term in terms if isinstance(term, dict)] if isinstance(terms, list) else []
    elif event == "skip":
        run.skips.append(record)
    elif event == "rewind":
        run.rewinds.append(record)
    elif event == "changed":
        run.changes.append(record)
    elif event == "quarantine":
        run.quarantined[str(record.get("path"))] = str(record.get("reason"))
    elif event == "stop" and run.lives:
        run.lives[-1].stop = record
    elif event == "restart" and run.lives and run.lives[-1].restart is None:
        run.lives[-1].restart = record


def _read_validations(run: Run) -> None:
    """Journal entries and the history hold the same means; the history has the clips, and outlives a lost journal."""
    for entry in run.validations:
        metrics = entry.get("metrics")
        entry.update(metrics if isinstance(metrics, dict) else {})
        if entry.get("best") is True:
            run.best_step = entry["step"]
    history = _json(run, run.folder / HISTORY, list)
    if history:
        entries = [entry for entry in history if isinstance(entry, dict) and number(entry.get("step")) is not None]
        by_step = {int(entry["step"]): entry | {"step": int(entry["step"])} for entry in entries}
        run.validations = [by_step[step] for step in sorted(by_step)] or run.validations
    info = _json(run, run.folder / "best_model" / "model_info.json", dict)
    if info:
        run.best_metric = str(info.get("metric_for_best_model") or run.best_metric)
        step = number(info.get("step"))
        run.best_step = int(step) if step is not None else run.best_step


def _json(run: Run, path: Path, kind: type) -> Any:
    """The content of a JSON file, or None when it is absent; a damaged one is noted."""
    try:
        value = json.loads(path.read_bytes())
    except OSError:
        return None
    except ValueError:
        value = None
    if not isinstance(value, kind):
        run.notes.append(f"{path.relative_to(run.folder)} is damaged and left out.")
        return None
    return value
