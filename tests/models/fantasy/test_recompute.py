"""Checkpointing keeps what long attention found, and nothing else; gradients are equal bit for bit. Attention's inputs."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.fantasy import branches
from tests.models.fantasy.worlds import small_backbone
from tinyworld.models.fantasy import recompute
from tinyworld.models.fantasy.branch import Stage
from tinyworld.models.fantasy.geodit import GeoMlp
from tinyworld.models.fantasy.temporal import CausalConv

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
GLOBAL = 3 * (5 + 6)
"""Geometry tokens of the test's clip: 3 latent frames, each of 5 special tokens and 2 x 3 patches."""


class Operations(TorchDispatchMode):
    """Notes each operation with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.seen.append((func, args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def attention(self) -> Counter[int]:
        """How often flash attention ran over how many keys."""
        return Counter(args[1].shape[-2] for func, args, _ in self.seen if func is FLASH)


def step(stage: Stage, checkpointing: bool, half: bool) -> tuple[dict[str, Tensor | None], Operations]:
    base = small_backbone(branches.SPEC.backbone)
    branch = branches.branch(stage, base, checkpointing)
    branches.stir(branch)
    operations = Operations()
    with operations:
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            joint = branch(base, **branches.batch(1))
        sum(tensor.float().square().mean() for tensor in branches.tensors(joint)).backward()
    return {name: parameter.grad for name, parameter in branch.named_parameters()}, operations


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_long_attention_runs_once(stage: Stage, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, plain = step(stage, False, half)
    blocks = branches.SPEC.geo_blocks
    monkeypatch.setattr(recompute, "LONG", GLOBAL)
    gradients, kept = step(stage, True, half)
    monkeypatch.setattr(recompute, "LONG", GLOBAL + 1)
    _, whole = step(stage, True, half)
    assert plain.attention()[GLOBAL] == kept.attention()[GLOBAL] >= blocks
    assert whole.attention()[GLOBAL] == 2 * plain.attention()[GLOBAL]
    frame = GLOBAL // 3
    assert kept.attention()[frame] == 2 * plain.attention()[frame] > 0
    for name, gradient in expected.items():
        assert gradient is not None and torch.equal(gradient, gradients[name]), name


def test_without_gradients_nothing_is_wrapped() -> None:
    with torch.no_grad(), Operations() as operations:
        made = recompute.recomputed(torch.add, torch.ones(2, requires_grad=True), torch.ones(2))
    assert not made.requires_grad and len(operations.seen) > 0


def test_the_last_layer_of_a_step_is_not_computed_again() -> None:
    """LayerScale lies in its weights, so no gradient needs its output."""
    mlp = GeoMlp(8, 12)
    branches.stir(mlp)
    hidden, time = torch.randn(1, 2, 3, 8, requires_grad=True), torch.randn(1, 6, 8)

    def products(run: Callable[[], Tensor]) -> int:
        with Operations() as operations:
            run()
        return sum(func is torch.ops.aten.addmm.default for func, _, _ in operations.seen)

    made = recompute.recomputed(mlp, hidden, time)
    assert products(lambda: mlp(hidden, time)) == 2
    assert products(lambda: torch.autograd.grad(made.square().sum(), hidden)[0]) == 1


def test_layer_scale_in_the_weights() -> None:
    """Value and gradients of the MLP as it is written in papers."""
    mlp = GeoMlp(8, 12)
    branches.stir(mlp, size=0.3)
    hidden, time = torch.randn(2, 2, 3, 8, requires_grad=True), torch.randn(2, 6, 8)

    def spelled() -> Tensor:
        rows = (mlp.modulation + time[:, [3, 4]])[:, :, None, None]
        inputs = mlp.norm(hidden) * (1 + rows[:, 1]) + rows[:, 0]
        return hidden + mlp.scale * mlp.down(F.gelu(mlp.up(inputs), approximate="tanh"))

    tensors = [hidden, *mlp.parameters()]
    ours, theirs = (
        torch.autograd.grad(make().square().sum(), tensors) for make in (lambda: mlp(hidden, time), spelled)
    )
    torch.testing.assert_close(mlp(hidden, time), spelled(), rtol=1e-5, atol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_all_attention_under_autocast_is_flash_attention(stage: Stage) -> None:
    """bf16, without a mask, the last dimension dense: what flash kernels take as it is."""
    base = small_backbone(branches.SPEC.backbone).cast(torch.bfloat16)
    branch = branches.branch(stage, base)
    branches.stir(branch)
    with Operations() as operations, torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        branch(base, **branches.batch(1))
    found = [(func, args, kwargs) for func, args, kwargs in operations.seen if "dot_product" in str(func)]
    trunk = branches.SPEC.branch.camera_iterations * branches.SPEC.branch.camera_blocks
    blocks, split = branches.SPEC.geo_blocks, branches.SPEC.branch.split
    video = 2 * split if stage == "stage1" else 2 * branches.SPEC.backbone.layers + 2 * blocks
    assert len(found) == 1 + 2 * blocks + trunk + video
    for func, args, kwargs in found:
        assert func is FLASH and kwargs.get("attn_mask") is None
        assert all(tensor.dtype == torch.bfloat16 and tensor.stride(-1) == 1 for tensor in args[:3])


@pytest.mark.parametrize(("frames", "pixels"), [(3, 3), (3, 1)])
def test_convolution_over_frames_in_two_dimensions(frames: int, pixels: int) -> None:
    """On a CPU in fp32; in fp64 torch's own is taken."""
    torch.manual_seed(0)
    convolution = CausalConv(4, 6, frames, pixels)
    x, past = torch.randn(2, 4, 5, 6, 7), torch.randn(2, 4, 2, 6, 7)
    with Operations() as operations:
        found, after = convolution(x, past)
    shapes = [args[0].ndim for func, args, _ in operations.seen if func is torch.ops.aten.convolution.default]
    assert shapes == [4]
    convolution.double()
    expected, same = convolution(x.double(), past.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(after.double(), same)
    assert isinstance(convolution.conv, nn.Conv3d)
