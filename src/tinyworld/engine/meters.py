"""Averages over a log interval, and the memory this process uses."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch

SUM, COUNT = " (sum)", " (count)"
"""Behind the names of the two numbers whose quotient is logged (`engine.task.Losses.levels`)."""


def quotients(values: Mapping[str, float]) -> dict[str, float]:
    """The values, with sum and count replaced by their quotient; left out where nothing was counted."""
    found = {name: value for name, value in values.items() if not name.endswith((SUM, COUNT))}
    for name, total in values.items():
        count = values[name.removesuffix(SUM) + COUNT] if name.endswith(SUM) else 0.0
        if count > 0:
            found[name.removesuffix(SUM)] = total / count
    return found


class Window:
    """Sums of named numbers since the last `means()`."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._sums[name] += value
            self._counts[name] += 1

    def means(self) -> dict[str, float]:
        """The mean of each value since the last call; starts a new window."""
        result = {name: self._sums[name] / self._counts[name] for name in self._sums}
        self._sums.clear()
        self._counts.clear()
        return result


def memory_mb(device: torch.device) -> float:
    """Peak GPU memory allocated since the process began, or resident memory of this process on the CPU, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
