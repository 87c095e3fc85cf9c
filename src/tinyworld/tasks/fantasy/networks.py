"""The networks of a recipe: the video transformer, the geometry branch beside it, and where their weights come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tinyworld.config.schema import FantasyRecipe
from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.core.rng import derive_seed
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.backbone_weights import open_backbone
from tinyworld.models.fantasy.branch import GeometryBranch
from tinyworld.models.fantasy.weights import LineageRow, load_into, read_branch

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Networks:
    """branch: None when the backbone itself is trained. base_digest: of the frozen backbone, empty when it is trained.
    parent: where the branch's weights came from, row by row; empty without a parent."""

    backbone: WanBackbone
    branch: GeometryBranch | None
    base_digest: str
    parent: Sequence[LineageRow] = field(default=())

    @property
    def trainable(self) -> nn.Module:
        return self.backbone if self.branch is None else self.branch


def build_networks(recipe: FantasyRecipe) -> Networks:
    """The networks of a recipe. Raises MissingFileError and WeightsError for weights that are absent or do not fit."""
    spec, seed = recipe.spec(), derive_seed(recipe.run.seed, "init")
    path, own = recipe.find("model.backbone_path"), recipe.find("model.pretrained_model_path")
    if recipe.stage == "base":
        path = own or path
        backbone = WanBackbone(spec.backbone) if path is None else open_backbone(path, torch.float32, spec.backbone)
        if path is None:
            backbone.init_weights(seed)
        return Networks(backbone.requires_grad_(True), None, "")
    assert path is not None  # the rules ask for it
    backbone = open_backbone(path, DTYPES[recipe.model.backbone_dtype], spec.backbone)
    digest = dist.on_main(backbone.digest)
    branch = GeometryBranch(spec, recipe.stage, recipe.training.gradient_checkpointing)
    branch.init_from_backbone(backbone, seed)
    parent = own or recipe.find("model.stage1_checkpoint")
    if parent is None:
        return Networks(backbone, branch, digest)
    state, info = read_branch(parent)
    rows = load_into(branch, state, info, base_digest=digest)
    split = [recipe.run.seed, recipe.data.held_out_fraction]
    if info.meta.get("split", split) != split:
        LOGGER.warning(
            "warning: %s was trained with seed and held_out_fraction %s, this run has %s: scenes that are held out here may have "
            "been trained on there, and the numbers of validations would flatter (keys: run.seed, data.held_out_fraction)",
            *(parent.name, info.meta["split"], split),
        )
    LOGGER.info("from %s:\n%s", parent, lineage_table(rows))
    return Networks(backbone, branch, digest, rows)


def lineage_table(rows: Sequence[LineageRow]) -> str:
    """Part, tensors, parameters and fate, one line each."""
    lines = [f"  {'part':<20}{'tensors':>9}{'parameters':>15}  "]
    lines += [f"  {row.group:<20}{row.tensors:>9}{row.parameters:>15,}  {row.fate}" for row in rows]
    return "\n".join(lines)
