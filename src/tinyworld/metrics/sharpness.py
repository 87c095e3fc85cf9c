"""Blur and false edges of clips: how much fine detail a reconstruction has, and whether its edges are in place.

PSNR and SSIM hardly notice that a picture has gone soft. Both functions look at the luminance (BT.601), take the
prediction and the target as N T 3 H W floats in [0, 1] under the rules of `metrics.image` (the prediction is clamped,
other value ranges are refused) and return one float64 value a clip. A prediction that holds NaN gives NaN.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tinyworld.metrics.image import check_clips

LUMINANCE = (0.299, 0.587, 0.114)
"""BT.601 weights of red, green and blue."""
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""The low pass of Burt and Adelson's pyramid (1983)."""
ROUNDING = 1 / (255 * 12**0.5)
"""Root mean square of the rounding to 256 levels: detail below it is not detail. Keeps the ratio of flat clips at 1."""
GMSD_CONSTANT = 0.0026
"""T of Xue et al., 170 for 8-bit values, in units of the [0, 1] range: below gradients of 0.05 differences count less."""
SMALLEST = 4
"""Pixels a side that both need: two after GMSD halves the picture, and more than the low pass reaches."""
_VALUES = 2**22
"""Luminance values that go through the filters at a time; they hold about 15 copies."""


def sharpness(prediction: Tensor, target: Tensor) -> Tensor:
    """Fine detail of the prediction in units of the target's: N values, 1 as sharp, below 1 blurred, above 1 too sharp.

    The ratio of the root mean squares of the finest detail over the clip; the detail is the luminance minus its 5 x 5
    binomial low pass, the undecimated finest band of a Laplacian pyramid. Noise counts as detail, wrong detail too: read
    it beside `gmsd`. Raises ValueError for pictures that are not RGB or smaller than SMALLEST, and as `metrics.image`.
    """
    _check_pictures(prediction, target)
    made, wanted = (_by_chunks(detail_energy, clips.flatten(0, 1)) for clips in (prediction, target))
    made, wanted = (energy.view(target.shape[:2]).mean(dim=1) + ROUNDING**2 for energy in (made, wanted))
    return (made / wanted).sqrt()


def gmsd(prediction: Tensor, target: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation (Xue et al., TIP 2014, arXiv:1308.3052): N values, 0 is best.

    The mean over the frames of `frame_gmsd`; about 0.05 for a good and 0.2 for a poor reconstruction. Raises as
    `sharpness`.
    """
    _check_pictures(prediction, target)
    frames = _by_chunks(frame_gmsd, prediction.flatten(0, 1), target.flatten(0, 1))
    return frames.view(target.shape[:2]).mean(dim=1)


def detail_energy(frames: Tensor) -> Tensor:
    """Mean square of the finest detail of each frame: T 3 H W, clamped to [0, 1], to T float64 values."""
    grey = _luminance(frames)
    padded = functional.pad(grey, (2, 2, 2, 2), mode="reflect")
    height, width = grey.shape[-2:]
    rows = torch.stack([weight * padded[..., k : k + height, :] for k, weight in enumerate(BINOMIAL)]).sum(dim=0)
    low = torch.stack([weight * rows[..., k : k + width] for k, weight in enumerate(BINOMIAL)]).sum(dim=0)
    return (grey - low).square().mean(dim=(1, 2, 3), dtype=torch.float64)


def frame_gmsd(prediction: Tensor, target: Tensor) -> Tensor:
    """GMSD of each frame: two T 3 H W, clamped to [0, 1], to T float64 values.

    As in the paper: means of 2 x 2 pixels, Prewitt gradients with zeros around the picture, and the standard deviation
    (over n - 1) of the similarity map.
    """
    made, wanted = (_gradient_magnitude(functional.avg_pool2d(_luminance(x), 2)) for x in (prediction, target))
    similarity = (2 * made * wanted + GMSD_CONSTANT) / (made.square() + wanted.square() + GMSD_CONSTANT)
    return similarity.double().flatten(1).std(dim=1)


def _luminance(frames: Tensor) -> Tensor:
    """T 3 H W to T 1 H W, float32 in [0, 1]."""
    weights = torch.tensor(LUMINANCE, device=frames.device).view(1, 3, 1, 1)
    return (frames.float().clamp(0, 1) * weights).sum(dim=1, keepdim=True)


def _gradient_magnitude(grey: Tensor) -> Tensor:
    """Prewitt's, T 1 H W to the same shape. Sums of slices, as above: a GPU's convolutions would round to TF32."""
    padded = functional.pad(grey, (1, 1, 1, 1))
    columns = (padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]) / 3
    rows = (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / 3
    across, down = columns[..., :-2] - columns[..., 2:], rows[..., :-2, :] - rows[..., 2:, :]
    return (across.square() + down.square()).sqrt()


def _by_chunks(measure: Callable[..., Tensor], *frames: Tensor) -> Tensor:
    """`measure` of a few frames at a time, joined: memory does not grow with the length of the clips."""
    height, width = frames[0].shape[-2:]
    size = max(1, _VALUES // (height * width))
    return torch.cat([measure(*chunk) for chunk in zip(*(x.split(size) for x in frames), strict=True)])


def _check_pictures(prediction: Tensor, target: Tensor) -> None:
    check_clips(prediction, target)
    height, width = target.shape[-2:]
    if target.shape[2] != 3 or min(height, width) < SMALLEST:
        raise ValueError(
            f"sharpness and GMSD need RGB pictures of at least {SMALLEST} x {SMALLEST} pixels, got {target.shape[2]} "
            f"channels of {height} x {width} (H x W)"
        )
