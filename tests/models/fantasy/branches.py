"""Tiny geometry branches for tests, and batches for them."""

from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.core.rng import normal
from tinyworld.core.world_sizes import BackboneSpec, BranchSpec, WorldSpec
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch, Joint, Stage

SPEC = WorldSpec(
    BackboneSpec(layers=6, heads=2, head_dim=24, ffn=64, text_dim=8, text_tokens=4, image_dim=None, freq_dim=32),
    BranchSpec(
        split=2, heads=2, ffn=80, bridge_width=16, bridge_heads=2, collect=(3, 2, 1, 0),
        dpt_channels=(16, 16, 16, 16), dpt_fused=16, camera_width=24, camera_heads=2, camera_blocks=1,
        cross_width=24, cross_heads=2, pose_channels=12, camera_iterations=2,
    ),
)  # fmt: skip
GRID = (3, 2, 3)
"""Latent frames, rows and columns of tokens."""


def branch(stage: Stage, base: WanBackbone, checkpointing: bool = False, seed: int = 0) -> GeometryBranch:
    made = GeometryBranch(SPEC, stage, checkpointing)
    made.init_from_backbone(base, seed)
    return made


@torch.no_grad()
def stir(module: nn.Module, seed: int = 5, size: float = 0.05) -> None:
    """Move every parameter off its starting value: what starts at zero takes part then."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter += size * torch.randn(parameter.shape, generator=generator)


def batch(count: int = 3, seed: int = 3) -> dict[str, Any]:
    """Arguments of the branch's forward, but for the backbone and the masks of stage 2."""
    frames, rows, columns = GRID
    seeds = [seed * 100 + index for index in range(count)]
    latents = (16, frames, 2 * rows, 2 * columns)
    rays = normal([item + 7 for item in seeds], (6, 4 * (frames - 1) + 1, 16 * rows, 16 * columns))
    conditions = WanConditions(normal(seeds, (4, 8)), normal([item + 5 for item in seeds], latents), rays, None)
    return {
        "noisy": normal([item + 1 for item in seeds], latents),
        "timestep": torch.tensor([900.0, 500.0, 20.0])[:count],
        "conditions": conditions,
        "rays": rays,
        "shown": torch.tensor([True, False, True])[:count],
    }


def sample(values: dict[str, Any], index: int) -> dict[str, Any]:
    """The batch of one that holds sample `index`."""

    def cut(value: Any) -> Any:
        return value[index : index + 1] if isinstance(value, Tensor) else value

    return {
        key: WanConditions(*map(cut, value)) if isinstance(value, WanConditions) else cut(value)
        for key, value in values.items()
    }


def tensors(joint: Joint) -> list[Tensor]:
    """All of an output, velocity last."""
    *dense, poses = joint.geometry
    return [*dense, *poses, *([] if joint.velocity is None else [joint.velocity])]
