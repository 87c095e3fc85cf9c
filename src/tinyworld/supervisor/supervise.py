"""The loop: start, wait, understand, write it into the journal, pause, start again."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from tinyworld.core.files import MANIFEST
from tinyworld.core.goodput import LOST, duration, measure
from tinyworld.core.journal_lines import JOURNAL, Record, append_line, read_lines
from tinyworld.supervisor.cause import Cause, find_cause
from tinyworld.supervisor.patience import SAME_CAUSE, Patience
from tinyworld.supervisor.processes import GRACE, POLL, Ended, run
from tinyworld.supervisor.stop import Stop

EXIT_GAVE_UP = 1
"""The same cause ended the run again and again; starting it once more would not help."""


@dataclass(frozen=True)
class Job:
    """What is kept going.

    folder: the run folder, the same for every start. command: the training command, complete but for the checkpoint it
    goes on from. begin_from: a checkpoint to branch off from as long as the run has none of its own. pause: seconds before
    the first restart. grace: see `processes.GRACE`.
    """

    folder: Path
    command: Sequence[str]
    processes: int = 1
    begin_from: str | None = None
    pause: float = 10.0
    grace: float = GRACE


def supervise(job: Job) -> int:
    """Keep the job going until it is finished, needs a person, or a signal stops it.

    Returns 0 when the training finished, 2 when it found what its user must mend, 75 after SIGTERM or SIGINT to this
    process (passed on; the training has saved), EXIT_GAVE_UP when the same cause came three times without a new checkpoint.
    """
    patience = Patience(job.pause)
    with Stop().installed() as stop:
        while True:
            began, saved, seen = time.time(), newest_checkpoint(job.folder), len(_events(job.folder))
            ended = run(_command(job, saved), job.processes, job.folder, stop, job.grace)
            if ended.code in (0, EXIT_USER_ERROR):
                return ended.code
            if stop.asked:
                return _stopped(ended, stop)
            life = _events(job.folder)[seen:]
            cause = find_cause(job.folder, ended, life, began)
            reached = newest_checkpoint(job.folder)
            kind = None if ended.code == EXIT_INTERRUPTED else cause.kind
            pause = patience.after(kind, reached > saved)
            if pause is None:
                LOGGER.error("%s", _gave_up(job, cause, patience))
                return EXIT_GAVE_UP
            lost = _lost_work(job.folder, life, max(reached, 0))
            _note(job.folder, ended, cause, pause, lost)
            LOGGER.warning(
                "%s; %s of work lost; starting again in %s from %s",
                cause, duration(lost), duration(pause), f"step {reached}" if reached >= 0 else "the beginning",
            )  # fmt: skip
            _sleep(pause, stop)
            if stop.asked:
                LOGGER.info("stopped by %s between two starts", stop.asked.name)
                return EXIT_INTERRUPTED


def newest_checkpoint(folder: Path) -> int:
    """The step of the newest complete checkpoint, -1 without any."""
    found = (re.fullmatch(r"checkpoint-(\d+)", path.parent.name) for path in folder.glob(f"checkpoint-*/{MANIFEST}"))
    return max((int(match[1]) for match in found if match), default=-1)


def _command(job: Job, saved: int) -> list[str]:
    branch = job.begin_from is not None and saved < 0
    return [*job.command, f"--resume_from_checkpoint={job.begin_from if branch else 'latest'}"]


def _events(folder: Path) -> list[Record]:
    """The journal so far; a run that failed before its first line has none."""
    path = folder / JOURNAL
    try:
        return read_lines(path)[0] if path.is_file() else []
    except OSError as error:  # storage that does not answer just now is no reason to give up the run
        LOGGER.warning("%s cannot be read now: %s", path, error)
        return []


def _lost_work(folder: Path, life: Sequence[Record], back_to: int) -> float:
    """Seconds of work that this life did after its last checkpoint: what going back to step `back_to` now undoes."""
    if not any(event["event"] == "start" for event in life):
        return 0.0
    events, now = _events(folder), time.time()
    ended = {"event": "restart", "time": now, "step": 0}
    again = {"event": "start", "time": now, "step": back_to}
    return measure([*events, ended, again]).seconds[LOST] - measure(events).seconds[LOST]


def _note(folder: Path, ended: Ended, cause: Cause, pause: float, lost: float) -> None:
    """Write the restart into the run's journal, where there is one."""
    events = _events(folder)
    if not events:
        return
    facts = {"cause": str(cause), "ended": ended.words, "exit_code": ended.code, "pause": pause}
    try:
        append_line(folder / JOURNAL, "restart", _last_step(events), **facts, lost_seconds=round(lost, 3))
    except OSError as error:
        LOGGER.warning("the restart could not be noted in the journal: %s", error)


def _last_step(events: Sequence[Record]) -> int:
    """How far training had come when it ended last. A process that fails before it starts says 0, which is not it."""
    starts = [place for place, event in enumerate(events) if event["event"] == "start"]
    return max(event["step"] for event in events[max(starts, default=0) :])


def _stopped(ended: Ended, stop: Stop) -> int:
    if ended.code != EXIT_INTERRUPTED:
        LOGGER.warning(
            "the training (%s) had not saved when it ended: it goes on from its last checkpoint", ended.words
        )
    elif stop.asked:
        LOGGER.info("stopped by %s; everything is saved", stop.asked.name)
    return EXIT_INTERRUPTED


def _gave_up(job: Job, cause: Cause, patience: Patience) -> str:
    events = _events(job.folder)
    at = f", the last time at step {_last_step(events)}" if events else ""
    same = patience.times >= SAME_CAUSE
    how = f"{patience.times} times" if same else f"{patience.ends} times"
    why = "always by the same cause" if same else "by different causes"
    return (
        f"given up: the run ended {how} in a row without a new checkpoint between, {why}{at}: "
        f"{cause}. Its log is {job.folder / 'training.log'}; `tinyworld doctor {job.folder}` names known causes. Once it is "
        "mended, the same command goes on."
    )


def _sleep(seconds: float, stop: Stop) -> None:
    until = time.monotonic() + seconds
    while stop.asked is None and time.monotonic() < until:
        time.sleep(POLL)
