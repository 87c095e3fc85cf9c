"""Training on a CPU: keep freed memory for the next tensors, as PyTorch does on a GPU."""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`, from malloc.h."""


def keep_freed_memory() -> bool:
    """From now on, freed memory stays with this process; False where the C library has no such setting.

    glibc maps blocks above 32 MiB anew each time and gives them back at once; the page faults of a training step's large tensors
    then cost a quarter of its time. The process keeps its peak until it ends, which a training loop needs again anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(_MMAP_MAX, 0))
