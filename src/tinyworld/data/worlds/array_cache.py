"""Decoded maps kept in memory, like `data.frame_cache` keeps videos: decoding PNG costs far more than copying."""

from collections.abc import Callable
from pathlib import Path

import numpy as np


class ArrayCache:
    """Arrays by file. What came first stays, as in `data.frame_cache` and for its reason.

    reader: from a file to its array. budget: bytes to keep; 0 keeps nothing. What comes back never depends on what is kept.
    Each loader process has a cache of its own.
    """

    def __init__(self, reader: Callable[[Path], np.ndarray], budget: int) -> None:
        self.reader = reader
        self.budget = budget
        self.bytes = 0
        self._arrays: dict[Path, np.ndarray] = {}

    def read(self, file: Path) -> np.ndarray:
        """The array of a file, not to be written to. Raises what the reader raises."""
        if file in self._arrays:
            return self._arrays[file]
        array = self.reader(file)
        if self.bytes + array.nbytes <= self.budget:
            self._arrays[file] = array
            self.bytes += array.nbytes
        return array
