"""Memory of the autoencoder's training step, before a weight is loaded."""

import torch
from torch import Tensor, nn

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.frames import training_plan
from tinyworld.engine.memory import MemoryEstimate, estimate
from tinyworld.models.taehv import Taehv
from tinyworld.tasks.taehv.objective import Objective

Clips = tuple[int, int, int, int]
"""Clips in a micro-batch, and their height, width and n_frames."""


def largest_batch(recipe: TaehvRecipe) -> tuple[Clips, MemoryEstimate]:
    """The micro-batch of all stages that needs most, and what the student needs for it.

    Not counted: the reference VAE, LPIPS and Seraena's discriminator and buffer.
    """
    clips = [(stage.batch, *bucket) for stage in recipe.stages() for bucket in stage.buckets]
    return max(((size, _estimate(recipe, *size)) for size in clips), key=lambda pair: pair[1].total)


def _estimate(recipe: TaehvRecipe, batch: int, height: int, width: int, n_frames: int) -> MemoryEstimate:
    spec, part = recipe.spec(), recipe.model.train_part
    with torch.device("meta"):
        model = Taehv(spec)
        side = spec.spatial_compression
        plan = training_plan(n_frames, spec, recipe.data.pad_frames)
        latents = torch.empty(batch, plan.latent_frames, spec.latent_channels, height // side, width // side)
    model.encoder.requires_grad_(part != "decoder")
    model.decoder.requires_grad_(part != "encoder")
    if recipe.training.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    half = recipe.training.mixed_precision == "bf16"
    objective = Objective(recipe, None, None, None)

    def forward(network: nn.Module) -> Tensor:
        """As `TaehvTask.step`: frames and losses in fp32, the network in the recipe's precision."""
        frames = torch.empty(batch, n_frames, 3, height, width, device="meta")
        taught = latents if recipe.distils else None
        encoded, decoded = network(
            frames.bfloat16() if half else frames,
            plan,
            taught.bfloat16() if half and taught is not None else taught,
            encode=not recipe.distils or part != "decoder",
            decode=not recipe.distils or part != "encoder",
        )
        return objective(frames, plan, encoded, decoded, taught, 0).total

    return estimate(model, forward, half, recipe.training.ema_decay > 0)
