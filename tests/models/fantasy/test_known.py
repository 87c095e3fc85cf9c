"""What sampling makes once: the same numbers bit for bit, nothing of it made again, and its memory."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.models.fantasy import branches
from tests.models.fantasy.worlds import SMALL, WITH_IMAGE, inputs, small_backbone
from tinyworld.core.world_sizes import SIZES, BackboneSpec
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions

SPECS = pytest.mark.parametrize("spec", [SMALL, WITH_IMAGE], ids=["text", "text and image"])
STEERED = torch.tensor([True, False])


def calls_of(backbone: WanBackbone) -> list[str]:
    """Names of the parts that are called from now on and look at conditions alone."""
    called: list[str] = []
    alone = ("to_k", "to_v", "add_k_proj", "add_v_proj", "text_embedder", "image_embedder", "control_adapter")
    for name, part in backbone.named_modules():
        if name.endswith(alone) and ".attn1." not in name:
            part.register_forward_hook(lambda *_, name=name: called.append(name))
    return called


@SPECS
@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
def test_remembered_conditions_give_the_same_velocity(spec: BackboneSpec, precision: str) -> None:
    backbone = small_backbone(spec).cast(torch.bfloat16 if precision == "bf16" else torch.float32)
    noisy, timestep, conditions = inputs(spec)
    conditions = conditions._replace(steered=STEERED)
    with torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else nullcontext():
        expected = [backbone(noisy, level, conditions) for level in (timestep, timestep / 2)]
        remembered = backbone.remember(conditions)
        called = calls_of(backbone)
        found = [backbone(noisy, level, remembered) for level in (timestep, timestep / 2)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert not torch.equal(found[0], found[1])
    assert called == []


@SPECS
def test_another_text_shares_all_but_its_keys(spec: BackboneSpec) -> None:
    backbone = small_backbone(spec)
    noisy, timestep, conditions = inputs(spec)
    other = conditions._replace(text=conditions.text.flip(0))
    first = backbone.remember(conditions)
    called = calls_of(backbone)
    second = backbone.remember(other, first.known)
    assert first.known is not None and second.known is not None
    assert not any(name.endswith(("add_k_proj", "add_v_proj", "control_adapter")) for name in called)
    assert second.known.steering is first.known.steering
    for ours, theirs in zip(second.known.keys, first.known.keys, strict=True):
        assert ours.image is theirs.image and not torch.equal(ours.text[0], theirs.text[0])
    expected = small_backbone(spec)(noisy, timestep, other)
    assert torch.equal(backbone(noisy, timestep, second), expected)
    assert not torch.equal(backbone(noisy, timestep, first), expected)


@pytest.mark.parametrize("interact", [True, False])
def test_stage_two_with_remembered_conditions(interact: bool) -> None:
    base = small_backbone(branches.SPEC.backbone)
    branch = branches.branch("stage2", base)
    branches.stir(branch)
    values = branches.batch() | {"interact": torch.full((3,), interact)}
    with torch.no_grad():
        expected, velocity = branch(base, **values), branch.velocity(base, **values)
        values["conditions"] = base.remember(values["conditions"])
        called = calls_of(base)
        found = branch(base, **values)
        assert torch.equal(branch.velocity(base, **values), velocity)
    assert called == []
    for ours, theirs in zip(branches.tensors(found), branches.tensors(expected), strict=True):
        assert torch.equal(ours, theirs)


def test_memory_at_full_size() -> None:
    """As the module says: 94 MB for the text and 47 MB for the image, in bf16."""
    spec = replace(SIZES["wan_fun_1_3b"].backbone, layers=1)  # of 30 blocks that are alike
    with FakeTensorMode():
        backbone = WanBackbone(spec).cast(torch.bfloat16)
        text = torch.empty(1, spec.text_tokens, spec.text_dim)
        clip = torch.empty(1, spec.image_tokens, spec.image_dim or 0)
        image, rays = torch.empty(1, 16, 21, 60, 104), torch.empty(1, 6, 81, 480, 832)
        known = backbone.remember(WanConditions(text, image, rays, clip)).known
    assert known is not None and known.steering is not None
    (keys,) = known.keys
    assert keys.image is not None
    assert megabytes(*30 * keys.text) == 94 and megabytes(*30 * keys.image) == 47
    assert megabytes(known.steering) == 101
    assert megabytes(*known.rotary) == 34


def megabytes(*tensors: Tensor) -> int:
    return round(sum(tensor.nbytes for tensor in tensors) / 1e6)


def test_the_backend_that_was_chosen_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' `set_attention_backend` holds for remembered keys as well."""
    from diffusers.models import attention_dispatch

    backbone = small_backbone(WITH_IMAGE)
    noisy, timestep, conditions = inputs(WITH_IMAGE)
    remembered = backbone.remember(conditions)
    expected = backbone(noisy, timestep, remembered)
    registry = attention_dispatch._AttentionBackendRegistry  # diffusers changes the default of all models as well
    monkeypatch.setattr(registry, "_active_backend", registry._active_backend)
    backbone.transformer.set_attention_backend("_native_math")
    asked: list[Any] = []
    real = attention_dispatch.dispatch_attention_fn
    monkeypatch.setattr(
        attention_dispatch, "dispatch_attention_fn", lambda *a, **k: asked.append(k["backend"]) or real(*a, **k)
    )
    found = backbone(noisy, timestep, remembered)
    assert len(asked) == 2 * WITH_IMAGE.layers and {str(getattr(b, "value", b)) for b in asked} == {"_native_math"}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_hooks_see_parts() -> None:
    """That `calls_of` is empty above means something."""
    backbone = small_backbone(WITH_IMAGE)
    called = calls_of(backbone)
    assert isinstance(backbone.control_adapter, nn.Module)
    backbone(*inputs(WITH_IMAGE))
    assert len(called) == 3 + 4 * WITH_IMAGE.layers
