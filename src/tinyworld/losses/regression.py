"""Masked regression with a predicted confidence: what the losses of depth and of points have in common.

All values are float32, B T H W C with a mask B T H W. Every quantity is the mean over the valid pixels of a clip, then the
mean over all clips of the batch; a clip with fewer than MIN_VALID valid pixels counts as 0. So a batch is worth the mean of
its clips alone, and how clips are grouped into batches, ranks and accumulated steps does not matter.

What stands at pixels that are not valid (NaN, infinity) has no influence, in the gradient either. A prediction that is not
finite where the mask is set gives NaN: the step must see it.

Source of the formulas: the training losses of VGGT (arXiv:2503.11651).
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MIN_VALID = 100
"""Valid pixels that a clip must have to be used."""
KEPT_SHARE = 0.98
"""The largest errors beyond this share of a clip are dropped: labels are wrong at edges and in the sky."""
MIN_FOR_DROPPING = 1000
"""With fewer valid pixels none is dropped."""
LARGEST = 100.0
"""Errors and gradients count as no more than this, in units of the clip's scale; beyond it they have no gradient."""
GRADIENT_SCALES = 4
_FRAMES = 16
"""Frames whose spatial gradients are computed at a time, and again in the backward pass: the intermediate values of a long
clip would be many times as large as the prediction."""


def masked_difference(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """predicted - target where the mask is set, elsewhere 0: B T H W C, mask B T H W."""
    valid = mask[..., None]
    return torch.where(valid, predicted.float(), 0.0) - torch.where(valid, target.float(), 0.0)


def confident_error(
    error: Tensor, confidence: Tensor, mask: Tensor, gamma: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Means of γ e c − α log c and of e: errors e ≥ 0 and confidences c > 0, B T H W, to two scalars.

    Each is the mean without its own largest 2 %.
    """
    c = torch.where(mask, confidence.float(), 1.0)
    weighted = gamma * error * c - alpha * c.log()
    return trimmed_mean(weighted, mask), trimmed_mean(error, mask)


def trimmed_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over clips of the mean over valid pixels, without the largest 2 %; B T H W, scalar."""
    return torch.stack([_clip_mean(v, m) for v, m in zip(values, mask, strict=True)]).mean()


def _clip_mean(values: Tensor, mask: Tensor) -> Tensor:
    count = int(mask.sum())
    if count < MIN_VALID:
        return _zero(values, mask)
    # Not clamp alone: an infinite prediction would become an ordinary large error.
    values = torch.where(values.isfinite(), values.clamp(max=LARGEST), torch.nan)
    kept = mask
    if count >= MIN_FOR_DROPPING:
        dropped = count - 1 - int(KEPT_SHARE * (count - 1))
        largest_kept = values.detach().masked_select(mask).topk(dropped + 1).values[-1]
        kept = mask & ~(values.detach() > largest_kept)  # NaN is kept
    return torch.where(kept, values, 0.0).sum() / kept.sum()


def _zero(values: Tensor, mask: Tensor) -> Tensor:
    """0 with a graph: every process of a run must find a gradient at the same parameters."""
    return 0.0 * torch.where(mask, values, 0.0).sum()


def spatial_gradient(difference: Tensor, mask: Tensor) -> Tensor:
    """|∂x d| + |∂y d| of the masked difference d, B T H W C, at strides 1, 2, 4, 8: mean over the scales, scalar.

    Between neighbours that are both valid, each at most LARGEST, summed and divided by the number of valid values of the
    scale. Numbers that both differ by the same amount cost nothing: it sharpens edges and smooths noise.
    """
    clips = [_clip_gradient(d, m) for d, m in zip(difference, mask, strict=True)]
    return torch.stack(clips).mean()


def _clip_gradient(difference: Tensor, mask: Tensor) -> Tensor:
    if int(mask.sum()) < MIN_VALID:
        return _zero(difference, mask[..., None])
    pieces = list(zip(difference.split(_FRAMES), mask.split(_FRAMES), strict=True))
    if len(pieces) == 1:
        sums = _gradient_sums(*pieces[0])
    else:
        parts = [checkpoint(_gradient_sums, d, m, use_reentrant=False, preserve_rng_state=False) for d, m in pieces]
        sums = torch.stack(parts).sum(dim=0)
    counts = torch.stack([mask[:, :: 2**s, :: 2**s].sum() for s in range(GRADIENT_SCALES)]) * difference.shape[-1]
    return (sums / counts.clamp_min(1)).mean()


def _gradient_sums(difference: Tensor, mask: Tensor) -> Tensor:
    """The sum of each scale: T H W C to GRADIENT_SCALES values."""
    sums = []
    for scale in range(GRADIENT_SCALES):
        d, m = difference[:, :: 2**scale, :: 2**scale], mask[:, :: 2**scale, :: 2**scale]
        total = d.new_zeros(())
        for dim in (1, 2):
            size = m.shape[dim]
            both = m.narrow(dim, 0, size - 1) & m.narrow(dim, 1, size - 1)
            total = total + torch.where(both[..., None], d.diff(dim=dim).abs().clamp(max=LARGEST), 0.0).sum()
        sums.append(total)
    return torch.stack(sums)
