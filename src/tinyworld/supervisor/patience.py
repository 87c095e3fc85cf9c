"""How long to wait before the next start, and when to give up."""

LONGEST_PAUSE = 600.0
SAME_CAUSE = 3
"""Ends in a row by the same cause, without a new checkpoint between them, after which a restart is pointless."""


class Patience:
    """Pauses double from `pause` to LONGEST_PAUSE and begin anew once a run has written a checkpoint."""

    def __init__(self, pause: float) -> None:
        self.first = self.pause = min(pause, LONGEST_PAUSE)
        self.kind = ""
        self.times = 0

    def after(self, kind: str, progress: bool) -> float | None:
        """Seconds to wait after an end by this kind of cause; None: give up. progress: the run wrote a checkpoint."""
        if progress:
            self.pause, self.times = self.first, 0
        self.times = self.times + 1 if kind == self.kind else 1
        self.kind = kind
        if self.times >= SAME_CAUSE:
            return None
        pause, self.pause = self.pause, min(2 * self.pause, LONGEST_PAUSE)
        return pause
