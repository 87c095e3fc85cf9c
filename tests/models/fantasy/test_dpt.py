"""The dense head: sizes, the law of time, equality of pieces and whole, numerics."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tinyworld.core.world_sizes import SIZES
from tinyworld.models.fantasy.dpt import DptHead, depth_of, points_of, position_term
from tinyworld.models.fantasy.prediction import Geometry
from tinyworld.models.fantasy.temporal import TemporalUpsampler

FULL, DEMO = SIZES["wan_fun_1_3b"], SIZES["demo"]
ROWS, COLS = 3, 2
IN_WIDTH = 2 * DEMO.backbone.width


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dpt(outputs: int = 2, **options: int) -> DptHead:
    head = DptHead(IN_WIDTH, DEMO.branch, outputs, **options)
    head.init_weights(seeded(1))
    return head


def loud(outputs: int = 2, **options: int) -> DptHead:
    """A head of raw values of order one, in fp64 up to its last layer: a difference beyond 1e-6 is one of logic."""
    head = dpt(outputs, **options).double()
    with torch.no_grad():
        head.out3.weight *= 30
    return head


def features(frames: int, batch: int = 1, rows: int = ROWS, cols: int = COLS) -> list[Tensor]:
    generator = seeded(7)
    return [torch.randn(batch, frames, rows * cols, IN_WIDTH, generator=generator) for _ in range(4)]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("outputs", "expected"), [(2, 15_459_490), (4, 15_459_556)])
def test_parameter_count_of_the_full_size(outputs: int, expected: int) -> None:
    with torch.device("meta"):
        head = DptHead(2 * FULL.backbone.width, FULL.branch, outputs)
    parts = {name: count(part) for name, part in head.named_children()}
    assert count(head) == expected
    assert parts["norm"] == 6_144
    assert parts["project"] == 4_326_784
    assert parts["resize"] == 2_884_480
    assert parts["reduce"] == 1_622_016
    assert parts["upsample"] == 4_395_520
    assert parts["fuse"] == 2_132_224
    assert parts["out1"] == 73_792


@pytest.mark.parametrize(
    ("grid", "pixels"), [((6, 21, 37), (21, 336, 592)), ((21, 37, 21), (81, 592, 336)), ((1, 1, 2), (1, 16, 32))]
)
def test_shapes_of_the_full_size(grid: tuple[int, int, int], pixels: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        head = DptHead(2 * FULL.backbone.width, FULL.branch, 4)
        levels = [torch.empty(1, grid[0], grid[1] * grid[2], 2 * FULL.backbone.width) for _ in range(4)]
    raw = head(levels, grid)
    assert raw.shape == (1, 4, *pixels)
    assert raw.dtype == torch.float32


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_pieces_give_the_numbers_of_the_whole(frames: int) -> None:
    levels = [level.double() for level in features(frames, batch=2)]
    with torch.no_grad():
        whole = loud(chunk=frames)(levels, (frames, ROWS, COLS))
        assert whole.shape == (2, 2, 4 * (frames - 1) + 1, 16 * ROWS, 16 * COLS)
        assert whole.std() > 0.1
        for chunk in (1, 2, 4):
            pieces = loud(chunk=chunk)(levels, (frames, ROWS, COLS))
            torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_upsampler_in_pieces_is_exact(cut: int) -> None:
    upsampler = TemporalUpsampler(8)
    upsampler.init_weights(seeded(2))
    upsampler.double()
    x = torch.randn(2, 8, 5, 3, 4, generator=seeded(3), dtype=torch.float64)
    whole, _ = upsampler(x, None)
    first, past = upsampler(x[:, :, :cut], None)
    second, _ = upsampler(x[:, :, cut:], past)
    assert whole.shape[2] == 17
    assert first.shape[2] == 4 * (cut - 1) + 1
    torch.testing.assert_close(torch.cat((first, second), 2), whole, rtol=0, atol=1e-12)


def test_carried_frames_keep_no_piece_alive() -> None:
    upsampler = TemporalUpsampler(8)
    _, past = upsampler(torch.zeros(1, 8, 6, 2, 2), None)
    for kept in (*past.first, *past.second):
        assert kept.shape[2] == 2
        assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_gradients_of_checkpointed_pieces(chunk: int) -> None:
    frames = 4

    def gradients(**options: int) -> list[Tensor]:
        head = dpt(**options)
        levels = [level.requires_grad_() for level in features(frames)]
        raw = head(levels, (frames, ROWS, COLS))
        weight = torch.randn(raw.shape, generator=seeded(5))
        (raw * weight).sum().backward()
        return [tensor.grad for tensor in (*levels, *head.parameters())]

    expected = gradients(chunk=frames)
    for ours, theirs in zip(gradients(chunk=chunk, checkpointing=True), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_checkpointing_keeps_no_activation_of_a_piece() -> None:
    """At 81 frames of 592×336, on the meta device: what autograd keeps from the forward pass to the backward pass."""

    def kept(checkpointing: bool) -> int:
        with torch.device("meta"):
            head = DptHead(2 * FULL.backbone.width, FULL.branch, 2, checkpointing=checkpointing).bfloat16()
            levels = [torch.empty(1, 21, 777, 3072, dtype=torch.bfloat16, requires_grad=True) for _ in range(4)]
        sizes: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                sizes[id(tensor)] = tensor
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            head(levels, (21, 37, 21))
        return sum(tensor.numel() * tensor.element_size() for tensor in sizes.values())

    assert kept(True) < 1e6
    assert kept(False) > 5e9


def test_a_frame_depends_on_no_later_latent_frame() -> None:
    frames = 4
    head = dpt(chunk=2)
    with torch.no_grad():
        before = head(features(frames), (frames, ROWS, COLS))
        for latent in range(frames):
            levels = features(frames)
            for level in levels:
                level[:, latent] += 1.0
            changed = (head(levels, (frames, ROWS, COLS)) - before).abs().amax(dim=(0, 1, 3, 4))
            first = max(4 * latent - 3, 0)
            assert (changed[:first] == 0).all()
            assert (changed[first : 4 * latent + 1] > 0).all()


def test_a_batch_of_three_is_three_clips() -> None:
    head = loud(outputs=4)
    levels = [level.double() for level in features(3, batch=3)]
    with torch.no_grad():
        together = head(levels, (3, ROWS, COLS))
        for clip in range(3):
            alone = head([level[clip : clip + 1] for level in levels], (3, ROWS, COLS))
            torch.testing.assert_close(together[clip : clip + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 3])
def test_every_parameter_and_level_has_a_finite_gradient(frames: int) -> None:
    head = dpt(outputs=4, checkpointing=True)
    levels = [level.requires_grad_() for level in features(frames)]
    points, confidence = points_of(head(levels, (frames, ROWS, COLS)))
    (points.square().mean() + confidence.log().mean()).backward()
    for tensor in (*levels, *head.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert all(level.grad.abs().max() > 0 for level in levels)


def test_init_sets_every_parameter_from_the_seed() -> None:
    with torch.device("meta"):
        head = DptHead(IN_WIDTH, DEMO.branch, 2)
    head.to_empty(device="cpu")
    for parameter in head.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    head.init_weights(seeded(1))
    for ours, theirs in zip(head.parameters(), dpt().parameters(), strict=True):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, theirs)
    other = DptHead(IN_WIDTH, DEMO.branch, 2)
    other.init_weights(seeded(2))
    assert not torch.equal(other.out3.weight, head.out3.weight)


def test_starts_near_depth_one_and_confidence_two() -> None:
    with torch.no_grad():
        depth, confidence = depth_of(dpt()(features(3), (3, ROWS, COLS)))
    assert (depth - 1).abs().max() < 0.7
    assert (confidence - 2).abs().max() < 0.7
    assert depth.shape == confidence.shape == (1, 9, 16 * ROWS, 16 * COLS)


@pytest.mark.parametrize("autocast", [True, False])
def test_bf16_gives_fp32_maps_near_the_fp32_ones(autocast: bool) -> None:
    head, levels = dpt(), features(2)
    with torch.no_grad():
        expected = head(levels, (2, ROWS, COLS))
        if not autocast:
            head, levels = head.bfloat16(), [level.bfloat16() for level in levels]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            raw = head(levels, (2, ROWS, COLS))
            depth, confidence = depth_of(raw)
    assert raw.dtype == depth.dtype == confidence.dtype == torch.float32
    torch.testing.assert_close(raw, expected, rtol=0, atol=0.1 * float(expected.abs().max()))
    assert not torch.equal(raw, raw.bfloat16().float())


def test_depth_and_confidence_formulas() -> None:
    raw = torch.tensor([[0.0, 1.0], [-2.0, 3.0], [0.5, -40.0]]).view(3, 2, 1, 1, 1)
    depth, confidence = depth_of(raw)
    torch.testing.assert_close(depth.flatten(), torch.tensor([1.0, math.exp(-2), math.exp(0.5)]))
    torch.testing.assert_close(confidence.flatten(), torch.tensor([1 + math.e, 1 + math.exp(3), 1.0]))


def test_points_formula_and_its_gradient_at_zero_and_far_away() -> None:
    values = torch.tensor([0.0, 1.5, -1.5, 60.0, -60.0, 1e-6])
    raw = torch.zeros(6, 4, 1, 1, 1)
    raw[:, 1, 0, 0, 0] = values
    raw.requires_grad_()
    points, confidence = points_of(raw)
    assert points.shape == (6, 1, 1, 1, 3)
    torch.testing.assert_close(points[:, 0, 0, 0, 1], values.sign() * values.abs().expm1())
    assert (confidence == 2).all()
    points.sum().backward()
    torch.testing.assert_close(raw.grad[:, 1, 0, 0, 0], values.abs().exp())
    assert (raw.grad[:, 0] == 1).all()


def test_position_term_is_bounded_distinct_and_the_same_place_at_every_resolution() -> None:
    fine = position_term(16, 6, 9, torch.device("cpu"))
    coarse = position_term(16, 2, 3, torch.device("cpu"))
    assert fine.shape == (16, 6, 9)
    assert fine.abs().max() <= 0.1 + 1e-7
    torch.testing.assert_close(fine[:, 1::3, 1::3], coarse)
    cells = fine.flatten(1).T
    assert torch.pdist(cells).min() > 1e-3


def test_levels_that_do_not_fit_the_grid() -> None:
    with pytest.raises(ValueError, match="grid"):
        dpt()(features(2), (2, ROWS, COLS + 1))
    with pytest.raises(ValueError, match="4 levels"):
        dpt()(features(2)[:3], (2, ROWS, COLS))


def test_geometry_is_a_tree_of_tensors() -> None:
    one = torch.zeros(1)
    leaves, _ = torch.utils._pytree.tree_flatten(Geometry(one, one, one, one, (one, one)))
    assert len(leaves) == 6


def test_clip_by_clip_equals_all_at_once() -> None:
    head = DptHead(2 * DEMO.backbone.width, DEMO.branch, 2, chunk=2)
    head.init_weights(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    levels = [torch.randn(3, 2, 6, 2 * DEMO.backbone.width, generator=generator) for _ in range(4)]
    together = head(levels, (2, 2, 3))
    head.checkpointing = True
    torch.testing.assert_close(head(levels, (2, 2, 3)), together, rtol=1e-5, atol=1e-6)
