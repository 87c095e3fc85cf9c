"""A video world of the demo's size with random weights, as files: transformer, branch of either stage, TAEHV."""

from pathlib import Path

import torch

from tinyworld.core.world_sizes import SIZES
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.backbone_weights import open_backbone, save_backbone
from tinyworld.models.fantasy.branch import GeometryBranch, Stage
from tinyworld.models.fantasy.weights import save_branch
from tinyworld.models.taehv import Taehv

SPEC = SIZES["demo"]
HEIGHT, WIDTH, FRAMES = 32, 48, 5
NARROW = {"encoder_width": 8, "decoder_widths": [16, 8, 8, 8]}


def make_base(folder: Path, seed: int = 0) -> Path:
    backbone = WanBackbone(SPEC.backbone)
    backbone.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():  # the layers that start at zero are to count as well
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    save_backbone(backbone, folder)
    return folder


def make_codec(folder: Path) -> Path:
    torch.manual_seed(0)
    Taehv.from_variant("taew2_1", **NARROW).save_pretrained(folder)
    return folder


def make_branch(file: Path, base: Path, stage: Stage, dtype: torch.dtype, codec: Path | None, seed: int = 1) -> Path:
    """Every tensor random, none zero, so that cameras and both ways of the cross-attention have an effect."""
    backbone = open_backbone(base, dtype)
    branch = GeometryBranch(SPEC, stage)
    branch.init_from_backbone(backbone, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    meta = {"recipe": "small", "clip": [HEIGHT, WIDTH, FRAMES], "codec": None if codec is None else str(codec)}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_branch(branch, file, SPEC, stage, backbone.digest(), meta)
    return file
