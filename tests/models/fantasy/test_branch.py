"""The geometry branch as a whole: sizes, stages, samples, gradients, starting weights."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.fantasy import branches
from tests.models.fantasy.worlds import small_backbone
from tinyworld.core.errors import ConfigError
from tinyworld.core.world_sizes import SIZES
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.branch import GeometryBranch, Joint, Stage
from tinyworld.models.fantasy.model import FantasyWorldTransformer

STAGE_ONE = {
    "latent_bridge": 4_730_368,
    "geo_blocks": 899_755_776,
    "head_depth": 15_459_490,
    "head_point": 15_459_556,
    "head_camera": 20_239_314,
    "pose_enc": 1_046_176,
    "tokens": 15_360,
}
STAGE_TWO = STAGE_ONE | {"camera_adapters": 28_329_984, "irg_cross_attns": 191_296_512}
INTERACT = torch.tensor([True, True, False])
STEERED = torch.tensor([False, True, True])


@pytest.fixture(scope="module")
def base() -> WanBackbone:
    return small_backbone(branches.SPEC.backbone)


@pytest.mark.parametrize(
    ("stage", "parts", "total"), [("stage1", STAGE_ONE, 956_706_040), ("stage2", STAGE_TWO, 1_176_332_536)]
)
def test_parameters_at_full_size(stage: Stage, parts: dict[str, int], total: int) -> None:
    with torch.device("meta"):
        branch = GeometryBranch(SIZES["wan_fun_1_3b"], stage)
    counts: Counter[str] = Counter()
    for name, parameter in branch.named_parameters():
        group = name.split(".")[0]
        counts["tokens" if group.startswith("token") else group] += parameter.numel()
    assert counts == parts
    assert counts.total() == total
    assert sum(p.numel() for p in branch.geo_blocks[0].parameters()) == 49_986_432
    assert branch.token_camera.shape == (1, 2, 1, 1536) and branch.tokens_register.shape == (1, 2, 4, 1536)
    if stage == "stage2":
        assert {sum(p.numel() for p in adapter.parameters()) for adapter in branch.camera_adapters} == {2_360_832}
        assert {sum(p.numel() for p in cross.parameters()) for cross in branch.irg_cross_attns} == {10_627_584}


def test_the_demo_size_has_the_same_parts() -> None:
    branch = GeometryBranch(SIZES["demo"], "stage2")
    assert (len(branch.geo_blocks), len(branch.camera_adapters), len(branch.irg_cross_attns)) == (4, 4, 4)
    assert set(branch.sharded_blocks) <= {name for name, _ in branch.named_modules()}


@pytest.mark.parametrize("precision", ["fp32", "autocast", "cast"])
def test_stage_two_starts_as_the_backbone_and_stage_one(precision: str) -> None:
    base = small_backbone(branches.SPEC.backbone)
    if precision == "cast":
        base.cast(torch.bfloat16)
    first, second = branches.branch("stage1", base), branches.branch("stage2", base)
    branches.stir(first)
    missing = second.load_state_dict(first.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"camera_adapters", "irg_cross_attns"}
    values = branches.batch()
    with torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else nullcontext():
        velocity = base(values["noisy"], values["timestep"], values["conditions"])
        alone, joint = first(base, **values), second(base, **values)
    assert alone.velocity is None
    assert velocity.abs().amax() > 0.01
    assert torch.equal(joint.velocity, velocity)
    for ours, theirs in zip(branches.tensors(joint), branches.tensors(alone), strict=False):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_a_batch_of_three_is_three_of_one(base: WanBackbone) -> None:
    branch = stirred("stage2", base)
    values = branches.batch() | {"interact": INTERACT, "steered": STEERED}
    with torch.no_grad():
        together = branch(base, **values)
        for index in range(3):
            alone = branch(base, **branches.sample(values, index))
            for ours, theirs in zip(branches.tensors(together), branches.tensors(alone), strict=True):
                torch.testing.assert_close(ours[index : index + 1], theirs, rtol=1e-5, atol=1e-5)


def test_each_mask_shuts_one_path_of_one_sample(base: WanBackbone) -> None:
    """Sample 2 does not interact, sample 0 is not steered, sample 1 is not shown its rays."""
    branch = stirred("stage2", base)
    values = branches.batch() | {"interact": INTERACT, "steered": STEERED}
    with torch.no_grad():
        before = branch(base, **values)
        other = branch(base, **(values | {"rays": values["rays"].flip(2)}))
        branches.stir(branch.irg_cross_attns, seed=9)
        crossed = branch(base, **values)
        none = torch.zeros(3, dtype=torch.bool)
        deaf = branch(base, **(values | {"interact": none, "steered": none, "shown": none}))
        deaf_other = branch(
            base, **(values | {"interact": none, "steered": none, "shown": none, "rays": values["rays"].flip(2)})
        )
        plain = base(values["noisy"], values["timestep"], values["conditions"])
    assert [torch.equal(before.velocity[i], crossed.velocity[i]) for i in range(3)] == [False, False, True]
    assert [torch.equal(before.geometry.depth[i], crossed.geometry.depth[i]) for i in range(3)] == [False, False, True]
    # Rays reach sample 0 through the bridge (and back by interaction), 1 through adapters, 2 through both.
    assert not any(torch.equal(before.geometry.points[i], other.geometry.points[i]) for i in range(3))
    assert torch.equal(deaf.velocity, plain)
    assert all(torch.equal(a, b) for a, b in zip(branches.tensors(deaf), branches.tensors(deaf_other), strict=True))


def test_shown_and_steered_are_separate_doors(base: WanBackbone) -> None:
    branch = stirred("stage2", base)
    shut = torch.zeros(3, dtype=torch.bool)
    values = branches.batch() | {"interact": shut, "steered": shut}
    flipped = values | {"rays": values["rays"].flip(2)}
    with torch.no_grad():
        shown, shown_other = branch(base, **values), branch(base, **flipped)
        steered = branch(base, **(values | {"shown": shut, "steered": ~shut}))
        steered_other = branch(base, **(flipped | {"shown": shut, "steered": ~shut}))
    assert torch.equal(shown.velocity, shown_other.velocity)
    same = [torch.equal(shown.geometry.poses[-1][i], shown_other.geometry.poses[-1][i]) for i in range(3)]
    assert same == [False, True, False]
    assert not any(torch.equal(steered.velocity[i], steered_other.velocity[i]) for i in range(3))


def test_stage_one_runs_the_first_blocks_only(base: WanBackbone) -> None:
    branch = branches.branch("stage1", base)
    seen: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, index=index: seen.append(index))
        for index, block in enumerate(base.transformer.blocks)
    ]
    values = branches.batch(1)
    short = branch(base, **values)
    assert seen == [0, 1] and short.velocity is None
    seen.clear()
    monitored = branch(base, **values, video=True)
    assert seen == list(range(6))
    for handle in handles:
        handle.remove()
    assert torch.equal(monitored.velocity, base(values["noisy"], values["timestep"], values["conditions"]))
    assert not monitored.velocity.requires_grad
    assert torch.equal(monitored.geometry.depth, short.geometry.depth)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_steps_and_heads_are_wired_in_order(base: WanBackbone, stage: Stage) -> None:
    """Frame and global attention, exchange, MLP; heads read the collected steps' patches and the last camera token."""
    branch = stirred(stage, base)
    inputs: dict[str, tuple[Any, ...]] = {}
    outputs: dict[str, Any] = {}

    def note(name: str) -> Any:
        def hook(_: object, given: tuple[Any, ...], made: Any) -> None:
            inputs[name], outputs[name] = given, made

        return hook

    for name, part in branch.named_modules():
        if name in branch.sharded_blocks or name in ("head_depth", "head_point", "head_camera"):
            part.register_forward_hook(note(name))
    with torch.no_grad():
        branch(base, **branches.batch(1))
    collected = []
    for step in range(4):
        framed, attended = outputs[f"geo_blocks.{step}.attend"]
        if stage == "stage2":
            assert torch.equal(inputs[f"irg_cross_attns.{step}"][1], attended)
            attended = outputs[f"irg_cross_attns.{step}"][1]
        assert torch.equal(inputs[f"geo_blocks.{step}.feed"][0], attended)
        fed = outputs[f"geo_blocks.{step}.feed"]
        if step < 3:
            assert torch.equal(inputs[f"geo_blocks.{step + 1}.attend"][0], fed)
        collected.append(torch.cat([framed, fed], -1))
    for head in ("head_depth", "head_point"):
        levels, grid = inputs[head]
        assert grid == branches.GRID
        assert all(torch.equal(a, collected[i][:, :, 5:]) for a, i in zip(levels, (3, 2, 1, 0), strict=True))
    assert torch.equal(inputs["head_camera"][0], collected[3][:, :, 0])


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_every_parameter_learns_and_the_backbone_does_not(base: WanBackbone, stage: Stage) -> None:
    branch = stirred(stage, base)
    objective(branch(base, **branches.batch())).backward()
    silent = [name for name, p in branch.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert all(p.grad is None for p in base.parameters())


def test_at_the_start_of_stage_two_all_new_parts_are_within_reach(base: WanBackbone) -> None:
    branch = branches.branch("stage2", base)
    branches.stir(branch.pose_enc)
    objective(branch(base, **branches.batch())).backward()
    for cross in branch.irg_cross_attns:
        assert cross.gate_video.grad.abs().sum() > 0 and cross.gate_geometry.grad.abs().sum() > 0
    assert all(adapter.linear.weight.grad.abs().sum() > 0 for adapter in branch.camera_adapters)


def test_the_geometry_loss_reaches_the_camera_adapters(base: WanBackbone) -> None:
    branch = branches.branch("stage2", base)
    branches.stir(branch.pose_enc)
    joint = branch(base, **branches.batch())
    joint.geometry.depth.log().square().mean().backward()
    assert all(adapter.linear.weight.grad.abs().sum() > 0 for adapter in branch.camera_adapters)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_checkpointing_changes_no_gradient(base: WanBackbone, stage: Stage, half: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        branch = stirred(stage, base, checkpointing)
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            joint = branch(
                base, **branches.batch(1)
            )  # of several clips the heads take one at a time: sums in another order
        objective(joint).backward()
        gradients.append({name: p.grad for name, p in branch.named_parameters()})
    for name, plain in gradients[0].items():
        assert torch.equal(plain, gradients[1][name]), name


def test_a_backbone_in_bf16_feeds_a_branch_in_fp32(base: WanBackbone) -> None:
    light = small_backbone(branches.SPEC.backbone).cast(torch.bfloat16)
    branch = stirred("stage2", base)
    joint = branch(light, **branches.batch(2))
    exact = branch(base, **branches.batch(2))
    assert {value.dtype for value in joint.geometry[:4]} == {torch.float32}
    torch.testing.assert_close(joint.geometry.depth, exact.geometry.depth, rtol=0.1, atol=0.1)
    objective(joint).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in branch.parameters())


def test_shapes_of_all_outputs(base: WanBackbone) -> None:
    joint = branches.branch("stage2", base)(base, **branches.batch(2))
    frames, height, width = 9, 32, 48
    geometry = joint.geometry
    assert joint.velocity.shape == (2, 16, 3, 4, 6)
    assert geometry.depth.shape == geometry.depth_confidence.shape == (2, frames, height, width)
    assert geometry.points.shape == (2, frames, height, width, 3)
    assert geometry.point_confidence.shape == (2, frames, height, width)
    assert [pose.shape for pose in geometry.poses] == [(2, frames, 9)] * 2


def test_a_single_picture(base: WanBackbone) -> None:
    values = branches.batch(1)
    picture = {key: values[key][:, :, :1] for key in ("noisy", "rays")}
    conditions = values["conditions"]._replace(image=values["conditions"].image[:, :, :1], camera=picture["rays"])
    joint = stirred("stage2", base)(base, **(values | picture | {"conditions": conditions}))
    assert joint.geometry.points.shape == (1, 1, 32, 48, 3)
    objective(joint).backward()


def test_starting_weights_are_a_function_of_seed_and_backbone(base: WanBackbone) -> None:
    before = torch.get_rng_state()
    one = branches.branch("stage2", base)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1234)
    two, other = branches.branch("stage2", base), branches.branch("stage2", base, seed=1)
    branches.stir(two)
    two.init_from_backbone(base, 0)  # leaves nothing as it was
    first = branches.branch("stage1", base).state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
        assert name not in first or torch.equal(value, first[name]), name
    assert not torch.equal(one.geo_blocks[0].feed.up.weight, other.geo_blocks[0].feed.up.weight)


def test_attention_starts_as_the_backbones(base: WanBackbone) -> None:
    branch = branches.branch("stage1", base)
    for index, block in enumerate(branch.geo_blocks):
        wan = base.transformer.blocks[2 + index]
        for attention in (block.attend.frame, block.attend.all):
            theirs = [wan.attn1.to_q.weight, wan.attn1.to_k.weight, wan.attn1.to_v.weight]
            assert torch.equal(attention.qkv.weight, torch.cat(theirs))
            assert torch.equal(attention.proj.weight, wan.attn1.to_out[0].weight)
        table = wan.scale_shift_table[0]
        assert torch.equal(block.attend.modulation, table[[0, 1, 0, 1]])
        assert torch.equal(block.feed.modulation, table[[3, 4]])
        assert (block.feed.scale == 0.01).all() and (block.attend.scale_all == 0.01).all()
    assert 1e-7 < branch.tokens_register.std() < 1e-5


def test_what_does_not_fit_is_refused(base: WanBackbone) -> None:
    branch, values = branches.branch("stage1", base), branches.batch(1)
    with pytest.raises(ValueError, match="rays of latents"):
        branch(base, **(values | {"rays": values["rays"][:, :, 1:]}))
    with pytest.raises(ValueError, match="stage 2"):
        branch(base, **values, interact=values["shown"])


def test_the_guides_way_to_a_branch(base: WanBackbone) -> None:
    transformer = FantasyWorldTransformer(base, branches.SPEC.branch)
    with pytest.raises(AttributeError):
        transformer.latent_bridge
    with pytest.raises(ConfigError, match="enable_fantasy_world_mode"):
        transformer.load_trained("absent.safetensors")
    with pytest.raises(ConfigError, match="at most 2"):
        transformer.enable_fantasy_world_mode(split_layer=3)
    with pytest.raises(ConfigError, match="stage1"):
        transformer.enable_fantasy_world_mode(split_layer=2, training_stage="stage")
    transformer.enable_fantasy_world_mode(split_layer=2, training_stage="stage1")
    assert transformer.latent_bridge is transformer.branch.latent_bridge
    with pytest.raises(AttributeError):
        transformer.irg_cross_attns
    values = branches.batch(1)
    joint = transformer(**values)
    assert torch.equal(joint.velocity, base(values["noisy"], values["timestep"], values["conditions"]))
    trained = {name.split(".")[0] for name, p in transformer.named_parameters() if p.requires_grad}
    assert trained == {"branch"}


def stirred(stage: Stage, base: WanBackbone, checkpointing: bool = False) -> GeometryBranch:
    branch = branches.branch(stage, base, checkpointing)
    branches.stir(branch)
    return branch


def objective(joint: Joint) -> Tensor:
    """Something that every output has a share in."""
    total: Any = 0
    for value in branches.tensors(joint):
        total = total + (value * torch.linspace(-1, 1, value.numel()).view_as(value)).mean()
    return total
