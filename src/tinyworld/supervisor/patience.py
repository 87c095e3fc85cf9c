"""How long to wait before the next start, and when to give up."""

LONGEST_PAUSE = 600.0
SAME_CAUSE = 3
"""Ends in a row by the same cause, without a new checkpoint between them, after which a restart is pointless."""
ANY_CAUSE = 10
"""The same for causes that differ: a run that hangs at another sample each time gets nowhere either."""


class Patience:
    """Pauses double from `pause` to LONGEST_PAUSE and begin anew once a run has written a checkpoint."""

    def __init__(self, pause: float) -> None:
        self.first = self.pause = min(pause, LONGEST_PAUSE)
        self.kind: str | None = None
        self.times = self.ends = 0

    def after(self, kind: str | None, progress: bool) -> float | None:
        """Seconds to wait after an end by this kind of cause; None: give up. progress: the run wrote a checkpoint. kind: None
        for a signal from outside, which says nothing about the run."""
        if progress:
            self.pause, self.times, self.ends = self.first, 0, 0
        self.ends += 1
        self.times = self.times + 1 if kind is not None and kind == self.kind else 1
        self.kind = kind
        if self.times >= SAME_CAUSE or self.ends >= ANY_CAUSE:
            return None
        pause = self.pause
        if kind is not None:
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return pause
