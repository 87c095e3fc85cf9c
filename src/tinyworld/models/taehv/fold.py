"""Exact algebra on weights: neighbouring linear layers become one. No approximation, only another order of summing.

Three facts are used. A pointwise convolution without bias and the 3×3 convolution after it are one 3×3 convolution.
Repeating pixels and a 3×3 convolution are one transposed convolution with 4×4 taps: of nine taps on repeated pixels, four
read different values. And what the repeated picture is only an input of can stay unrolled: see `to_windows`.

Every function is differentiable in the weights. Orders of dimensions: O outputs, I inputs, M what lies between.
"""

import torch
from torch import Tensor

# Along one axis, with taps w: the pixel 2i + a of the repeated picture reads w₀x[i-1] + (w₁+w₂)x[i] for a = 0 and
# (w₀+w₁)x[i] + w₂x[i+1] for a = 1.
_TRANSPOSED = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
"""Taps of the transposed convolution (4) from those of the convolution (3)."""
_TO_WINDOWS = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
"""(a, tap of the window, w): a picture's window v holds its pixels v - 1 and v; pixel 2i + a reads window i + a."""
_FROM_WINDOWS = torch.zeros(2, 2, 2, 3)
"""(a, a', tap, w): tap w of pixel 2i + a reads pixel 2i + a + w - 1, which is the a' of window i + tap."""
for _a in (0, 1):
    for _w in (0, 1, 2):
        _read = _a + _w - 1
        _FROM_WINDOWS[_a, _read % 2, (_read + 1) // 2, _w] = 1


def after_pointwise(weight: Tensor, pointwise: Tensor) -> Tensor:
    """O×M×k×k after M×I×1×1 (without bias) → O×I×k×k. Exact at borders too: zeros stay zeros without a bias."""
    return torch.einsum("omhw,mi->oihw", weight, pointwise[:, :, 0, 0])


def repeat_then_conv(weight: Tensor) -> Tensor:
    """Of "repeat pixels 2×, convolve 3×3, padding 1" (O×I×3×3): I×O×4×4 for a transposed one of stride 2, padding 1."""
    taps = _TRANSPOSED.to(weight)
    return torch.einsum("ka,lb,oiab->iokl", taps, taps, weight)


def to_windows(weight: Tensor) -> Tensor:
    """Of "repeat pixels 2×, convolve 3×3": 4O×I×2×2 for a convolution with padding 1 whose result stays unrolled.

    The result has one more row and column than the input: window (v, u) holds, in channels (a, c, O), the pixels of the
    large picture at row 2(v-a) + a and column 2(u-c) + c. At the border some lie outside the picture and must be set to zero
    before `from_windows` (see `clear_outside`).
    """
    taps = _TO_WINDOWS.to(weight)
    return torch.einsum("apd,cqe,oide->acoipq", taps, taps, weight).flatten(0, 2)


def from_windows(weight: Tensor) -> Tensor:
    """Of a 3×3 convolution (O×I) with padding 1 on the large picture: 4O×4I×2×2 without padding on windows.

    Its outputs are ordered for `pixel_shuffle(…, 2)`.
    """
    taps = _FROM_WINDOWS.to(weight)
    return torch.einsum("axpd,cyqe,oide->oacxyipq", taps, taps, weight).flatten(3, 5).flatten(0, 2)


def clear_outside(windows: Tensor, top: bool = True, bottom: bool = True) -> Tensor:
    """Set the pixels of windows (N 4C h+1 w+1) that lie outside the picture to zero, in place.

    Without `top` or `bottom` the windows are a strip whose first or last row is not the picture's.
    """
    parts = windows.unflatten(1, (2, 2, -1))
    if top:
        parts[:, 1, :, :, 0] = 0
    if bottom:
        parts[:, 0, :, :, -1] = 0
    parts[:, :, 1, :, :, 0] = 0
    parts[:, :, 0, :, :, -1] = 0
    return windows
