"""The opened-up Wan transformer: equal to diffusers' own forward, batch by batch, in every precision."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models.fantasy.worlds import SMALL, WITH_IMAGE, inputs, one, small_backbone
from tinyworld.core.errors import ConfigError, DataError, FramePlanError
from tinyworld.core.world_sizes import SIZES, BackboneSpec
from tinyworld.models.fantasy.backbone import FP32_PARTS, WanBackbone, WanConditions
from tinyworld.models.fantasy.control_adapter import ControlAdapter

SPECS = pytest.mark.parametrize("spec", [SMALL, WITH_IMAGE], ids=["text", "text and image"])
CAST_TOLERANCE = 0.02
"""Largest difference of a velocity in bf16 from the same in fp32, as a share of its largest value."""


def of_diffusers(backbone: WanBackbone, noisy: Tensor, timestep: Tensor, conditions: WanConditions) -> Tensor:
    values = [noisy, conditions.image, conditions.text, conditions.clip]
    latents, image, text, clip = (None if value is None else value.to(backbone.dtype) for value in values)
    assert latents is not None and image is not None
    return backbone.transformer(torch.cat([latents, image], 1), timestep, text, clip, return_dict=False)[0]


def step_by_step(backbone: WanBackbone, noisy: Tensor, timestep: Tensor, conditions: WanConditions) -> Tensor:
    state = backbone.begin(noisy, timestep, conditions)
    hidden = state.hidden
    for index in range(backbone.spec.layers):
        hidden = backbone.feed(index, backbone.attend(index, hidden, state), state)
    return backbone.end(hidden, state)


def test_parameter_counts() -> None:
    with torch.device("meta"):
        backbone = WanBackbone(SIZES["wan_fun_1_3b"].backbone)
    assert backbone.control_adapter is not None

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(backbone.transformer) == 1_564_404_032
    assert count(backbone.control_adapter) == 51_909_120
    assert count(backbone) == 1_616_313_152
    assert count(backbone.transformer.blocks) == 30 * 51_163_904


def test_importing_does_not_load_diffusers() -> None:
    code = (
        "import sys, tinyworld.models.fantasy.backbone, tinyworld.models.fantasy.backbone_weights; "
        "assert 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@SPECS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_camera_it_is_diffusers_forward_bit_for_bit(spec: BackboneSpec, dtype: torch.dtype) -> None:
    backbone = small_backbone(spec).cast(dtype)
    arguments = inputs(spec, camera=False)
    expected = of_diffusers(backbone, *arguments)
    assert expected.dtype == dtype and expected.abs().max() > 0.1
    assert torch.equal(backbone(*arguments), expected)
    assert torch.equal(step_by_step(backbone, *arguments), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(dtype: torch.dtype) -> None:
    """Weights in bf16 give the same inside and outside; fp32 weights do what diffusers does under autocast."""
    backbone = small_backbone(WITH_IMAGE).cast(dtype)
    arguments = inputs(WITH_IMAGE, camera=False)
    outside = backbone(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        inside = [backbone(*arguments), step_by_step(backbone, *arguments)]
        expected = of_diffusers(backbone, *arguments) if dtype == torch.float32 else outside
    assert all(torch.equal(result, expected) for result in inside)


def test_hidden_states_of_another_precision_are_taken() -> None:
    """The branch adds to the tokens in its own number type."""
    backbone = small_backbone().cast(torch.bfloat16)
    state = backbone.begin(*inputs())
    same = state.hidden.float()
    assert torch.equal(backbone.attend(0, same, state), backbone.attend(0, state.hidden, state))
    assert torch.equal(backbone.feed(0, same, state), backbone.feed(0, state.hidden, state))


@SPECS
def test_bf16_is_close_to_fp32(spec: BackboneSpec) -> None:
    backbone, arguments = small_backbone(spec), inputs(spec)
    exact = backbone(*arguments)
    rounded = backbone.cast(torch.bfloat16)(*arguments).float()
    assert 0 < (rounded - exact).abs().max() < CAST_TOLERANCE * exact.abs().max()


def test_cast_keeps_in_fp32_what_diffusers_keeps() -> None:
    backbone = small_backbone(WITH_IMAGE).cast(torch.bfloat16)
    assert frozenset(type(backbone.transformer)._keep_in_fp32_modules) == FP32_PARTS
    kinds = {name: tensor.dtype for name, tensor in backbone.named_parameters()}
    for part in ("condition_embedder.time_embedder.linear_1.weight", "scale_shift_table", "blocks.1.norm2.weight"):
        assert kinds[f"transformer.{part}"] == torch.float32
    for part in ("condition_embedder.time_proj.weight", "blocks.1.attn1.norm_q.weight", "proj_out.bias"):
        assert kinds[f"transformer.{part}"] == torch.bfloat16
    assert kinds["control_adapter.conv.weight"] == torch.bfloat16
    assert {buffer.dtype for buffer in backbone.transformer.rope.buffers()} == {torch.float32}


def test_state() -> None:
    state = small_backbone().cast(torch.bfloat16).begin(*inputs(grid=(3, 4, 6)))
    assert state.grid == (3, 2, 3)
    assert state.hidden.shape == (2, 18, 24)
    assert state.context.shape == (2, 4, 24)
    assert state.modulation.shape == (2, 6, 24) and state.modulation.dtype == torch.float32
    assert state.time.shape == (2, 24)
    assert [table.shape for table in state.rotary] == [(1, 18, 1, 12)] * 2


def test_samples_of_a_batch_do_not_mix() -> None:
    """The public camera adapter keeps the first sample only."""
    backbone, arguments = small_backbone(WITH_IMAGE), inputs(WITH_IMAGE)
    together = backbone(*arguments)
    for index in range(2):
        assert torch.allclose(together[index], backbone(*one(arguments, index))[0], atol=1e-5)
    noisy, timestep, conditions = arguments
    assert conditions.camera is not None
    first_only = conditions.camera.clone()
    first_only[1] = 0
    changed = backbone(noisy, timestep, conditions._replace(camera=first_only))
    assert torch.equal(changed[0], together[0]) and not torch.allclose(changed[1], together[1], atol=1e-2)


def test_camera_features_are_added_to_the_patches() -> None:
    backbone = small_backbone()
    noisy, timestep, conditions = inputs()
    assert conditions.camera is not None and backbone.control_adapter is not None
    without = backbone.begin(noisy, timestep, conditions._replace(camera=None)).hidden
    features = backbone.control_adapter(conditions.camera)
    expected = without + features.flatten(2).transpose(1, 2)
    assert torch.allclose(backbone.begin(noisy, timestep, conditions).hidden, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_that_the_camera_does_not_steer(dtype: torch.dtype) -> None:
    backbone = small_backbone().cast(dtype)
    noisy, timestep, conditions = inputs(batch=3)
    every, none = backbone(noisy, timestep, conditions), backbone(noisy, timestep, conditions._replace(camera=None))
    some = backbone(noisy, timestep, conditions._replace(steered=torch.tensor([True, False, True])))
    assert torch.equal(some[[0, 2]], every[[0, 2]]) and torch.equal(some[1], none[1])
    assert not torch.equal(every[1], none[1])


def test_control_adapter_spelled_out() -> None:
    """Sample by sample and latent frame by latent frame, from the description of the public model."""
    torch.manual_seed(0)
    adapter = ControlAdapter(8)
    rays = torch.randn(2, 6, 9, 32, 48)
    result = adapter(rays)
    assert result.shape == (2, 8, 3, 2, 3)
    groups = [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    block = adapter.residual_blocks[0]
    for sample in range(2):
        for latent, frames in enumerate(groups):
            channels = torch.stack([rays[sample, channel, frame] for channel in range(6) for frame in frames])
            folded = F.pixel_unshuffle(channels[None], 8)
            assert folded.shape == (1, 24 * 64, 4, 6)
            x = adapter.conv(folded)
            expected = block.conv2(block.conv1(x).relu()) + x
            assert torch.allclose(result[sample, :, latent], expected[0], atol=1e-5)
    assert adapter(torch.zeros(1, 6, 1, 16, 16)).abs().max() > 0


def test_control_adapter_refuses() -> None:
    adapter = ControlAdapter(8)
    with pytest.raises(FramePlanError, match="9 or 13"):
        adapter(torch.zeros(1, 6, 10, 16, 16))
    with pytest.raises(DataError, match="multiples of 16"):
        adapter(torch.zeros(1, 6, 5, 16, 24))
    with pytest.raises(DataError, match="B 6 F H W"):
        adapter(torch.zeros(1, 3, 5, 16, 16))


def test_gradients_flow_through_frozen_weights() -> None:
    backbone = small_backbone()
    noisy, timestep, conditions = inputs()
    assert conditions.camera is not None
    noisy.requires_grad_()
    conditions.camera.requires_grad_()
    backbone(noisy, timestep, conditions).square().sum().backward()
    assert noisy.grad is not None and noisy.grad.abs().sum() > 0
    assert conditions.camera.grad is not None and (conditions.camera.grad.abs().flatten(1).sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_refusals() -> None:
    backbone = small_backbone()
    noisy, timestep, conditions = inputs()
    assert conditions.camera is not None
    with pytest.raises(DataError, match=r"text is 2×3×16; .* 2×4×16"):
        backbone(noisy, timestep, conditions._replace(text=conditions.text[:, :3]))
    with pytest.raises(DataError, match="multiples of 16"):
        backbone(noisy[..., :5], timestep, conditions)
    with pytest.raises(DataError, match="camera is"):
        backbone(noisy, timestep, conditions._replace(camera=conditions.camera[:, :, 1:]))
    with pytest.raises(DataError, match="no camera adapter"):
        small_backbone(replace(SMALL, camera=False))(noisy, timestep, conditions)
    with pytest.raises(DataError, match="takes none"):
        backbone(noisy, timestep, conditions._replace(clip=torch.zeros(2, 257, 20)))
    noisy, timestep, conditions = inputs(WITH_IMAGE)
    with pytest.raises(DataError, match="clip is absent"):
        small_backbone(WITH_IMAGE)(noisy, timestep, conditions._replace(clip=None))
    with pytest.raises(ConfigError, match="exactly 512"):
        WanBackbone(replace(WITH_IMAGE, text_tokens=77))


def test_digest() -> None:
    backbone, same = small_backbone(), small_backbone()
    assert backbone.digest() == same.digest() and len(backbone.digest()) == 64
    same.transformer.proj_out.bias[3] += 0.1
    assert backbone.digest() != same.digest()
    assert backbone.digest() == small_backbone().cast(torch.bfloat16).digest()  # one transformer in any precision


def test_weights_to_train_from_scratch() -> None:
    """Equal seeds give equal weights, whatever was drawn before; the velocity starts at zero."""
    backbone, same = WanBackbone(SMALL), WanBackbone(SMALL)
    before = torch.get_rng_state()
    backbone.init_weights(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    same.init_weights(3)
    assert backbone.digest() == same.digest()
    same.init_weights(4)
    assert backbone.digest() != same.digest()
    assert backbone(*inputs()).abs().max() == 0
    weights = dict(backbone.named_parameters())
    drawn = weights["transformer.blocks.1.ffn.net.0.proj.weight"]
    assert drawn.abs().max() <= 0.04 and 0.015 < drawn.std() < 0.02
    assert weights["transformer.blocks.1.attn1.norm_q.weight"].min() == 1
    backbone(*inputs()).sub(1).square().mean().backward()
    gradient = weights["transformer.proj_out.weight"].grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_sharded_blocks_are_called_as_modules() -> None:
    backbone = small_backbone()
    called: list[str] = []
    modules = dict(backbone.named_modules())
    for name in backbone.sharded_blocks:
        modules[name].register_forward_hook(lambda *_, name=name: called.append(name))
    backbone(*inputs())
    assert called == list(backbone.sharded_blocks)
