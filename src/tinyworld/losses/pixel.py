"""Pixel and latent losses of the video autoencoder. All take unclamped output: a clamp would zero the gradient outside
[0, 1] (with the default initialisation that is most of the picture)."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

PixelKind = Literal["mse", "l1", "charbonnier"]
CHARBONNIER_EPSILON = 1e-2
"""Where the Charbonnier loss turns from quadratic to linear, in units of the [0, 1] range: about 2.5 grey levels."""


def pixel_distance(predicted: Tensor, target: Tensor, kind: PixelKind) -> Tensor:
    """Scalar mean distance of two tensors of equal shape. Charbonnier: Lai et al. 2017, sqrt(d² + ε²) − ε."""
    if predicted.shape != target.shape:
        raise ValueError(f"shapes differ: {tuple(predicted.shape)} against {tuple(target.shape)}")
    if kind == "mse":
        return functional.mse_loss(predicted, target)
    if kind == "l1":
        return functional.l1_loss(predicted, target)
    return (((predicted - target).square() + CHARBONNIER_EPSILON**2).sqrt() - CHARBONNIER_EPSILON).mean()


def flicker_distance(predicted: Tensor, target: Tensor, kind: PixelKind) -> Tensor:
    """Distance of frame differences, N T C H W. A reconstruction that is off by a constant per pixel costs nothing here,
    one whose error changes from frame to frame does. Zero for a single frame."""
    if predicted.shape[1] < 2:
        return predicted.new_zeros(())
    return pixel_distance(predicted.diff(dim=1), target.diff(dim=1), kind)


def latent_moments(latents: Tensor) -> Tensor:
    """Keeps each latent channel near zero mean and unit variance over the batch; latents N L c h w, scalar result.

    The Kullback-Leibler divergence of a normal distribution with the channel's batch moments from the standard normal,
    averaged over channels: 0 at unit scale, and it grows both when a channel explodes and when it dies.
    """
    flat = latents.float().transpose(0, 2).flatten(1)
    mean = flat.mean(dim=1)
    variance = flat.var(dim=1, unbiased=False).clamp_min(1e-6)
    return 0.5 * (mean.square() + variance - 1 - torch.log(variance)).mean()
