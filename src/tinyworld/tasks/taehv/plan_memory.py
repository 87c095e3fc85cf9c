"""Memory of the autoencoder's training step, before a weight is loaded."""

import torch
from torch import Tensor, nn

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.frames import training_plan
from tinyworld.engine.memory import MemoryEstimate, estimate
from tinyworld.losses.pixel import flicker_distance, latent_moments, pixel_distance
from tinyworld.models.taehv import Taehv
from tinyworld.tasks.taehv.sources import buckets


def largest_bucket(recipe: TaehvRecipe) -> tuple[tuple[int, int, int], MemoryEstimate]:
    """The (height, width, n_frames) that needs most, and what it needs for one micro-batch."""
    estimates = [(bucket, _estimate(recipe, *bucket)) for bucket in buckets(recipe)]
    return max(estimates, key=lambda pair: pair[1].total)


def _estimate(recipe: TaehvRecipe, height: int, width: int, n_frames: int) -> MemoryEstimate:
    with torch.device("meta"):
        model = Taehv(recipe.model.spec())
    if recipe.training.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    plan = training_plan(n_frames, recipe.model.spec(), recipe.data.pad_frames)
    half, kind = recipe.training.mixed_precision == "bf16", recipe.loss.reconstruction_kind

    def forward(network: nn.Module) -> Tensor:
        """As `TaehvTask.step`: frames and losses in fp32, the network in the recipe's precision."""
        frames = torch.empty(recipe.training.train_batch_size, n_frames, 3, height, width, device="meta")
        latents, decoded = network(frames.bfloat16() if half else frames, plan)
        made, wanted = decoded[:, : plan.target_frames].float(), frames[:, : plan.target_frames]
        return pixel_distance(made, wanted, kind) + flicker_distance(made, wanted, kind) + latent_moments(latents)

    return estimate(model, forward, half, recipe.training.ema_decay > 0)
