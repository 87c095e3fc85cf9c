"""The loop of denoising: what it makes once is made once, and the latents are those of a loop that makes it at every step."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tinyworld.core.rng import normal
from tinyworld.core.world_sizes import SIZES, WorldSpec
from tinyworld.infer.world.denoise import Given, Networks, sample
from tinyworld.infer.world.schedule import flow_scheduler
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch, Stage
from tinyworld.models.fantasy.prediction import Geometry

DEMO = SIZES["demo"]
SPEC = WorldSpec(replace(DEMO.backbone, text_tokens=512, image_dim=20, image_tokens=5), DEMO.branch)
STEPS = 3


class Anew(Networks):
    """Every pass makes everything itself."""

    def remembered(self, given: Given, beside: Given | None = None) -> Given:
        return given


@torch.no_grad()
def networks(kind: type[Networks], stage: Stage) -> Networks:
    backbone, branch = WanBackbone(SPEC.backbone).requires_grad_(False), GeometryBranch(SPEC, stage)
    backbone.init_weights(0)
    branch.init_from_backbone(backbone, 0)
    generator = torch.Generator().manual_seed(1)
    for parameter in (*backbone.parameters(), *branch.parameters()):
        parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    return kind(backbone, branch)


def loop(made_by: Networks) -> tuple[Tensor, Geometry | None]:
    """Two guided clips, one with a camera."""
    seeds, size, told = [1, 2], (16, 2, 4, 6), torch.tensor([True, False])
    texts = [normal([seed, seed + 9], (512, SPEC.backbone.text_dim)) for seed in (3, 4)]
    rays = normal(seeds, (6, 5, 32, 48))
    conditions = WanConditions(texts[0], normal([5, 6], size), rays, normal(seeds, (5, 20)), told)
    given = Given(conditions, rays, told, torch.ones_like(told))
    empty = given._replace(conditions=conditions._replace(text=texts[1]), interact=torch.zeros_like(told))
    scheduler = flow_scheduler(STEPS)
    scale = torch.tensor([5.0, 2.0])
    return sample(made_by, normal([7, 8], size), given, empty, scale, scheduler, lambda _, __, latents, ___: latents)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_what_no_step_changes_is_made_once(stage: Stage) -> None:
    ours = networks(Networks, stage)
    assert ours.branch is not None
    called: Counter[str] = Counter()
    parts = {"text_embedder", "image_embedder", "control_adapter", "to_k", "add_k_proj", "head_depth", "head_camera"}
    for module in (ours.backbone, ours.branch):
        for name, part in module.named_modules():
            last = name.split(".")[-1]
            if last in parts and ".attn1." not in name:
                part.register_forward_hook(lambda *_, last=last: called.update([last]))
    latents, geometry = loop(ours)
    layers = SPEC.backbone.layers
    once = {"control_adapter": 1, "head_depth": 1, "head_camera": 1, "add_k_proj": layers}
    assert called == once | {"text_embedder": 2, "image_embedder": 2, "to_k": 2 * layers}
    expected, other = loop(networks(Anew, stage))
    assert torch.equal(latents, expected) and latents.std() > 0.1
    assert geometry is not None and other is not None
    assert torch.equal(geometry.depth, other.depth) and torch.equal(geometry.poses[-1], other.poses[-1])
