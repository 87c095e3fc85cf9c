"""What the networks are given for a micro-batch: noisy latents, conditions, and what each sample has to do without.

Everything random belongs to the sample: it follows from the seed of its draw, whichever process or part of a batch it is in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyworld.config.fantasy import FantasyLossConfig
from tinyworld.core import rng
from tinyworld.core.geometry import plucker
from tinyworld.core.world_sizes import BackboneSpec
from tinyworld.data.worlds.batch import WorldBatch
from tinyworld.data.worlds.condition_cache import Conditions
from tinyworld.infer.codec import Codec
from tinyworld.losses.flow import FlowSchedule, draw_indices, noised
from tinyworld.models.fantasy.backbone import WanConditions


@dataclass(frozen=True)
class Encoded:
    """What the encoders make of a batch. latents: N 16 t h w. first: N 16 1 h w, of the first frame alone. text: N tokens
    text_dim. empty: text_tokens text_dim, of the empty prompt. clip: N 257 1280 or None."""

    latents: Tensor
    first: Tensor
    text: Tensor
    empty: Tensor
    clip: Tensor | None = None


@dataclass(frozen=True)
class Given:
    """For each sample, N bool: whether it has its text, its first frame, its cameras, and the two-way attention."""

    text: Tensor
    image: Tensor
    camera: Tensor
    interaction: Tensor


@dataclass(frozen=True)
class Inputs:
    """latents, noise, noisy: N 16 t h w float32. index: N, into the schedule. sigma, timestep: N. rays: N 6 F H W of all
    samples; conditions hold those of the samples that are given theirs."""

    latents: Tensor
    noise: Tensor
    noisy: Tensor
    index: Tensor
    sigma: Tensor
    timestep: Tensor
    conditions: WanConditions
    rays: Tensor
    given: Given


def drawn(loss: FantasyLossConfig, seeds: Sequence[int], device: torch.device) -> Given:
    """What the samples of these draws are given in training."""

    def kept(what: str, dropout: float) -> Tensor:
        return torch.tensor([rng.uniform(what, seed) >= dropout for seed in seeds], device=device)

    return Given(
        kept("text", loss.text_dropout),
        kept("image", loss.image_dropout),
        kept("camera", loss.camera_dropout),
        kept("interaction", loss.interaction_dropout),
    )


def fixed(count: int, device: torch.device, camera: bool) -> Given:
    """What `count` samples are given when they are measured: all but, if so asked, their cameras."""
    everything = torch.ones(count, dtype=torch.bool, device=device)
    return Given(everything, everything, torch.full_like(everything, camera), everything)


def encoded(codec: Codec, batch: WorldBatch, frames: Tensor, spec: BackboneSpec) -> Encoded:
    """Latents by the codec, and no text: zeros, which a model trained without text has always seen."""
    latents, first = latents_of(codec, frames)
    text = latents.new_zeros(len(batch.ids), spec.text_tokens, spec.text_dim)
    return Encoded(latents, first, text, text[0])


def latents_of(codec: Codec, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Latents of clips, N T 3 H W in [0, 1], and of their first frames alone: N 16 t h w and N 16 1 h w float32."""
    with torch.no_grad():
        return codec.encode(frames).float(), codec.encode(frames[:, :1]).float()


def recalled(known: Conditions, empty: Tensor | None, spec: BackboneSpec) -> Encoded:
    """What a cache holds of a batch. empty: text_tokens text_dim, of the empty prompt; None where there is no text."""
    latents, first = known.latents.float(), known.first.float()
    clip = None if known.clip is None else known.clip.float()
    if known.text is None or empty is None:
        text = latents.new_zeros(len(latents), spec.text_tokens, spec.text_dim)
        return Encoded(latents, first, text, text[0], clip)
    return Encoded(latents, first, known.text.float(), empty.to(latents), clip)


def assembled(
    known: Encoded, batch: WorldBatch, given: Given, schedule: FlowSchedule, index: Tensor | None, kind: str
) -> Inputs:
    """Noise of the samples' seeds at the noise level `index` (N), or where that is None at levels drawn from the seeds as
    `kind` says."""
    latents = known.latents
    device = latents.device
    if index is None:
        index = draw_indices(batch.noise_seeds, schedule, "logit_normal" if kind == "logit_normal" else "uniform")
    index = index.to(device)
    noise = rng.normal(batch.noise_seeds, latents.shape[1:]).to(device)
    sigma = schedule.sigma(index)
    image = torch.zeros_like(latents)
    image[:, :, :1] = known.first * _spread(given.image, known.first)
    text = torch.where(given.text[:, None, None], known.text, known.empty)
    rays = plucker(batch.cameras)
    clip = None if known.clip is None else known.clip * _spread(given.image, known.clip)
    conditions = WanConditions(text, image, rays, clip, given.camera)
    return Inputs(
        latents, noise, noised(latents, noise, sigma), index, sigma, schedule.timestep(index), conditions, rays, given
    )


def _spread(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *(1,) * (like.dim() - 1)).to(like.dtype)
