"""What a person sees while a run goes on: a live bar on a terminal, one line per log interval elsewhere."""

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tinyworld.core import dist
from tinyworld.core.console import CONSOLE, LOGGER


class TrainingProgress:
    """Step-based progress. Use as a context manager; `update` after every step, `line` at the log interval."""

    def __init__(self, start: int, total: int) -> None:
        self._start, self._total, self._began = start, total, time.monotonic()
        self._live = CONSOLE.is_terminal and dist.is_main()
        self._bar = Progress(
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=CONSOLE,
            disable=not self._live,
        )
        self._task = self._bar.add_task("train", total=total, completed=start, note="")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bar.stop()

    def update(self, step: int, note: str | None = None) -> None:
        """Move the bar; without a note the last one stays."""
        if note is None:
            self._bar.update(self._task, completed=step)
        else:
            self._bar.update(self._task, completed=step, note=note)

    def line(self, step: int, facts: dict[str, Any]) -> None:
        """One log line; on a terminal it goes to the log file only, the bar shows the same."""
        done = max(step - self._start, 1)
        left = (time.monotonic() - self._began) / done * (self._total - step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in facts.items())
        LOGGER.info("step %d/%d  %s  %s left", step, self._total, text, _clock(left), extra={"live": self._live})


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
