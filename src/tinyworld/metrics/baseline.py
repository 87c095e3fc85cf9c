"""The baseline that every reconstruction is printed beside: a clip replaced by its own mean colour."""

import torch
from torch import Tensor

from tinyworld.metrics.image import decibel


def mean_colour(frames: Tensor) -> Tensor:
    """Each clip's mean colour, over time and space, in place of every pixel.

    frames: N T C H W, float. Returns the same shape and dtype as a view that must not be written to. The mean is taken
    in float64. This is the best that a model can do that passes on three numbers a clip, so a reconstruction that is
    not well above it has learnt nothing about the picture.
    """
    if frames.ndim != 5 or not frames.is_floating_point():
        raise ValueError(f"mean_colour takes float clips of shape N T C H W, got {tuple(frames.shape)} {frames.dtype}")
    return frames.double().mean(dim=(1, 3, 4), keepdim=True).to(frames.dtype).expand_as(frames)


class MeanColourMeter:
    """PSNR of `mean_colour` for a clip that is seen a few frames at a time: its error is the clip's variance."""

    def __init__(self) -> None:
        self._pixels = 0
        self._sum = torch.zeros(3, dtype=torch.float64)
        self._squares = torch.zeros(3, dtype=torch.float64)

    def add(self, frames: Tensor) -> None:
        """The next frames, T 3 H W in [0, 1]."""
        values = frames.double().transpose(0, 1).flatten(1).cpu()
        self._pixels += values.shape[1]
        self._sum += values.sum(1)
        self._squares += values.square().sum(1)

    def psnr(self) -> float:
        """dB over all frames so far."""
        variance = self._squares / self._pixels - (self._sum / self._pixels).square()
        return float(decibel(variance.mean().clamp_min(0)))
