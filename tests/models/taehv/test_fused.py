"""Folded training: the same results and the same gradients as the plain chain."""

import copy

import pytest
import torch

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld import Taehv
from tinyworld.core.frames import training_plan
from tinyworld.core.variants import VARIANTS

COUNTS = {"taeh3": 22, "taeltx_2": 16, "taeltx2_3": 16}


def step(model: Taehv, frames: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    plan = training_plan(frames.shape[1], model.spec)
    latents, decoded = model(frames, plan)
    (decoded[:, : plan.target_frames] - frames[:, : plan.target_frames]).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return [latents.detach(), decoded.detach()], gradients


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("taew2_1", "taeos1_3", "taeltx2_3")])
def test_results_and_gradients(name: str, checkpointing: bool) -> None:
    plain = formula_model(small_spec(name)).double()
    fused = copy.deepcopy(plain)
    fused.enable_folded_training()
    if checkpointing:
        fused.enable_gradient_checkpointing()
    size = plain.spec.size_multiple
    frames = clip(COUNTS.get(name, 12), size, 2 * size, clips=2).double()
    (wanted, wanted_gradients), (found, gradients) = step(plain, frames), step(fused, frames)
    for left, right in zip(wanted, found, strict=True):
        torch.testing.assert_close(left, right, atol=1e-10, rtol=0)
    assert list(gradients) == list(wanted_gradients) == [name for name, _ in plain.named_parameters()]
    for key, value in wanted_gradients.items():
        torch.testing.assert_close(gradients[key], value, atol=1e-9, rtol=1e-7)


def test_under_autocast_weights_are_folded_in_full_precision() -> None:
    model = formula_model(small_spec("taehv"))
    frames = clip(12)
    with torch.no_grad():
        wanted = model.decode(model.encode(frames))
        model.enable_folded_training()
        with torch.autocast("cpu", torch.bfloat16):
            found = model.decode(model.encode(frames)).float()
    assert 10 * torch.log10(1 / (found - wanted).square().mean()) > 35


def test_sequential_execution_is_not_touched() -> None:
    model = formula_model(small_spec("taehv"))
    frames = clip(12)
    with torch.no_grad():
        wanted = model.encode(frames, mode="sequential")
        model.enable_folded_training()
        assert torch.equal(model.encode(frames, mode="sequential"), wanted)
