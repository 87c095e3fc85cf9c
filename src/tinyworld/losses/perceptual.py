"""Perceptual losses of clips: LPIPS, which needs a network's weights, and gradient magnitude similarity, which needs none.

Both take unclamped output; a clamp would zero the gradient outside [0, 1].
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tinyworld.metrics.sharpness import GMSD_CONSTANT, LUMINANCE
from tinyworld.models.lpips import LPIPS

GMS_SCALES = 3
GMS_SMALLEST = 16
"""Pixels a side, so that the coarsest scale still has gradients of four pixels a side."""
_FLAT = 1e-8
"""Added to squared magnitudes: the root has no slope at 0."""
_VALUES = 2**22
"""Pixel values that are compared at a time; about 15 copies of them are held."""


def lpips_distance(lpips: LPIPS, predicted: Tensor, target: Tensor, chunk: int = 8) -> Tensor:
    """Scalar mean LPIPS (Zhang et al. 2018) of the frames of two clips N T 3 H W.

    The target is in [0, 1], the prediction about there and not clamped: its gradient goes on outside. `chunk` frames go
    through the network at a time and are computed again in the backward pass, so that the memory of its features does
    not grow with the frames. Raises ValueError for shapes that differ, are no clips of RGB, or are smaller than
    `lpips.smallest` pixels a side.
    """
    if predicted.shape != target.shape or target.ndim != 5:
        raise ValueError(f"LPIPS takes two N T 3 H W clips, got {tuple(predicted.shape)}, {tuple(target.shape)}")
    pairs = zip(*(clips.flatten(0, 1).float().split(chunk) for clips in (predicted, target)), strict=True)
    # The network draws nothing at random, so its generators need no care in the second pass.
    distances = [checkpoint(lpips, p, t, chunk, use_reentrant=False, preserve_rng_state=False) for p, t in pairs]
    return torch.cat(distances).mean()


def gms_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Scalar 1 - gradient magnitude similarity of two clips N T 3 H W: mean over frames and scales, from 0 to 1.

    The similarity map of GMSD (Xue et al., TIP 2014, arXiv:1308.3052) on the luminance, from its own resolution down
    to a quarter of it (several scales: Zhang et al., ICASSP 2017), pooled by its mean. Edges and texture of low
    contrast, which squared errors all but ignore, count far more beside strong ones. It is blind to colour, to
    brightness and to the sign of a gradient, so use it beside a pixel loss.

    The target is in [0, 1], the prediction about there and not clamped. Computed in fp32 whatever comes in, also under
    autocast; long or large clips go through in parts that are computed again in the backward pass. Raises ValueError
    for shapes that differ, are no clips of RGB, or are smaller than GMS_SMALLEST pixels a side.
    """
    right = predicted.shape == target.shape and target.ndim == 5 and target.shape[2] == 3
    if not right or min(target.shape[-2:]) < GMS_SMALLEST:
        raise ValueError(
            f"Gradient magnitude similarity takes two N T 3 H W clips of at least {GMS_SMALLEST} x {GMS_SMALLEST} "
            f"pixels, got {tuple(predicted.shape)}, {tuple(target.shape)}"
        )
    chunk = max(1, _VALUES // target[0, 0].numel())
    made, wanted = (clips.flatten(0, 1).split(chunk) for clips in (predicted, target))
    if len(wanted) == 1:
        return 1 - _gms(made[0], wanted[0]).mean()
    parts = [
        checkpoint(_gms, p, t, use_reentrant=False, preserve_rng_state=False) for p, t in zip(made, wanted, strict=True)
    ]
    return 1 - torch.cat(parts).mean()


def _gms(predicted: Tensor, target: Tensor) -> Tensor:
    """Similarity of each picture, mean over pixels and scales: two N 3 H W to N float32 values."""
    made, wanted = _luminance(predicted), _luminance(target)
    similarities = []
    for scale in range(GMS_SCALES):
        if scale:
            made, wanted = (functional.avg_pool2d(grey[:, None], 2)[:, 0] for grey in (made, wanted))
        a, b = _squared_gradient(made), _squared_gradient(wanted)
        similarity = (2 * (a * b).sqrt() + GMSD_CONSTANT) / (a + b + GMSD_CONSTANT)
        similarities.append(similarity.mean(dim=(1, 2)))
    return torch.stack(similarities).mean(dim=0)


def _luminance(pictures: Tensor) -> Tensor:
    """N 3 H W to N H W, float32; sums, because a matrix product would follow autocast."""
    weights = torch.tensor(LUMINANCE, device=pictures.device).view(3, 1, 1)
    return (pictures.float() * weights).sum(dim=1)


def _squared_gradient(grey: Tensor) -> Tensor:
    """Prewitt's, without padding: N H W to N H-2 W-2, never 0."""
    columns = (grey[:, :-2] + grey[:, 1:-1] + grey[:, 2:]) / 3
    rows = (grey[..., :-2] + grey[..., 1:-1] + grey[..., 2:]) / 3
    across, down = columns[..., :-2] - columns[..., 2:], rows[:, :-2] - rows[:, 2:]
    return across.square() + down.square() + _FLAT
