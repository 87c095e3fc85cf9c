"""Every fold equals what it replaces, in double precision to the last digits, borders included."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.models.taehv import folded
from tinyworld.models.taehv.fold import after_pointwise, clear_outside, from_windows, repeat_then_conv, to_windows
from tinyworld.models.taehv.folded import Head, UpHead

SIZES = [(1, 1), (1, 4), (5, 3), (6, 8)]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


def repeated(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_and_convolution_are_one(stride: int) -> None:
    x, first, second = draw(2, 5, 6, 8), draw(7, 5, 1, 1), draw(4, 7, 3, 3)
    wanted = F.conv2d(F.conv2d(x, first), second, stride=stride, padding=1)
    same(F.conv2d(x, after_pointwise(second, first), stride=stride, padding=1), wanted)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_repeat_and_convolution_are_one_transposed(height: int, width: int) -> None:
    x, weight = draw(2, 5, height, width), draw(7, 5, 3, 3)
    made = F.conv_transpose2d(x, repeat_then_conv(weight), stride=2, padding=1)
    same(made, F.conv2d(repeated(x), weight, padding=1))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_windows_are_the_large_picture(height: int, width: int) -> None:
    x, weight = draw(2, 5, height, width), draw(7, 5, 3, 3)
    windows = F.conv2d(x, to_windows(weight), padding=1).unflatten(1, (2, 2, 7))
    large = F.conv2d(repeated(x), weight, padding=1)
    for a in (0, 1):
        for c in (0, 1):
            same(windows[:, a, c, :, a : a + height, c : c + width], large[:, :, a::2, c::2])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_end_of_the_decoder_without_the_large_picture(height: int, width: int) -> None:
    x, up, last = draw(2, 5, height, width), draw(7, 5, 3, 3), draw(3, 7, 3, 3)
    windows = clear_outside(F.conv2d(x, to_windows(up), padding=1)).relu()
    made = F.pixel_shuffle(F.conv2d(windows, from_windows(last)), 2)
    same(made, F.conv2d(F.conv2d(repeated(x), up, padding=1).relu(), last, padding=1))


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 100])
def test_strips_are_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, up = draw(2, 5, 6, 8), draw(7, 5, 3, 3)
    last = nn.Conv2d(7, 3, 3, padding=1).double().requires_grad_(False)
    monkeypatch.setattr(folded, "STRIP_BYTES", rows * 2 * 28 * 9 * 8)
    same(UpHead(up, last)(x), last(F.conv2d(repeated(x), up, padding=1).relu()))
    same(Head(up, last)(x), last(F.conv2d(x, up, padding=1).relu()))


def test_folding_has_the_gradients_of_what_it_replaces() -> None:
    x, weight = draw(1, 3, 4, 4), draw(2, 3, 3, 3).requires_grad_()
    (wanted,) = torch.autograd.grad(F.conv2d(repeated(x), weight, padding=1).square().sum(), weight)
    made = F.conv_transpose2d(x, repeat_then_conv(weight), stride=2, padding=1)
    same(torch.autograd.grad(made.square().sum(), weight)[0], wanted)
