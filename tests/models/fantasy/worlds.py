"""Small video transformers and inputs for them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tinyworld.core.world_sizes import BackboneSpec
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions

SMALL = BackboneSpec(layers=3, heads=2, head_dim=12, ffn=32, text_dim=16, text_tokens=4, image_dim=None, freq_dim=32)
WITH_IMAGE = replace(SMALL, layers=2, text_tokens=512, image_dim=20)


def small_backbone(spec: BackboneSpec = SMALL, seed: int = 0) -> WanBackbone:
    """Every tensor random, none zero: each contributes to the output."""
    backbone = WanBackbone(spec).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in backbone.named_parameters():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(centre + 0.15 * torch.randn(parameter.shape, generator=generator))
    return backbone


def inputs(
    spec: BackboneSpec = SMALL,
    batch: int = 2,
    grid: tuple[int, int, int] = (2, 4, 6),
    camera: bool = True,
    seed: int = 1,
) -> tuple[Tensor, Tensor, WanConditions]:
    """Noisy latents, timesteps and conditions; the grid is t h w of the latents."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    t, h, w = grid
    image = torch.zeros(batch, spec.latent_channels, *grid)
    image[:, :, 0] = normal(batch, spec.latent_channels, h, w)
    rays = normal(batch, 6, 4 * t - 3, 8 * h, 8 * w) if camera else None
    clip = None if spec.image_dim is None else normal(batch, spec.image_tokens, spec.image_dim)
    conditions = WanConditions(normal(batch, spec.text_tokens, spec.text_dim), image, rays, clip)
    return normal(batch, spec.latent_channels, *grid), torch.linspace(50.0, 900.0, batch), conditions


def one(arguments: tuple[Tensor, Tensor, WanConditions], index: int) -> tuple[Tensor, Tensor, WanConditions]:
    """A batch of one of its samples."""
    noisy, timestep, conditions = arguments
    pick: Any = slice(index, index + 1)
    return noisy[pick], timestep[pick], WanConditions(*(None if value is None else value[pick] for value in conditions))
