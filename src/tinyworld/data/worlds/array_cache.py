"""Decoded maps kept in memory, like `data.frame_cache` keeps videos: decoding PNG costs far more than copying."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np


class ArrayCache:
    """Arrays by file, the least recently used dropped first.

    reader: from a file to its array. budget: bytes to keep; 0 keeps nothing. What comes back never depends on what is kept.
    Each loader process has a cache of its own.
    """

    def __init__(self, reader: Callable[[Path], np.ndarray], budget: int) -> None:
        self.reader = reader
        self.budget = budget
        self.bytes = 0
        self._arrays: OrderedDict[Path, np.ndarray] = OrderedDict()

    def read(self, file: Path) -> np.ndarray:
        """The array of a file, not to be written to. Raises what the reader raises."""
        if file in self._arrays:
            self._arrays.move_to_end(file)
            return self._arrays[file]
        array = self.reader(file)
        if array.nbytes <= self.budget:
            self._arrays[file] = array
            self.bytes += array.nbytes
            while self.bytes > self.budget:
                _, dropped = self._arrays.popitem(last=False)
                self.bytes -= dropped.nbytes
        return array
