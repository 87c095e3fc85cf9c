"""A training step of stage 1: ours, which runs 12 of the transformer's 30 blocks and without gradient, against one that runs all
30 with gradient and keeps the diffusion loss in the graph: with the transformer frozen, and as code does that only leaves its
weights out of the optimizer.

    python benchmarks/fantasy_stage1.py [--part 4 --height 96 --width 160 --num_frames 13 --batch 1 --repeats 3]

A part of the published width, the published 30 blocks split after 12; equal weights, equal clips, all in fp32 on one core.
Both checkpoint every block and every piece of the heads; ours is also shown without checkpointing, which is what the saved
memory can buy. Seconds are CPU seconds of forward and backward, the fastest of a few. Memory is the most of all tensors beside
weights and the branch's gradients that exist at a time (`engine.memory.count` on the real tensors; the transformer's gradients,
where it has any, are added), and what waits for the backward pass.
"""

import argparse
import functools
import time
from dataclasses import replace

import torch
from torch import Tensor

from fantasy_full_size import encoded, randomise
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.world_sizes import SIZES, WorldSpec
from tinyworld.engine.memory import count
from tinyworld.losses.flow import FlowSchedule
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch, Joint
from tinyworld.tasks.fantasy.inputs import assembled, fixed
from tinyworld.tasks.fantasy.made_up import made_up_batch
from tinyworld.tasks.fantasy.objective import flow_losses, geometry_losses, joined


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
    """Stage 1 as one would write it at first: the whole video pass, with gradient."""

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
    for name, value in {"part": 4, "height": 96, "width": 160, "num_frames": 13, "batch": 1, "repeats": 3}.items():
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

    heads_alone = GeometryBranch(spec, "stage1", checkpointing=True)
    heads_alone.checkpointing = False  # the blocks; the heads were told when they were made
    forms: dict[str, tuple[GeometryBranch, WanBackbone]] = {
        "all blocks, weights' gradients": (Everything(spec, "stage1", checkpointing=True), open_),
        "all blocks, frozen weights": (Everything(spec, "stage1", checkpointing=True), frozen),
        "ours": (GeometryBranch(spec, "stage1", checkpointing=True), frozen),
        "ours, heads checkpointed": (heads_alone, frozen),
        "ours, not checkpointed": (GeometryBranch(spec, "stage1", checkpointing=False), frozen),
    }
    seconds = {name: float("inf") for name in forms}
    for branch, _ in forms.values():
        randomise(branch)
    for _ in range(1 + options.repeats):  # in turns, so that what else the machine does meets all of them
        for name, (branch, backbone) in forms.items():
            began = time.process_time()
            losses(branch, backbone).backward()
            seconds[name] = min(seconds[name], time.process_time() - began)
            branch.zero_grad(set_to_none=True)
            backbone.zero_grad(set_to_none=True)
    print(f"{'':<32}{'CPU seconds':>12}{'ratio':>8}{'peak MiB':>10}{'ratio':>8}{'held MiB':>10}{'ratio':>8}")
    first: tuple[float, ...] = ()
    for name, (branch, backbone) in forms.items():
        found = count([backbone, branch], functools.partial(losses, branch, backbone))
        gradients = sum(p.nbytes for p in backbone.parameters() if p.requires_grad) / 2**20
        row = (seconds[name], found.peak / 2**20 + gradients, found.held / 2**20)
        first = first or row
        cells = "".join(
            f"{value:>{wide}.2f}{base / value:>7.2f}x"
            for value, base, wide in zip(row, first, (12, 10, 10), strict=True)
        )
        print(f"{name:<32}{cells}")


if __name__ == "__main__":
    main()
