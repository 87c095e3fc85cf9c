"""Sizes of memory as people write them."""

UNITS = {"GiB": 2**30, "GB": 10**9, "MiB": 2**20, "MB": 10**6}


def parse_size(text: str) -> int:
    """Bytes of a size such as 40GiB, "80 GB" or 1.5GiB, in the form that `run.gpu_memory` takes."""
    unit = next(unit for unit in UNITS if text.endswith(unit))
    return int(float(text.removesuffix(unit)) * UNITS[unit])
