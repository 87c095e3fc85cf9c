"""PSNR, SSIM and flicker of a clip that is seen a few frames at a time, so that its length costs no memory."""

import math

import torch
from torch import Tensor

from tinyworld.metrics import image


class ClipMeter:
    """Add the frames of one clip in order; `result` equals the functions of `metrics.image` on the whole clip."""

    def __init__(self) -> None:
        self.frames = 0
        self._squares = torch.zeros((), dtype=torch.float64)
        self._similarity = torch.zeros((), dtype=torch.float64)
        self._flicker = image.FlickerSums()
        self._last: tuple[Tensor, Tensor] | None = None

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """The next frames, each T C H W in [0, 1]."""
        self._squares += image.frame_errors(prediction, target).sum().cpu()
        if min(target.shape[-2:]) < image.SSIM_WINDOW:
            self._similarity += math.nan
        else:
            self._similarity += image.ssim(prediction[None], target[None])[0].cpu() * len(target)
        for made, wanted in zip(prediction, target, strict=True):
            if self._last is not None:
                self._flicker.add(*self._last, made, wanted)
            self._last = (made, wanted)
        self.frames += len(target)

    def result(self) -> dict[str, float]:
        """psnr (dB), ssim (NaN for pictures smaller than its window), flicker (NaN for a single frame) so far."""
        return {
            "psnr": float(image.decibel(self._squares / self.frames)),
            "ssim": float(self._similarity / self.frames),
            "flicker": self._flicker.value(),
        }
