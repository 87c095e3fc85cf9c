"""Random state: capture, restore, isolate every generator; and seeds that are a pure function of names."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

SEED_RANGE = 2**63


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on all `parts` and on nothing else (not on process, machine or hash randomisation).

    Parts are separated, so ("a", "bc") and ("ab", "c") differ.
    """
    digest = hashlib.blake2b("\x1f".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniform(*parts: int | str) -> float:
    """A number in [0, 1) that depends on all `parts`, as `derive_seed`."""
    return derive_seed(*parts) / SEED_RANGE


def normal(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32 N x shape on the CPU, N the number of seeds.

    Row i comes from a generator of its own, seeded with seeds[i]: the noise of a sample belongs to the sample, whichever
    batch, process or place in the batch it is in.
    """
    if not seeds:
        return torch.empty(0, *shape)
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """The state of every generator of this process, made of plain values and uint8 tensors (loads with weights_only)."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [name, torch.from_numpy(np.array(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())],
    }


def restore(state: dict[str, Any]) -> None:
    """Put every generator back to a captured state. A different number of GPUs restores those that exist."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    for index, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(device_state, index)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run a block on its own seed and leave every generator as it was: evaluation must not change training."""
    before = capture()
    seed_all(seed)
    try:
        yield
    finally:
        restore(before)
