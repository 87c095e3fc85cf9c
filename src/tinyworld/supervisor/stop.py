"""Signals to the supervisor: the first one asks the training to save and end, Ctrl-C a second time ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tinyworld.core.signals import handled


class Stop:
    """asked: the first signal that came, None before it. urgent: whether Ctrl-C came after it.

    A second SIGTERM changes nothing: schedulers send it more than once, and the save that is under way must live on.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.urgent = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.urgent = self.urgent or (self.asked is not None and number == signal.SIGINT)
        self.asked = self.asked or signal.Signals(number)

    @contextmanager
    def installed(self) -> Iterator["Stop"]:
        """Handle the signals inside the block."""
        with handled(self._on_signal):
            yield self
