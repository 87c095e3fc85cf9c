"""One step of the discriminator: what it is shown, and what it learns from."""

import pytest
import torch

from tinyworld.core.errors import TrainingError
from tinyworld.losses.seraena.replay import ReplayBuffer
from tinyworld.losses.seraena.update import FRESH, OLD, REAL, Judged, Shown, compose, step
from tinyworld.models.seraena import SeraenaDiscriminator

SMALL = (4, 4, 6, 8, 8, 8)
CPU = torch.device("cpu")
VALUE = {REAL: 200, FRESH: 100, OLD: 50}


def shown(size: int) -> Shown:
    def images(value: int) -> torch.Tensor:
        return torch.full((size, 3, 8, 8), value, dtype=torch.uint8)

    return Shown(images(VALUE[REAL]), images(VALUE[FRESH]), torch.full((size, 4, 1, 1), 1.0).half())


def filled(size: int) -> ReplayBuffer:
    buffer = ReplayBuffer(2**20, seed=0, device=CPU)
    if size:
        old = torch.full((size, 3, 8, 8), VALUE[OLD], dtype=torch.uint8)
        buffer.put(old, torch.full((size, 4, 1, 1), 2.0).half())
    return buffer


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_every_group_real_and_decoded_and_half_of_those_old(size: int) -> None:
    generator, buffer = torch.Generator().manual_seed(0), filled(8)
    origins = []
    for _ in range(400):
        judged = compose(shown(size), buffer, generator)
        for kind, value in VALUE.items():
            chosen = judged.images[judged.origin == kind]
            assert torch.equal(chosen, torch.full_like(chosen, value / 255))
        assert torch.equal(judged.contexts[:, 0, 0, 0] == 2, judged.origin == OLD)  # each with its own context
        assert len(judged.origin) == 2 * size
        origins.append(judged.origin)
    shares = torch.bincount(torch.cat(origins), minlength=3) / (800 * size)
    for kind, share in ((REAL, 0.5), (FRESH, 0.25), (OLD, 0.25)):
        assert shares[kind].item() == pytest.approx(share, abs=0.08)


def test_all_fresh_until_the_buffer_holds_enough() -> None:
    for held in (0, 3):
        judged = compose(shown(8), filled(held), torch.Generator().manual_seed(0))
        assert set(judged.origin.tolist()) == {REAL, FRESH}
    other = ReplayBuffer(2**20, seed=0, device=CPU)
    other.put(torch.zeros(8, 3, 16, 8, dtype=torch.uint8), torch.zeros(8, 4, 2, 1).half())
    assert OLD not in compose(shown(8), other, torch.Generator().manual_seed(0)).origin


def judged_noise(size: int, bad: bool = False) -> Judged:
    """Decoded pictures are dark, real ones light."""
    generator = torch.Generator().manual_seed(1)
    origin = torch.arange(size) % 3
    light = torch.where(origin == REAL, 0.5, 0.0).view(-1, 1, 1, 1)
    images = torch.rand(size, 3, 16, 16, generator=generator) * 0.5 + light
    return Judged(images * (torch.nan if bad else 1), torch.randn(size, 4, 2, 2, generator=generator), origin)


def trainer() -> tuple[SeraenaDiscriminator, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = SeraenaDiscriminator(1, 4, SMALL)
    return network, torch.optim.AdamW(network.parameters(), lr=1e-2, betas=(0.9, 0.99))


def test_it_learns_plus_one_for_decoded_and_minus_one_for_real() -> None:
    network, optimizer = trainer()
    judged = judged_noise(12)
    first, _ = step(network, optimizer, judged)
    for _ in range(60):
        last, right = step(network, optimizer, judged)
    assert last < 0.1 * first and right.all()
    scores = network.eval()(judged.images, judged.contexts).mean(dim=(1, 2, 3))
    assert (scores[judged.origin == REAL] < 0).all() and (scores[judged.origin != REAL] > 0).all()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_numbers_that_are_not_finite_stop_before_the_weights_change() -> None:
    network, optimizer = trainer()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with pytest.raises(TrainingError, match="not finite"):
        step(network, optimizer, judged_noise(6, bad=True))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
