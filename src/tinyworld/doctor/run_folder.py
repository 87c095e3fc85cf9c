"""What a run folder gives away: how the run ended, its log, skipped steps, validations and damaged checkpoints."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyworld.core.errors import MissingFileError
from tinyworld.core.files import verify_folder
from tinyworld.core.goodput import measure
from tinyworld.core.journal_lines import JOURNAL, Record, read_lines
from tinyworld.doctor.causes import Cause, Facts
from tinyworld.doctor.diagnose import CAUSES, Finding, diagnose

LOG_BEGINS = " run folder: "
"""In the first line that each process of a run writes into training.log."""
MOST_BYTES = 64 * 2**20
"""What is read of a log: its end, where the fault is."""
PATIENCE = 3
"""Validations without a better value that are worth a word."""

NO_IMPROVEMENT = Cause(
    slug="no-improvement",
    title="Validation stopped improving",
    patterns=(),
    why="{count} validations in a row gave nothing better than the one at step {best}.",
    prevented="The best model is kept in best_model/, whatever came after it; early_stopping_patience ends such a run.",
    now="Use best_model/. To go on: --learning_rate at a third or --lr_scheduler cosine, more clips, or "
    "--early_stopping_patience 0 with --resume_from_checkpoint latest.",
)
BELOW_BASELINE = Cause(
    slug="below-baseline",
    title="The pictures are worse than one mean colour per clip",
    patterns=(),
    why="{psnr} dB against {baseline} dB for the clip's mean colour: the output is black, collapsed, or of other "
    "frames.",
    prevented="The baseline stands beside every PSNR, so that a collapse is seen at the first validation.",
    now="Look at previews/. Then --learning_rate at a tenth, --reconstruction_loss_weight 10, and check that the "
    "weights fit the variant.",
)
NO_LAST_WORD = Cause(
    slug="no-last-word",
    title="The run is still going on, or it was killed without a chance to say so",
    patterns=(),
    why="The journal's last process wrote no reason for its end. A SIGKILL, a lack of memory or a power cut leaves "
    "it so.",
    prevented="Complete checkpoints survive every kill, and a resume gives the run that was never stopped.",
    now="If no process works on it any more: the same command with --run_name {run} --resume_from_checkpoint "
    "latest. The system's log (dmesg) names processes that were killed for memory.",
)


@dataclass
class Journal:
    """What the last process of a run wrote, and the validations that its weights went through."""

    begun: bool = False
    step: int = 0
    stop: dict[str, Any] | None = None
    skips: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)

    def take(self, record: dict[str, Any]) -> None:
        event, self.step = record["event"], record["step"]
        if event == "start":
            self.begun, self.stop, self.skips, self.quarantined = True, None, [], []
            self.validations = [entry for entry in self.validations if entry["step"] <= self.step]
        elif event == "stop":
            self.stop = record
        elif event == "skip":
            self.skips.append(record)
        elif event == "quarantine":
            self.quarantined.append(record)
        elif event == "validation":
            self.validations.append(record)


def examine(folder: Path) -> tuple[str, list[Finding]]:
    """One sentence on how a run ended, and every finding, the most specific first.

    Raises MissingFileError for a folder that is no run: without a journal, a log and a checkpoint.
    """
    logs = sorted(folder.glob("*.log"))
    checkpoints = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    if not (logs or checkpoints or (folder / JOURNAL).is_file()):
        raise MissingFileError(f"{folder} is not a run folder: it has no {JOURNAL}, no log and no checkpoint-N.")
    journal, records = _read_journal(folder / JOURNAL)
    found = _of_end(journal, folder) + _of_journal(journal) + _of_checkpoints(checkpoints)
    for log in logs:
        text = read_end(log)
        begins = text.rfind(LOG_BEGINS)
        start = text.rfind("\n", 0, begins) + 1 if begins >= 0 else 0
        found += diagnose("\n" * text.count("\n", 0, start) + text[start:], log.name)
    by_slug: dict[str, Finding] = {}
    for finding in found:
        by_slug.setdefault(finding.cause.slug, finding)
    findings = [finding for finding in by_slug.values() if not finding.cause.last_resort or len(by_slug) == 1]
    return _outcome(journal) + _restarts(records), findings


def read_end(path: Path) -> str:
    """The text of a log, of a very long one the end. Raises MissingFileError when it is not there."""
    if not path.is_file():
        raise MissingFileError(f"No log at {path}. Give a file, a run folder, or the text of the error itself.")
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - MOST_BYTES, 0))
        return file.read().decode("utf-8", "replace").replace("\r\n", "\n")


def _read_journal(path: Path) -> tuple[Journal, list[Record]]:
    """What the journal says in the end, and all of its events. Lines that a kill cut short are left out."""
    journal = Journal()
    records = read_lines(path)[0] if path.is_file() else []
    for record in records:
        journal.take(record)
    return journal, records


def _outcome(journal: Journal) -> str:
    if journal.stop is None:
        return f"no last word; the journal ends at step {journal.step}" if journal.begun else "the journal holds no run"
    reason, message = str(journal.stop.get("reason")), str(journal.stop.get("message") or "")
    words = {"finished": "finished", "early_stopping": "stopped early", "signal": "ended by a signal, everything saved"}
    return f"{words.get(reason, 'ended by an error')} at step {journal.step}" + (f": {message}" if message else "")


def _restarts(records: list[Record]) -> str:
    """What a supervisor did, and which share of the time went into steps that count."""
    spent = measure(records)
    if not spent.restarts:
        return ""
    last, count = spent.restarts[-1], len(spent.restarts)
    times = f"{count} time{'s' * (count != 1)}"
    return f"; restarted {times}, the last time after {last.get('cause')}; goodput {spent.goodput:.0%}"


def _of_end(journal: Journal, folder: Path) -> list[Finding]:
    if journal.stop is not None:
        return diagnose(str(journal.stop.get("message") or ""), f"{JOURNAL}, last event,")
    if not journal.begun:
        return []
    evidence = f"no stop event after the last start; step {journal.step}"
    return [Finding(NO_LAST_WORD, evidence, JOURNAL, {"run": folder.name})]


def _of_journal(journal: Journal) -> list[Finding]:
    found = []
    if journal.skips:
        last = journal.skips[-1]
        ids = ", ".join(map(str, last.get("ids", [])[:4]))
        evidence = f"{len(journal.skips)} steps skipped, the last one {last['step']}: {last.get('reason')}; clips {ids}"
        found.append(_known("non-finite", evidence))
    validations = journal.validations
    best = max((place for place, entry in enumerate(validations) if entry.get("best")), default=-1)
    since = len(validations) - 1 - best
    if since >= PATIENCE:
        facts: Facts = {"count": since, "best": validations[best]["step"] if best >= 0 else "none"}
        evidence = f"{len(validations)} validations, the last at step {validations[-1]['step']}"
        found.append(Finding(NO_IMPROVEMENT, evidence, JOURNAL, facts))
    psnr, baseline = _psnr(validations, "metrics"), _psnr(validations, "baseline")
    if len(validations) > 1 and psnr is not None and baseline is not None and psnr < baseline:
        facts = {"psnr": round(psnr, 2), "baseline": round(baseline, 2)}
        evidence = f"validation at step {validations[-1]['step']}: psnr {psnr:.4g}, baseline {baseline:.4g}"
        found.append(Finding(BELOW_BASELINE, evidence, JOURNAL, facts))
    if journal.quarantined:
        last = journal.quarantined[-1]
        evidence = f"{len(journal.quarantined)} clips set aside, the last one {last.get('path')}: {last.get('reason')}"
        found.append(_known("broken-video", evidence))
    return found


def _psnr(validations: list[dict[str, Any]], kind: str) -> float | None:
    """The newest validation's PSNR of `kind` (metrics or baseline)."""
    numbers = validations[-1].get(kind) if validations else None
    value = numbers.get("psnr") if isinstance(numbers, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _of_checkpoints(checkpoints: list[Path]) -> list[Finding]:
    damaged = [(path, problems) for path in sorted(checkpoints) if (problems := verify_folder(path))]
    if not damaged:
        return []
    shown = "; ".join(problems[0] if any(path.iterdir()) else f"{path.name} is empty" for path, problems in damaged[:3])
    return [_known("empty-checkpoint", f"{len(damaged)} of {len(checkpoints)} checkpoints: {shown}", "checkpoints")]


def _known(slug: str, evidence: str, place: str = JOURNAL) -> Finding:
    return Finding(next(cause for cause in CAUSES if cause.slug == slug), evidence, place, {})
