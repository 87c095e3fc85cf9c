"""What a recipe trains and what stays frozen, part by part, without weights and without data."""

from dataclasses import dataclass

import torch

from tinyworld.config.schema import FantasyRecipe
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.branch import GeometryBranch


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by part."""

    trained: dict[str, int]
    frozen: dict[str, int]


def count_parameters(recipe: FantasyRecipe) -> Parameters:
    """Counted on modules without memory, as they are built for training."""
    spec = recipe.spec()
    backbone: dict[str, int] = {}
    for name, parameter in WanBackbone.hollow(spec.backbone).named_parameters():
        part = name.removeprefix("transformer.").split(".")[0]
        backbone[part] = backbone.get(part, 0) + parameter.numel()
    if recipe.stage == "base":
        return Parameters(backbone, {})
    with torch.device("meta"):
        branch = GeometryBranch(spec, recipe.stage)
    trained: dict[str, int] = {}
    for name, parameter in branch.named_parameters():
        part = name.split(".")[0]
        trained[part] = trained.get(part, 0) + parameter.numel()
    return Parameters(trained, backbone)
