"""Numbers, times and outcomes as people read them."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from tinyworld.core import goodput
from tinyworld.core.journal_lines import Record, number
from tinyworld.report.read import Life, Run

ABSENT = "–"
SILENT_AFTER = 600.0
"""Seconds without a journal line after which a run without an end is more likely dead than slow."""


def fixed(value: Any, digits: int = 2) -> str:
    known = number(value)
    return ABSENT if known is None else f"{known:.{digits}f}"


def whole(value: Any) -> str:
    known = number(value)
    return ABSENT if known is None else f"{known:,.0f}"


def size(value: Any) -> str:
    known = number(value)
    if known is None:
        return ABSENT
    for unit in ("B", "kB", "MB"):
        if known < 1000:
            return f"{known:.0f} {unit}" if unit == "B" else f"{known:.1f} {unit}"
        known /= 1000
    return f"{known:.2f} GB"


def duration(seconds: Any) -> str:
    known = number(seconds)
    return ABSENT if known is None else goodput.duration(known)


def moment(seconds: Any) -> str:
    known = number(seconds)
    return ABSENT if known is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(known))


def last_number(records: Sequence[Record], key: str) -> float | None:
    return next((value for record in reversed(records) if (value := number(record.get(key))) is not None), None)


def median(records: Sequence[Record], key: str) -> float | None:
    values = [value for record in records if (value := number(record.get(key))) is not None]
    return statistics.median(values) if values else None


def outcome(run: Run, now: float) -> tuple[str, str]:
    """(tone, sentence): how the run ended, or that it has not. tone: good, open, bad."""
    if not run.lives:
        return "open", "The journal does not say how this run started or ended."
    life = run.lives[-1]
    step, stop = whole(life.last_step), life.stop
    if stop is None:
        silent = max(now - life.last_time, 0.0)
        state = "It was killed, or it hangs" if silent > SILENT_AFTER else "It is running, or was killed just now"
        return "open", f"No end is recorded. {state}: its last line, at step {step}, is {duration(silent)} old."
    message = str(stop.get("message") or "").strip()
    match stop.get("reason"):
        case "finished":
            return "good", f"Finished all {step} steps."
        case "early_stopping":
            return "good", f"Stopped early at step {step}: the held-out metric no longer got better."
        case "signal":
            return "open", f"Interrupted at step {step}, and can be resumed: {message or 'a signal asked it to stop'}."
        case "error":
            return "bad", f"Stopped by an error at step {step}: {message or 'no message was recorded'}"
        case other:
            return "open", f"Ended at step {step}: {other}. {message}".strip()


def life(of: Life) -> Record:
    """One row of the table of starts."""
    ends = {"finished": "finished", "early_stopping": "stopped early", "signal": "interrupted, saved", "error": "error"}
    reason = of.stop.get("reason") if of.stop else None
    resumed = of.start.get("resumed_from")
    unsaid = str(of.restart.get("ended") or "died, restarted") if of.restart else "no end recorded"
    return {
        "time": of.start.get("time"),
        "step": of.start["step"],
        "resumed_from": str(resumed).rstrip("/").rsplit("/", 1)[-1] if resumed else "",
        "seconds": of.seconds,
        "last_step": of.last_step,
        "end": ends.get(str(reason), str(reason)) if reason else unsaid,
    }


def restart(record: Record) -> Record:
    """One row of the table of restarts."""
    return {key: record.get(key) for key in ("time", "step", "exit_code", "pause", "lost_seconds")} | {
        "cause": str(record.get("cause") or "not recorded")
    }


def skip(record: Record) -> Record:
    """One row of the table of skipped steps."""
    ids = record.get("ids")
    clips = ", ".join(str(name) for name in ids) if isinstance(ids, list) else ABSENT
    return {"step": record["step"], "reason": str(record.get("reason") or "not recorded"), "clips": clips}
