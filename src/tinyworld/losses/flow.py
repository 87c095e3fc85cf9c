"""Flow matching of the video latents: noise levels, their draw, their weights, and the loss.

A noisy latent is (1 − σ) z + σ ε, and the model predicts the velocity ε − z. The schedule is the one Wan2.1 is trained and
sampled with: σ falls evenly from 1 to 1/steps, then is shifted towards noise, σ' = s σ / (1 + (s − 1) σ) with s = 5; the
model's timestep is 1000 σ'. Index 0 is pure noise. Source of schedule and weights: DiffSynth-Studio's flow matching.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tinyworld.core.rng import derive_seed

IndexKind = Literal["uniform", "logit_normal"]
TIMESTEPS = 1000
"""The model's timestep of σ = 1."""


class FlowSchedule:
    """Noise levels by index, 0 (pure noise) to steps - 1 (almost none). Holds no tensor: everything is a formula.

    Raises ValueError for a shift that is not above 0 or fewer than 2 steps.
    """

    def __init__(self, shift: float = 5.0, steps: int = 1000) -> None:
        if not (math.isfinite(shift) and shift > 0) or steps < 2:
            raise ValueError(f"shift must be a number above 0 and steps at least 2, got shift={shift}, steps={steps}")
        self.shift = shift
        self.steps = steps
        raw = self._raw_weight(torch.arange(steps))
        self._least = float(raw.min())
        self._mean = float((raw - self._least).mean())

    def sigma(self, index: Tensor) -> Tensor:
        """Share of noise, float32 in (0, 1], of indices (B,) on any device."""
        return self._sigma(index).float()

    def timestep(self, index: Tensor) -> Tensor:
        """What the model is told, float32 in (0, 1000], of indices (B,)."""
        return (TIMESTEPS * self._sigma(index)).float()

    def weight(self, index: Tensor) -> Tensor:
        """Weight of the loss, float32, of indices (B,): a bell around timestep 500, 0 at its least, mean 1 over all indices."""
        return ((self._raw_weight(index) - self._least) / self._mean).float()

    def nearest(self, sigma: float) -> int:
        """The index whose noise level is nearest to `sigma`. Raises ValueError outside [0, 1]."""
        if not 0 <= sigma <= 1:
            raise ValueError(f"sigma must be from 0 to 1, got {sigma}")
        return int((self._sigma(torch.arange(self.steps)) - sigma).abs().argmin())

    def _sigma(self, index: Tensor) -> Tensor:
        even = 1 - index.double() / self.steps
        return self.shift * even / (1 + (self.shift - 1) * even)

    def _raw_weight(self, index: Tensor) -> Tensor:
        return torch.exp(-2 * (self._sigma(index) - 0.5).square())


def draw_indices(seeds: Sequence[int], schedule: FlowSchedule, kind: IndexKind) -> Tensor:
    """One index of the schedule for each seed, int64 (B,) on the CPU: a sample's noise level depends on its seed alone.

    uniform: every index is equally likely. logit_normal: σ before the shift is the logistic function of a standard normal
    number (Esser et al. 2024, arXiv:2403.03206), so that middle levels are drawn more often than both ends.
    """
    indices = []
    for seed in seeds:
        # A seed of its own: the sample's noise comes from `seed` itself and must not be correlated with its level.
        generator = torch.Generator().manual_seed(derive_seed("flow index", seed))
        if kind == "uniform":
            index = int(torch.randint(schedule.steps, (), generator=generator))
        else:
            even = torch.randn((), generator=generator, dtype=torch.float64).sigmoid().item()
            index = min(int((1 - even) * schedule.steps), schedule.steps - 1)
        indices.append(index)
    return torch.tensor(indices, dtype=torch.long)


def noised(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 − σ) latents + σ noise in float32: latents and noise B ..., sigma (B,)."""
    _check(latents, noise, sigma)
    share = _spread(sigma, latents)
    return (1 - share) * latents.float() + share * noise.float()


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """What the model is to predict, noise − latents, float32."""
    return noise.float() - latents.float()


def flow_loss(velocity: Tensor, latents: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error of the velocity of each sample: three times B ... and weight (B,) → float32 (B,).

    Raises ValueError for shapes that differ.
    """
    _check(latents, noise, weight)
    if velocity.shape != latents.shape:
        raise ValueError(f"velocity {tuple(velocity.shape)} and latents {tuple(latents.shape)} differ in shape")
    squares = (velocity.float() - velocity_target(latents, noise)).square()
    return weight.float() * squares.flatten(1).mean(dim=1)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return values.float().reshape(-1, *(1,) * (like.dim() - 1))


def _check(latents: Tensor, noise: Tensor, per_sample: Tensor) -> None:
    if latents.shape != noise.shape or per_sample.shape != latents.shape[:1]:
        raise ValueError(
            f"latents and noise must have one shape B ... and come with B values, got {tuple(latents.shape)}, "
            f"{tuple(noise.shape)} and {tuple(per_sample.shape)}"
        )
