"""Random state: pure seeds, exact restore, isolation."""

import random

import numpy as np
import torch

from tinyworld.core import rng


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.randn(1)),
    ]


def test_seeds_depend_on_every_part_and_its_place() -> None:
    seeds = {rng.derive_seed(*parts) for parts in [(0,), (1,), (0, "a"), ("a", 0), ("ab", "c"), ("a", "bc"), ("abc",)]}
    assert len(seeds) == 7 and all(0 <= seed < 2**63 for seed in seeds)
    assert rng.derive_seed(3, "order", 7) == 1153559493930319885


def test_restore_repeats_every_generator(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng.seed_all(5)
    draw()
    torch.save(rng.capture(), tmp_path / "rng.pt")
    expected = draw()
    rng.restore(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected


def test_isolation_leaves_no_trace() -> None:
    rng.seed_all(1)
    expected = draw()
    rng.seed_all(1)
    with rng.isolated(7):
        inside = draw()
    assert draw() == expected
    with rng.isolated(7):
        assert draw() == inside
