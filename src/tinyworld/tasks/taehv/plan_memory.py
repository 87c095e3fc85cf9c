"""Memory of the autoencoder's training step, before a weight is loaded."""

import torch
from torch import Tensor, nn

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.frames import training_plan
from tinyworld.engine.memory import MemoryEstimate, estimate
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
    half = recipe.training.mixed_precision == "bf16"

    def forward(network: nn.Module) -> Tensor:
        dtype = torch.bfloat16 if half else torch.float32
        clip = torch.empty(recipe.training.train_batch_size, n_frames, 3, height, width, dtype=dtype, device="meta")
        latents, decoded = network(clip, plan)
        return (decoded[:, : plan.target_frames] - clip[:, : plan.target_frames]).square().mean() + latents.mean()

    return estimate(model, forward, half, recipe.training.ema_decay > 0)
