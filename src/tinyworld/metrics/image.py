"""Picture metrics of clips: PSNR, SSIM, flicker, and PSNR by position in the time group.

Every function takes the prediction and the target as N T C H W floats in [0, 1] on one device and returns one float64
value a clip; averaging over clips is the caller's choice. The prediction may overshoot a little (it is clamped to
[0, 1] first); values that look like [-1, 1] or [0, 255] are refused, because a wrong range gives plausible numbers. A
prediction that holds NaN gives NaN, it does not raise: an evaluation must not end a training run.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PSNR_CAP = 100.0
"""dB given to a clip without any error, whose PSNR would be infinite; nothing scores above it."""
SSIM_WINDOW = 11
"""Pixels: side of SSIM's Gaussian window (sigma 1.5), and the smallest picture it is defined for."""
STATIC_THRESHOLD = 2.5 / 255
"""A pixel is static where no channel of the target changes by more than two of 255 levels to the next frame."""
STATIC_SHARE = 0.01
"""With a smaller share of static pixels than this, flicker looks at all pixels."""
_TARGET_SLACK, _PREDICTION_SLACK = 0.01, 0.5
_SSIM_VALUES = 2**21
"""Pixel values that go through SSIM's filters at a time; it holds about 50 copies of them."""


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, from the mean squared error of the whole clip: N values, at most PSNR_CAP.

    Raises ValueError for shapes that differ or a value range that is not [0, 1].
    """
    check_clips(prediction, target)
    return torch.stack([decibel(frame_errors(p, t).mean()) for p, t in zip(prediction, target, strict=True)])


def psnr_by_position(prediction: Tensor, target: Tensor, positions: Sequence[int], period: int) -> Tensor:
    """PSNR in dB of the frames at each position of the time group: N x period, NaN where no frame has that position.

    `positions` holds one entry in [0, period) for each frame; `core.frames.group_positions` gives those of a decoder
    with `period` frames a latent. A profile that is not flat is the pulsing that such decoders are prone to.
    Raises ValueError for positions that do not fit the frames or the period, and as `psnr`.
    """
    check_clips(prediction, target)
    if len(positions) != target.shape[1] or not all(0 <= position < period for position in positions):
        raise ValueError(
            f"positions must be {target.shape[1]} numbers from 0 to period - 1, one per frame, got {list(positions)} "
            f"with period={period}"
        )
    places = torch.tensor(positions, device=target.device)
    rows = []
    for p, t in zip(prediction, target, strict=True):
        errors = frame_errors(p, t)
        rows.append(torch.stack([decibel(errors[places == k].mean()) for k in range(period)]))
    return torch.stack(rows)


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over the frames of a clip: N values, 1 for identical clips.

    Gaussian window of 11 x 11 with sigma 1.5, data range 1, borders reflected, as in torchmetrics. Raises ValueError
    for pictures smaller than the window, and as `psnr`.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_clips(prediction, target)
    (height, width), border = target.shape[-2:], SSIM_WINDOW // 2
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got {height} x {width} (H x W)"
        )

    def rows(p: Tensor, t: Tensor, first: int, last: int) -> Tensor:
        """Sum of the similarity of each frame's rows from `first` to before `last`, computed with the rows that they see."""
        start, stop = max(first - border, 0), min(last + border, height)
        p, t = p[..., start:stop, :].float().clamp(0, 1), t[..., start:stop, :].float()
        _, similarity = structural_similarity_index_measure(p, t, data_range=1.0, return_full_image=True)
        return torch.as_tensor(similarity)[..., first - start : last - start, :].double().sum((1, 2, 3))

    def frames(p: Tensor, t: Tensor) -> Tensor:
        """The mean of each; large pictures strip by strip."""
        step = max(1, _SSIM_VALUES // t[:, :, 0].numel())
        strips = [rows(p, t, first, min(first + step, height)) for first in range(0, height, step)]
        return torch.stack(strips).sum(0) / t[0].numel()

    chunk = max(1, _SSIM_VALUES // target[0, 0].numel())
    values = []
    for p, t in zip(prediction, target, strict=True):
        chunks = zip(p.split(chunk), t.split(chunk), strict=True)
        values.append(torch.cat([frames(a, b) for a, b in chunks]).mean())
    return torch.stack(values)


def flicker(prediction: Tensor, target: Tensor) -> Tensor:
    """Change from frame to frame that the target does not have, in pixel values: N values, 0 is best.

    The mean of |(p[t+1] - p[t]) - (x[t+1] - x[t])| over the static pixels of the target x (STATIC_THRESHOLD), where the
    eye sees pulsing; over all pixels when fewer than STATIC_SHARE of them are static. NaN for a clip of one frame,
    which has no change to look at. Raises ValueError as `psnr`.
    """
    check_clips(prediction, target)
    if target.shape[1] == 1:
        return torch.full((target.shape[0],), math.nan, dtype=torch.float64, device=target.device)
    return torch.stack([_clip_flicker(p, t) for p, t in zip(prediction, target, strict=True)])


def _clip_flicker(prediction: Tensor, target: Tensor) -> Tensor:
    sums = FlickerSums()
    for i in range(len(target) - 1):
        sums.add(prediction[i], target[i], prediction[i + 1], target[i + 1])
    return torch.tensor(sums.value(), dtype=torch.float64, device=target.device)


class FlickerSums:
    """Flicker frame pair by frame pair, so that a long clip needs no more memory than a short one."""

    def __init__(self) -> None:
        self._everywhere = self._on_static = 0.0
        self._static_pixels = self._pixels = 0

    def add(self, prediction: Tensor, target: Tensor, next_prediction: Tensor, next_target: Tensor) -> None:
        """Two consecutive frames of the clip, each C H W."""
        wanted = next_target.float() - target.float()
        got = next_prediction.float().clamp(0, 1) - prediction.float().clamp(0, 1)
        excess = (got - wanted).abs().mean(dim=0, dtype=torch.float64)
        static = wanted.abs().amax(dim=0) <= STATIC_THRESHOLD
        self._everywhere += float(excess.sum())
        self._on_static += float(excess[static].sum())
        self._static_pixels += int(static.sum())
        self._pixels += excess.numel()

    def value(self) -> float:
        """Flicker of the pairs so far; NaN when there was none."""
        if self._pixels == 0:
            return math.nan
        if self._static_pixels >= STATIC_SHARE * self._pixels:
            return self._on_static / self._static_pixels
        return self._everywhere / self._pixels


def frame_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each frame, T float64 values; summed in float64, one frame in memory at a time."""
    squares = ((p.float().clamp(0, 1) - t.float()).square() for p, t in zip(prediction, target, strict=True))
    return torch.stack([square.mean(dtype=torch.float64) for square in squares])


def decibel(error: Tensor) -> Tensor:
    """-10 log10, capped. NaN stays NaN: clamp passes it on."""
    return (-10 * torch.log10(error)).clamp(max=PSNR_CAP)


def check_clips(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both are clips of one shape, floats, in [0, 1] (the prediction about there)."""
    if prediction.shape != target.shape or target.ndim != 5 or target.numel() == 0:
        raise ValueError(
            "prediction and target must be clips of one shape N T C H W with at least one value, got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    for name, clips, slack in (("prediction", prediction, _PREDICTION_SLACK), ("target", target, _TARGET_SLACK)):
        if not clips.is_floating_point():
            raise ValueError(f"{name} must hold floats in [0, 1], got {clips.dtype}: divide 8-bit frames by 255")
        low, high = (float(value) for value in torch.aminmax(clips))
        if low < -slack or high > 1 + slack:
            meant = "[0, 255]: divide by 255" if high > 2 else "[-1, 1]: use (x + 1) / 2"
            raise ValueError(
                f"{name} must be in [0, 1] but runs from {low:.3g} to {high:.3g}. It looks like {meant}; "
                "the raw output of a decoder is to be clamped first"
            )
    if not bool(torch.isfinite(target).all()):
        raise ValueError("target holds values that are not finite")
