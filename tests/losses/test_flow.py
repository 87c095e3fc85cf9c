"""Flow matching: the schedule against its formula, draws that belong to a sample, the loss by hand."""

import math

import pytest
import torch

from tinyworld.losses.flow import FlowSchedule, draw_indices, flow_loss, noised, velocity_target

EVERY = torch.arange(1000)


def test_levels_are_those_of_the_shifted_linear_schedule() -> None:
    schedule = FlowSchedule()
    even = torch.linspace(1, 0, 1001, dtype=torch.float64)[:-1]
    expected = 5 * even / (1 + 4 * even)
    torch.testing.assert_close(schedule.sigma(EVERY), expected.float(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(schedule.timestep(EVERY), (1000 * expected).float(), rtol=1e-6, atol=1e-4)
    assert schedule.sigma(EVERY).dtype == schedule.timestep(EVERY).dtype == torch.float32
    assert schedule.sigma(torch.tensor([0, 500])).tolist() == pytest.approx([1, 2.5 / 3])
    torch.testing.assert_close(FlowSchedule(shift=1).sigma(EVERY), even.float())


def test_weights_are_a_bell_of_mean_one() -> None:
    schedule = FlowSchedule()
    weights, timesteps = schedule.weight(EVERY).double(), schedule.timestep(EVERY).double()
    bell = torch.exp(-2 * ((timesteps - 500) / 1000) ** 2)
    expected = (bell - bell.min()) / (bell - bell.min()).mean()
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)
    assert weights.mean().item() == pytest.approx(1, abs=1e-6) and weights.min() == 0
    assert abs(timesteps[weights.argmax()].item() - 500) < 1


def test_the_nearest_level_is_found() -> None:
    schedule = FlowSchedule()
    for index in (0, 1, 333, 998, 999):
        assert schedule.nearest(schedule.sigma(torch.tensor([index])).item()) == index
    assert schedule.nearest(0.0) == 999 and schedule.nearest(1.0) == 0
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            schedule.nearest(wrong)


@pytest.mark.parametrize(("shift", "steps"), [(0.0, 1000), (-1.0, 1000), (math.nan, 1000), (5.0, 1)])
def test_impossible_schedules_are_refused(shift: float, steps: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        FlowSchedule(shift, steps)


@pytest.mark.parametrize("kind", ["uniform", "logit_normal"])
def test_a_draw_depends_on_its_seed_alone(kind) -> None:  # type: ignore[no-untyped-def]
    schedule, seeds = FlowSchedule(), list(range(40))
    torch.manual_seed(1)
    drawn = draw_indices(seeds, schedule, kind)
    torch.manual_seed(2)
    again = draw_indices(seeds[::-1], schedule, kind).flip(0)
    assert drawn.dtype == torch.long and drawn.tolist() == again.tolist()
    assert draw_indices(seeds[7:8], schedule, kind).tolist() == [drawn[7].item()]
    assert len(set(drawn.tolist())) > 20
    assert draw_indices([], schedule, kind).shape == (0,)


def test_draws_have_the_distribution_they_are_named_after() -> None:
    schedule, seeds = FlowSchedule(), range(4000)
    uniform = draw_indices(seeds, schedule, "uniform").double()
    assert uniform.min() >= 0 and uniform.max() <= 999
    assert torch.histc(uniform, 10, 0, 1000).tolist() == pytest.approx([400] * 10, abs=100)  # five standard deviations
    middle = draw_indices(seeds, schedule, "logit_normal").double()
    assert middle.min() >= 0 and middle.max() <= 999
    # 1 - index/1000 is the logistic function of a standard normal: 68.27 % lie within one standard deviation.
    low, high = (1000 / (1 + math.exp(x)) for x in (1, -1))
    assert ((middle > low) & (middle < high)).double().mean().item() == pytest.approx(0.6827, abs=0.04)
    assert middle.median().item() == pytest.approx(500, abs=30)


@pytest.mark.parametrize(
    ("kind", "expected"), [("uniform", [429, 39, 184, 445]), ("logit_normal", [584, 679, 325, 422])]
)
def test_draws_stay_what_they_are(kind, expected: list[int]) -> None:  # type: ignore[no-untyped-def]
    """A run that is resumed, or repeated with a later version, sees the same levels."""
    assert draw_indices([0, 1, 2, 2**62], FlowSchedule(), kind).tolist() == expected


def test_noised_and_velocity_are_a_line_from_latents_to_noise() -> None:
    latents, noise = torch.randn(2, 16, 3, 4, 4), torch.randn(2, 16, 3, 4, 4)
    sigma = torch.tensor([0.25, 1.0])
    made = noised(latents, noise, sigma)
    torch.testing.assert_close(made[0], 0.75 * latents[0] + 0.25 * noise[0])
    torch.testing.assert_close(made[1], noise[1])
    torch.testing.assert_close(made - sigma[:, None, None, None, None] * velocity_target(latents, noise), latents)
    assert noised(latents.bfloat16(), noise, sigma).dtype == torch.float32


def test_the_loss_is_a_weighted_mean_square_per_sample() -> None:
    latents, noise = torch.randn(3, 4, 2, 3, 3), torch.randn(3, 4, 2, 3, 3)
    velocity = velocity_target(latents, noise) + torch.tensor([0.0, 0.5, -2.0])[:, None, None, None, None]
    loss = flow_loss(velocity, latents, noise, torch.tensor([7.0, 2.0, 0.5]))
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.5, 2.0]))


def test_shapes_must_agree_not_broadcast() -> None:
    latents = torch.zeros(2, 4, 1, 2, 2)
    with pytest.raises(ValueError, match="differ in shape"):
        flow_loss(latents[:, :1], latents, latents, torch.ones(2))
    with pytest.raises(ValueError, match="B values"):
        flow_loss(latents, latents, latents, torch.ones(1))
    with pytest.raises(ValueError, match="B values"):
        noised(latents, latents[:1], torch.ones(2))
