"""A training step of stage 1: ours, which runs 12 of the transformer's 30 blocks and without gradient, against one that runs all
30 with gradient and keeps the diffusion loss in the graph: with the transformer frozen, and as code does that only leaves its
weights out of the optimizer.

    python benchmarks/fantasy_stage1.py [--part 4 --height 160 --width 272 --num_frames 21 --batch 1 --repeats 2]

A part of the published width, the published 30 blocks split after 12; equal weights, equal clips, all in fp32 on one core.
The others checkpoint every block whole and each head as one; "our heads" work in pieces, as ours do. At a quarter of the width
160 x 272 x 21 has the share of attention that the recipe has at full width with 336 x 592 x 21, about four times the tokens.
Seconds are CPU seconds of forward and backward, the fastest and slowest of a few. Memory is the most of all tensors beside
weights and the branch's gradients that exist at a time (`engine.memory.count` on the real tensors). The transformer's gradients
are added, where it has any: whoever clears those of the optimizer's parameters alone keeps them from step to step.
"""

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fantasy_full_size import encoded, randomise
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.world_sizes import SIZES, WorldSpec
from tinyworld.engine.memory import Counted, count
from tinyworld.losses.flow import FlowSchedule
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch, Joint
from tinyworld.models.fantasy.dpt import DptHead
from tinyworld.models.fantasy.temporal import CausalConv
from tinyworld.tasks.fantasy.inputs import assembled, fixed
from tinyworld.tasks.fantasy.made_up import made_up_batch
from tinyworld.tasks.fantasy.objective import flow_losses, geometry_losses, joined

ALL = 10**6
"""Latent frames, more than any clip has."""


def scaled(part: int) -> WorldSpec:
    """The published sizes at a part of their width: 4 is a quarter."""
    full = SIZES["wan_fun_1_3b"]
    backbone = replace(
        full.backbone, heads=12 // part, ffn=8960 // part, text_dim=64, text_tokens=16, image_dim=None, freq_dim=64
    )
    sizes = full.branch
    branch = replace(
        sizes,
        heads=12 // part,
        ffn=sizes.ffn // part,
        bridge_width=512 // part,
        bridge_heads=8 // part,
        dpt_channels=tuple(width // part for width in sizes.dpt_channels),
        dpt_fused=128 // part,
        camera_width=576 // part,
        camera_heads=3,
        cross_width=1152 // part,
        cross_heads=12 // part,
        pose_channels=160 // part,
    )
    return WorldSpec(backbone, branch)


class Everything(GeometryBranch):
    """Stage 1 as one would write it at first: the whole video pass, with gradient; every block and each head one checkpoint, and
    the heads' convolutions over time as torch has them."""

    def plainly(self) -> "Everything":
        for part in self.modules():
            if isinstance(part, DptHead):
                part.chunk = ALL
            if isinstance(part, CausalConv):
                part._convolved = part.conv.forward  # type: ignore[method-assign, assignment]
        return self

    def _saving(self, step: Callable[..., Any], *arguments: Any) -> Any:
        return checkpoint(step, *arguments, use_reentrant=False)

    def _first_stage(
        self,
        backbone: WanBackbone,
        noisy: Tensor,
        timestep: Tensor,
        conditions: WanConditions,
        camera: Tensor,
        shown: Tensor,
        video: bool,
    ) -> Joint:
        state = backbone.begin(noisy, timestep, conditions)
        hidden = feature = state.hidden.detach().requires_grad_()
        for index in range(self.spec.backbone.layers):
            hidden = self._saving(backbone.block, index, hidden, state)
            feature = hidden if index == self.spec.branch.split - 1 else feature
        tables = self._tables(state)
        geometry, features = self._enter(feature, camera, shown, state.grid), []
        for index in range(self.spec.geo_blocks):
            geometry, collected = self._saving(self._geometry_step, index, geometry, state, tables)
            features.append(self._wanted(index, collected))
        return Joint(backbone.end(hidden, state), self._predict(features, state.grid))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"part": 4, "height": 160, "width": 272, "num_frames": 21, "batch": 1, "repeats": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = scaled(options.part)
    recipe = load_recipe("fantasy_stage1", complete=False)
    assert isinstance(recipe, FantasyRecipe)
    loss, schedule = recipe.loss, FlowSchedule(recipe.loss.flow_shift)
    frozen, open_ = WanBackbone(spec.backbone).requires_grad_(False), WanBackbone(spec.backbone)
    for backbone in (frozen, open_):
        backbone.init_weights(0)
    batch = made_up_batch(options.batch, options.height, options.width, options.num_frames)
    given = fixed(options.batch, torch.device("cpu"), camera=True)
    inputs = assembled(encoded(spec.backbone, batch), batch, given, schedule, None, loss.timestep_sampling)

    def losses(branch: GeometryBranch, backbone: WanBackbone) -> Tensor:
        velocity, made = branch(
            backbone, inputs.noisy, inputs.timestep, inputs.conditions, inputs.rays, inputs.given.camera
        )
        terms = geometry_losses(loss, batch, inputs, made)
        return (terms if velocity is None else joined(terms, flow_losses(loss, schedule, inputs, velocity))).total

    forms: dict[str, tuple[GeometryBranch, WanBackbone]] = {
        "all blocks, weights' gradients": (Everything(spec, "stage1", checkpointing=True).plainly(), open_),
        "all blocks, frozen weights": (Everything(spec, "stage1", checkpointing=True).plainly(), frozen),
        "all blocks, our heads": (Everything(spec, "stage1", checkpointing=True), open_),
        "ours": (GeometryBranch(spec, "stage1", checkpointing=True), frozen),
    }
    memory: dict[str, Counted] = {}
    for name, (branch, backbone) in forms.items():  # the first passes, which are not timed
        randomise(branch)
        memory[name] = count([backbone, branch], functools.partial(losses, branch, backbone))
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(options.repeats):  # in turns, so that what else the machine does meets all of them
        for name, (branch, backbone) in forms.items():
            began = time.process_time()
            losses(branch, backbone).backward()
            seconds[name].append(time.process_time() - began)
            branch.zero_grad(set_to_none=True)
            backbone.zero_grad(set_to_none=True)
    backbones = {name: backbone for name, (_, backbone) in forms.items()}
    show(backbones, seconds, memory)


def show(backbones: dict[str, WanBackbone], seconds: dict[str, list[float]], memory: dict[str, Counted]) -> None:
    """The table, each form beside the first."""
    print(f"{'':<32}{'CPU seconds':>12}{'ratio':>8}{'slowest':>9}{'peak MiB':>10}{'ratio':>8}")
    first: tuple[float, ...] = ()
    for name, backbone in backbones.items():
        gradients = sum(p.nbytes for p in backbone.parameters() if p.requires_grad)
        row = (min(seconds[name]), (memory[name].peak + gradients) / 2**20)
        first = first or row
        ratios = [base / value for value, base in zip(row, first, strict=True)]
        print(f"{name:<32}{row[0]:>12.2f}{ratios[0]:>7.2f}x{max(seconds[name]):>9.2f}{row[1]:>10.1f}{ratios[1]:>7.2f}x")


if __name__ == "__main__":
    main()
