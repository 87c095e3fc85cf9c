"""The correction: nothing lost in groups, unit size at any scale, and a loss with exactly its gradient."""

import pytest
import torch
from torch import Tensor, nn

from tinyworld.core.errors import TrainingError
from tinyworld.core.frames import seraena_groups
from tinyworld.losses.seraena import correction as module
from tinyworld.losses.seraena.correction import (
    adversarial_loss,
    correction,
    normalise,
    raw_correction,
    strength_for,
    to_contexts,
    to_groups,
)
from tinyworld.models.seraena import SeraenaDiscriminator

SMALL = (4, 4, 6, 8, 8, 8)
COUNTS = [(17, 8), (13, 8), (13, 3), (19, 8), (19, 1), (9, 3), (2, 3), (1, 1), (1, 4)]


def discriminator(group: int, latent_channels: int = 4) -> SeraenaDiscriminator:
    torch.manual_seed(0)
    return SeraenaDiscriminator(group, latent_channels, SMALL)


def clips(count: int, frames: int, size: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.rand(count, frames, 3, size, size, generator=generator) for _ in range(2))
    return real, fake, torch.randn(count, 3, 4, size // 8, size // 8, generator=generator)


def rms(direction: Tensor) -> Tensor:
    return direction.flatten(1).square().mean(dim=1).sqrt()


@pytest.mark.parametrize(("count", "group"), COUNTS)
def test_groups_hold_every_frame_in_the_planned_place(count: int, group: int) -> None:
    frames = torch.rand(2, count, 3, 8, 8)
    plan = seraena_groups(count, group, pad=True)
    groups = to_groups(frames, group).unflatten(0, (2, plan.groups)).unflatten(2, (group, 3))
    for g, slots in enumerate(plan.indices):
        for slot, index in enumerate(slots):
            assert torch.equal(groups[:, g, slot], frames[:, index])
    assert torch.equal(groups.flatten(1, 2)[:, :count], frames)


@pytest.mark.parametrize(("count", "group"), COUNTS)
def test_gradient_of_every_slot_reaches_its_frame(count: int, group: int) -> None:
    frames = torch.rand(2, count, 3, 8, 8, requires_grad=True)
    plan = seraena_groups(count, group, pad=True)
    to_groups(frames, group).sum().backward()
    slots = torch.bincount(torch.tensor(plan.indices).flatten(), minlength=count)
    assert frames.grad is not None
    assert torch.equal(frames.grad, slots.float().view(1, -1, 1, 1, 1).expand_as(frames))


@pytest.mark.parametrize(("count", "group"), COUNTS)
def test_every_frame_is_corrected(count: int, group: int) -> None:
    real, fake, latents = clips(2, count)
    found = correction(discriminator(group), real, fake, latents, group)
    assert found.direction.shape == fake.shape and found.direction.dtype == torch.float32
    assert (found.direction.flatten(2).abs().amax(dim=2) > 0).all()
    torch.testing.assert_close(rms(found.direction), torch.ones(2))


def test_context_is_the_mean_over_time_of_the_own_clip() -> None:
    latents = torch.arange(2.0).view(2, 1, 1, 1, 1) + torch.tensor([0.0, 10.0, 20.0]).view(1, 3, 1, 1, 1)
    contexts = to_contexts(latents.expand(2, 3, 4, 2, 2), groups=3)
    assert contexts.shape == (6, 4, 2, 2)
    assert contexts[:, 0, 0, 0].tolist() == [10, 10, 10, 11, 11, 11]


def test_clips_do_not_influence_each_other_nor_does_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake, latents = clips(3, 5)
    network = discriminator(2)
    together = raw_correction(network, real, fake, latents, 2)
    for i in range(3):
        alone = raw_correction(network, real[i : i + 1], fake[i : i + 1], latents[i : i + 1], 2)
        torch.testing.assert_close(together[i : i + 1], alone)
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 2 * 16 * 16)
    torch.testing.assert_close(raw_correction(network, real, fake, latents, 2), together)


def test_it_is_the_downhill_direction_of_the_score_difference() -> None:
    real, fake, latents = clips(1, 2)
    network = discriminator(2).double().eval()

    def difference(frames: Tensor) -> float:
        contexts = to_contexts(latents, 1).double()
        scores = [network(to_groups(x, 2), contexts) for x in (real.double(), frames)]
        return float((scores[0] - scores[1]).square().mean().detach())

    raw = raw_correction(network.float(), real, fake, latents, 2).double()
    network.double()
    step = 1e-5 * raw / raw.norm()
    slope = (difference(fake.double() + step) - difference(fake.double() - step)) / 2e-5
    assert slope == pytest.approx(-float(raw.norm()), rel=1e-3)


@pytest.mark.parametrize("size", [64, 480])
def test_unit_size_at_every_crop_size(size: int) -> None:
    """At 480 x 480 the raw gradient is some fifty times smaller; a fixed epsilon would let it fade."""
    real, fake, latents = clips(1, 1, size)
    found = correction(discriminator(1), real, fake, latents, 1)
    assert rms(found.direction).item() == pytest.approx(1, abs=1e-5)
    assert 0 < found.scale.item() < 1e-2


@pytest.mark.parametrize("factor", [2.0**-27, 2.0**20, 1e-8, 1e-30])
def test_size_of_the_gradient_does_not_matter(factor: float) -> None:
    gradient = torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e-3
    direction, size = normalise(gradient)
    scaled, scaled_size = normalise(gradient * factor)
    torch.testing.assert_close(scaled, direction, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scaled_size.double(), size.double() * factor, rtol=1e-5, atol=0)
    torch.testing.assert_close(rms(direction), torch.ones(3))
    torch.testing.assert_close(size, rms(gradient))


def test_no_gradient_no_correction() -> None:
    real, fake, latents = clips(2, 3)
    fake[1] = real[1]
    found = correction(discriminator(3), real, fake, latents, 3)
    assert rms(found.direction)[0].item() == pytest.approx(1, abs=1e-5)
    assert (found.direction[1] == 0).all()


def test_fp32_whatever_the_caller_computes_in() -> None:
    real, fake, latents = clips(1, 3)
    network = discriminator(3)
    expected = correction(network, real, fake, latents, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = correction(network, real, fake.requires_grad_(), latents, 3)
    assert torch.equal(found.direction, expected.direction) and not found.direction.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_statistics_are_not_learned_from_corrections() -> None:
    network = discriminator(3).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    correction(network, *clips(2, 3), 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_broken_discriminator_stops_the_run() -> None:
    network = discriminator(3)
    with torch.no_grad():
        next(network.parameters())[0, 0, 0, 0] = torch.nan
    with pytest.raises(TrainingError, match="not finite for finite frames"):
        correction(network, *clips(2, 3), 3)


def test_a_broken_clip_spoils_its_own_direction_only() -> None:
    real, fake, latents = clips(2, 3)
    fake[0, 1, 2, 3, 4] = torch.inf
    found = correction(discriminator(3), real, fake, latents, 3)
    assert found.direction[0].isnan().all() and not found.scale.isfinite()
    assert rms(found.direction)[1].item() == pytest.approx(1, abs=1e-5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    real, fake, latents = clips(2, 3)
    network = discriminator(3)
    with pytest.raises(ValueError, match="one shape"):
        correction(network, real[:, :2], fake, latents, 3)
    with pytest.raises(ValueError, match="same clips"):
        correction(network, real, fake, latents[:1], 3)
    with pytest.raises(ValueError, match="same clips"):
        correction(network, real, fake, latents.mean(dim=1), 3)
    with pytest.raises(ValueError, match="4 channels"):
        correction(network, real, fake, latents.transpose(1, 2), 3)


@pytest.mark.parametrize("strength", [1.0, 1e-3, 1e-9])
def test_loss_has_exactly_the_gradient_of_the_correction(strength: float) -> None:
    """1e-9 is usual on large frames; a target fake + 1e-9 would round to fake."""
    fake = torch.rand(2, 3, 3, 8, 8, requires_grad=True)
    direction = torch.randn(2, 3, 3, 8, 8)
    loss = adversarial_loss(fake, direction, torch.tensor(strength))
    loss.backward()
    assert fake.grad is not None and torch.equal(fake.grad, -torch.tensor(strength) * direction)
    assert loss.item() == pytest.approx(0.5 * strength**2 * direction.square().sum().item(), rel=1e-5)


def test_loss_refuses_to_broadcast() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        adversarial_loss(torch.zeros(2, 3, 3, 8, 8), torch.zeros(1, 3, 3, 8, 8), torch.tensor(1.0))


@pytest.mark.parametrize("ratio", [0.1, 1.0])
@pytest.mark.parametrize("error", [0.1, 1e-4])
def test_adversarial_gradient_is_the_ratio_of_the_reconstruction_gradient(ratio: float, error: float) -> None:
    target, direction = torch.rand(2, 3, 3, 32, 32), torch.randn(2, 3, 3, 32, 32)
    fake = (target + error * torch.randn_like(target)).requires_grad_()
    (wanted,) = torch.autograd.grad(nn.functional.mse_loss(fake, target), fake)
    strength = strength_for(wanted, direction, ratio)
    (found,) = torch.autograd.grad(adversarial_loss(fake, direction, strength), fake)
    assert (found.norm() / wanted.norm()).item() == pytest.approx(ratio, rel=1e-5)


def test_strength_without_reference_or_direction() -> None:
    some, none = torch.randn(2, 3), torch.zeros(2, 3)
    assert strength_for(none, some, 0.5).item() == 0
    assert strength_for(some, none, 0.5).item() == 0
    assert strength_for(some * torch.nan, some, 0.5).isnan()
