"""The camera head: sizes, frames, accumulation, numerics."""

import math

import pytest
import torch
from torch import Tensor

from tinyworld.core.world_sizes import SIZES
from tinyworld.models.fantasy.camera_head import START_POSE, CameraHead

FULL, DEMO = SIZES["wan_fun_1_3b"], SIZES["demo"]
IN_WIDTH = 2 * DEMO.backbone.width


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def camera_head(seed: int = 1) -> CameraHead:
    head = CameraHead(IN_WIDTH, DEMO.branch)
    head.init_weights(seeded(seed))
    return head


def tokens(frames: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, frames, IN_WIDTH, generator=seeded(7))


def count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_parameter_count_of_the_full_size() -> None:
    with torch.device("meta"):
        head = CameraHead(2 * FULL.backbone.width, FULL.branch)
    assert count(head) == 20_239_314
    assert count(head.in_norm) == 6_144
    assert count(head.enter) == 1_770_048
    assert count(head.spread) == 1_329_408
    assert count(head.token_norm, head.trunk_norm) == 2_304
    assert count(head.trunk) == 15_959_808
    assert count(head.embed) == 5_760
    assert count(head.modulation) == 997_056
    assert count(head.out1, head.out2) == 168_777


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_shapes(frames: int) -> None:
    poses = camera_head()(tokens(frames, batch=2))
    assert len(poses) == DEMO.branch.camera_iterations == 4
    assert all(pose.shape == (2, 4 * (frames - 1) + 1, 9) for pose in poses)


def test_shapes_on_the_meta_device() -> None:
    with torch.device("meta"):
        head = CameraHead(2 * FULL.backbone.width, FULL.branch)
        poses = head(torch.empty(2, 21, 2 * FULL.backbone.width))
    assert [pose.shape for pose in poses] == [(2, 81, 9)] * 4


def test_every_iteration_starts_near_the_identity_with_an_open_field_of_view() -> None:
    for pose in camera_head()(tokens(6)):
        torch.testing.assert_close(pose, torch.tensor(START_POSE).expand_as(pose), rtol=0, atol=0.3)


def test_iterations_add_up_and_are_shown_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    head = camera_head()
    shown: list[Tensor] = []
    changes: list[Tensor] = []
    original = head._change

    def recorded(values: Tensor, pose: Tensor) -> Tensor:
        shown.append(pose)
        changes.append(original(values, pose))
        return changes[-1]

    monkeypatch.setattr(head, "_change", recorded)
    poses = head(tokens(2))
    assert [pose.requires_grad for pose in shown] == [True, False, False, False]
    total = head.empty_pose.expand_as(poses[0])
    for k, pose in enumerate(poses):
        torch.testing.assert_close(shown[k], total)
        total = total + changes[k]
        torch.testing.assert_close(pose, total)


def test_a_field_of_view_is_never_negative_and_the_rest_is_linear() -> None:
    head = camera_head()
    torch.nn.init.constant_(head.out2.bias, -1.0)
    last = head(tokens(2))[-1]
    assert (last[..., 7:] == 0).all()
    assert (last[..., :7] < 0).all()


def test_frames_of_a_clip_see_each_other_and_clips_do_not() -> None:
    head = camera_head()
    for block in head.trunk:
        torch.nn.init.ones_(block.scale1)
    batch = tokens(3, batch=3)
    with torch.no_grad():
        together = head(batch)[-1]
        for clip in range(3):
            torch.testing.assert_close(together[clip : clip + 1], head(batch[clip : clip + 1])[-1], rtol=0, atol=1e-6)
        batch[0, 2] += 1.0
        changed = (head(batch)[-1] - together).abs().amax(-1)
    assert (changed[0] > 0).all()
    assert (changed[1:] < 1e-6).all()


def test_each_frame_has_the_token_of_its_latent_frame() -> None:
    head = camera_head()
    with torch.no_grad():
        before = head._frames(head.enter(tokens(4)))
        for latent in range(4):
            changed = tokens(4)
            changed[:, latent] += torch.randn(IN_WIDTH, generator=seeded(latent))
            moved = (head._frames(head.enter(changed)) - before).abs().amax(dim=(0, 2)) > 0
            expected = [(frame + 3) // 4 == latent for frame in range(13)]
            assert moved.tolist() == expected


@pytest.mark.parametrize("frames", [1, 3])
def test_every_parameter_has_a_finite_gradient(frames: int) -> None:
    head = camera_head()
    token = tokens(frames).requires_grad_()
    sum((pose - 1).square().mean() for pose in head(token)).backward()
    for tensor in (token, *head.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert token.grad.abs().max() > 0
    assert head.empty_pose.grad.abs().min() > 0


def test_init_sets_every_parameter_from_the_seed() -> None:
    with torch.device("meta"):
        head = CameraHead(IN_WIDTH, DEMO.branch)
    head.to_empty(device="cpu")
    for parameter in head.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    head.init_weights(seeded(1))
    for ours, theirs in zip(head.parameters(), camera_head().parameters(), strict=True):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, theirs)
    assert not torch.equal(camera_head(2).enter.weight, head.enter.weight)


@pytest.mark.parametrize("autocast", [True, False])
def test_bf16_gives_fp32_poses_near_the_fp32_ones(autocast: bool) -> None:
    head, token = camera_head(), tokens(3)
    with torch.no_grad():
        expected = head(token)
        if not autocast:
            head, token = head.bfloat16(), token.bfloat16()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            poses = head(token)
    for ours, theirs in zip(poses, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-3)
        assert not torch.equal(ours, ours.bfloat16().float())
