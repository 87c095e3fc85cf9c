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


def test_the_noise_of_a_sample_is_its_own() -> None:
    before = torch.get_rng_state()
    batch = rng.normal([11, 2**63 - 1, 11, 0], (40, 50, 3))
    assert batch.shape == (4, 40, 50, 3) and batch.dtype == torch.float32
    assert torch.equal(batch[0], batch[2]) and not torch.equal(batch[0], batch[1])
    for seed, row in zip([11, 2**63 - 1, 11, 0], batch, strict=True):
        assert torch.equal(rng.normal([seed], (40, 50, 3))[0], row)
        assert abs(float(row.mean())) < 0.05 and abs(float(row.std()) - 1) < 0.05
    assert torch.equal(torch.get_rng_state(), before)
    assert rng.normal([], (2, 3)).shape == (0, 2, 3)
