"""Main memory for training on a CPU: how much there is, and freed memory kept for the next tensors, as PyTorch does on a GPU."""

import ctypes
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`, from malloc.h."""


def available() -> int | None:
    """Bytes that can be taken before the kernel ends a process for want of memory; None where the system does not say."""
    if not MEMINFO.is_file():
        return None
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def keep_freed_memory() -> bool:
    """From now on, freed memory stays with this process; False where the C library has no such setting.

    glibc maps blocks above 32 MiB anew each time and gives them back at once; the page faults of a training step's large tensors
    then cost a quarter of its time. The process keeps its peak until it ends, which a training loop needs again anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(_MMAP_MAX, 0))
