"""SIGTERM and SIGINT ask for a checkpoint and an orderly end; a second SIGINT ends at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tinyworld.core import dist
from tinyworld.core.signals import handled


class StopRequest:
    """Set by a signal, polled by the loop between steps and between evaluated samples."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name

    @property
    def is_set(self) -> bool:
        """Whether this rank got a signal."""
        return self.signal_name is not None

    def agreed(self) -> bool:
        """True on all ranks as soon as one rank got a signal. Every rank must call it at the same place."""
        return dist.agree(self.is_set)

    @contextmanager
    def installed(self) -> Iterator["StopRequest"]:
        """Handle the signals inside the block."""
        with handled(self._on_signal):
            yield self
