"""The memory plan of FantasyWorld: what is counted is what a real step holds, and what it proposes fits."""

import shlex
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinyworld.cli.flags import parse_overrides
from tinyworld.config.batch import clips_per_step
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.errors import ConfigError
from tinyworld.core.world_sizes import world_size
from tinyworld.engine.memory import Counted, Sharing, count, standing
from tinyworld.engine.parallel.precision import Forward
from tinyworld.losses.flow import FlowSchedule
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.branch import GeometryBranch
from tinyworld.tasks.build import check_memory
from tinyworld.tasks.fantasy import memory_parts
from tinyworld.tasks.fantasy.inputs import Encoded, assembled, fixed, recalled
from tinyworld.tasks.fantasy.made_up import made_up_batch, made_up_conditions
from tinyworld.tasks.fantasy.memory_parts import stepping
from tinyworld.tasks.fantasy.memory_proposals import proposals
from tinyworld.tasks.fantasy.objective import flow_losses, geometry_losses, joined
from tinyworld.tasks.fantasy.plan_memory import plan_memory
from tinyworld.tasks.memory_advice import apply
from tinyworld.tasks.memory_plan import ALLOWANCE, STEP, VALIDATION

CLIPS = (2, 64, 96, 5)


def demo(stage: int, **changes: Any) -> FantasyRecipe:
    values: dict[str, Any] = {
        "backbone_path": "b",
        "codec_path": "c",
        "device": "cpu",
        "train_batch_size": 4,
        "num_frames": 5,
    }
    if stage == 2:
        values["stage1_checkpoint"] = "s"
    recipe = load_recipe(f"fantasy_demo_stage{stage}", {**values, **changes})
    assert isinstance(recipe, FantasyRecipe)
    return recipe


def really(recipe: FantasyRecipe) -> Counted:
    """A real step of CLIPS, its live tensors counted."""
    spec, loss, schedule, cpu = recipe.spec(), recipe.loss, FlowSchedule(), torch.device("cpu")
    assert recipe.stage != "base"
    backbone = WanBackbone(spec.backbone).cast(torch.bfloat16).requires_grad_(False)
    branch = GeometryBranch(spec, recipe.stage, recipe.training.gradient_checkpointing)
    branch.init_from_backbone(backbone, 0)
    model = Forward(branch, recipe, cpu)

    def run() -> Tensor:
        batch = made_up_batch(*CLIPS)
        known: Encoded = recalled(made_up_conditions(batch, spec.backbone), None, spec.backbone)
        inputs = assembled(known, batch, fixed(CLIPS[0], cpu, camera=True), schedule, None, "uniform")
        flags = inputs.given.camera
        given = (backbone, inputs.noisy, inputs.timestep, inputs.conditions, inputs.rays, flags)
        if recipe.stage == "stage1":
            return geometry_losses(loss, batch, inputs, model(*given, video=True).geometry).total
        velocity, made = model(*given, steered=flags, interact=flags)
        return joined(flow_losses(loss, schedule, inputs, velocity), geometry_losses(loss, batch, inputs, made)).total

    return count([backbone, branch], run)


@pytest.mark.parametrize(("stage", "checkpointing"), [(1, True), (2, True)])
def test_what_is_counted_is_what_a_real_step_holds(stage: int, checkpointing: bool) -> None:
    recipe = demo(stage, gradient_checkpointing=checkpointing, mixed_precision="bf16", backbone_dtype="bf16")
    planned, real = stepping(recipe, CLIPS), really(recipe)
    assert planned.held == pytest.approx(real.held, rel=0.1)
    assert planned.peak == pytest.approx(real.peak, rel=0.1)


@pytest.mark.long
def test_checkpointing_and_scores_of_attention() -> None:
    """Tokens four times as many take four times as much, not sixteen times."""
    checkpointed = demo(2, gradient_checkpointing=True)
    plain = demo(2, gradient_checkpointing=False)
    small, large = stepping(plain, (1, 64, 96, 5)), stepping(plain, (1, 128, 192, 5))
    assert stepping(checkpointed, (1, 64, 96, 5)).held < small.held / 2
    assert 3 < large.held / small.held < 4.2 and large.peak / small.peak < 4.2


@pytest.mark.long
def test_two_counts_tell_of_all_batches() -> None:
    recipe = demo(1)
    size = (5, *CLIPS[1:])
    assert stepping(recipe, size).peak == pytest.approx(memory_parts._stepping(recipe, size).peak, rel=0.03)


def test_the_published_branch_by_strategy() -> None:
    with torch.device("meta"):
        branch: nn.Module = GeometryBranch(world_size("wan_fun_1_3b"), "stage1")
    number = 956_706_040

    def with_strategy(strategy: str, offload: bool = False) -> int:
        return standing(branch, False, False, Sharing(strategy, 8, offload))

    assert with_strategy("ddp") == 16 * number
    assert with_strategy("zero2") == 4 * number + 4 * number + (4 + 8 + 4) * number // 8
    blocks = 18 * 49_986_432
    gathered = 8 * (number - blocks + 2 * 31_086_000)
    assert with_strategy("fsdp2") == pytest.approx(16 * number / 8 + gathered, rel=0.01)
    assert with_strategy("fsdp2", offload=True) == pytest.approx(gathered, rel=0.01)


def test_the_plan_and_its_refusal() -> None:
    plan = plan_memory(demo(2), 1)
    assert set(plan.moments) == {STEP, VALIDATION} and len(plan.standing) == 2
    assert "4 clips of 64 x 96 x 5" in plan.lines()[0] and "the codec" in plan.not_counted[0]
    check_memory(demo(2, gpu_memory="40GiB"), 1)
    with pytest.raises(
        ConfigError, match=r"gpu_memory=1600MiB holds 1.56 GiB.*forward and backward pass \(4 clips"
    ) as no:
        check_memory(demo(2, gpu_memory="1600MiB"), 1)
    assert "--train_batch_size" in str(no.value) or "--gradient_checkpointing" in str(no.value)
    with pytest.raises(ConfigError, match="No batch, clip size or setting"):
        check_memory(demo(2, gpu_memory="1GiB"), 1)


@pytest.mark.parametrize(("share", "processes"), [pytest.param(0.6, 2, marks=pytest.mark.long), (0.3, 1)])
def test_what_is_proposed_fits_and_is_what_is_typed(share: float, processes: int) -> None:
    recipe = demo(1, gradient_checkpointing=False)
    limit = ALLOWANCE + int(share * (plan_memory(recipe, processes).total - ALLOWANCE))
    found = proposals(recipe, processes, limit)
    assert found
    values = {
        leaf: v
        for part in recipe.model_dump(mode="json").values()
        if isinstance(part, dict)
        for leaf, v in part.items()
    }
    for proposal in found:
        typed = load_recipe("fantasy_demo_stage1", {**values, **parse_overrides(shlex.split(proposal.flags))})
        assert typed == apply(recipe, proposal.changes)
        assert plan_memory(typed, processes).total == proposal.total <= limit  # type: ignore[arg-type]
        assert "instead of" in proposal.cost or clips_per_step(typed, processes) == clips_per_step(recipe, processes)


def test_a_made_up_batch_is_valid_everywhere_and_consistent() -> None:
    batch = made_up_batch(2, 32, 48, 5)
    assert batch.mask.all() and batch.usable.all() and batch.frames.shape == (2, 5, 3, 32, 48)
    torch.testing.assert_close(batch.cameras.relative().extrinsics, batch.extrinsics)
    torch.testing.assert_close(batch.points[:, 0, ..., 2], batch.depth[:, 0])
    assert len(batch.split(2)) == 2
