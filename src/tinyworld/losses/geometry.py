"""Losses of the geometry branch: depth maps, point maps and cameras. Lengths are in units of the clip's scale (the mean
distance of its points), targets are in the world of the clip's first camera; predictions are not normalised.

Everything is computed in float32, also under autocast. How pixels and clips are averaged: `losses.regression`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tinyworld.losses.regression import (
    LARGEST,
    MIN_VALID,
    confident_error,
    masked_difference,
    spatial_gradient,
)

STEADY = 0.05
"""The temporal term looks at pixels whose true depth changes by less than this to the next frame, in units of the clip's
scale: larger changes are other surfaces coming into view (Video Depth Anything, arXiv:2501.12375)."""
FOV_WEIGHT = 0.5
"""Beside 1 for translation and 1 for rotation."""


class Terms(NamedTuple):
    """Scalars. `loss` is the sum to descend and has a graph; the others are its parts, detached.

    loss = confidence + regression + gradient + temporal weight × temporal. `confidence` may be negative, and so may `loss`:
    `regression`, the mean error of the prediction, is the one to judge the training by.
    """

    loss: Tensor
    regression: Tensor
    confidence: Tensor
    gradient: Tensor
    temporal: Tensor


def depth_terms(
    depth: Tensor,
    confidence: Tensor,
    target: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    alpha: float = 0.2,
    temporal_weight: float = 1.0,
) -> Terms:
    """Losses of depth maps: depth, confidence (> 0), target and bool mask, all B T H W.

    Absolute errors; the temporal term (`temporal_change`) is 0 for a single frame. Raises ValueError for other shapes.
    """
    _check(depth, confidence, target, mask, 4)
    difference = masked_difference(depth[..., None], target[..., None], mask)
    weighted, error = confident_error(difference[..., 0].abs(), confidence, mask, gamma, alpha)
    gradient = spatial_gradient(difference, mask)
    temporal = temporal_change(depth, target, mask)
    loss = weighted + error + gradient + temporal_weight * temporal
    return Terms(loss, error.detach(), weighted.detach(), gradient.detach(), temporal.detach())


def point_terms(
    points: Tensor, confidence: Tensor, target: Tensor, mask: Tensor, gamma: float = 1.0, alpha: float = 0.2
) -> Terms:
    """Losses of point maps: points and target B T H W 3, confidence (> 0) and bool mask B T H W.

    Errors are distances; there is no temporal term (it is 0). Raises ValueError for other shapes.
    """
    _check(points, confidence, target, mask, 5)
    difference = masked_difference(points, target, mask)
    distance = torch.linalg.vector_norm(difference, dim=-1)
    weighted, error = confident_error(distance, confidence, mask, gamma, alpha)
    gradient = spatial_gradient(difference, mask)
    loss = weighted + error + gradient
    return Terms(loss, error.detach(), weighted.detach(), gradient.detach(), torch.zeros_like(error))


def temporal_change(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """||d[t+1] − d[t]| − |g[t+1] − g[t]||, scalar, of depth d and target g, B T H W, mask bool.

    Mean over the pixels that are valid in both frames and whose target changes by less than STEADY; then over clips, a clip
    with fewer than MIN_VALID valid pixels counting as 0. Source: the temporal gradient matching of Video Depth Anything,
    without its alignment of scale and shift.
    """
    made, wanted = (torch.where(mask, values.float(), 0.0) for values in (depth, target))
    change = wanted.diff(dim=1).abs()
    steady = mask[:, 1:] & mask[:, :-1] & (change < STEADY)
    excess = torch.where(steady, (made.diff(dim=1).abs() - change).abs(), 0.0)
    clips = excess.sum(dim=(1, 2, 3)) / steady.sum(dim=(1, 2, 3)).clamp_min(1)
    return torch.where(mask.sum(dim=(1, 2, 3)) >= MIN_VALID, clips, 0.0 * clips).mean()


def camera_loss(
    poses: Sequence[Tensor], target: Tensor, usable: Tensor, decay: float = 0.6, delta: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the camera head's n successive predictions, and the parts of the last: n times B T 9, B T 9, bool (B,).

    A pose is that of `core.geometry.encode_pose`. Huber loss with `delta`: mean over the 3 numbers of the translation (each
    at most 100), the 4 of the quaternion and the 2 fields of view, weighted 1, 1, 0.5; prediction i counts
    decay^(n − 1 − i), and the sum is divided by n. A rotation has two quaternions: the nearer one is the target. Clips that
    are not usable (too few valid points to know their scale) count as 0 in the mean over clips, whatever their target holds.

    Returns the scalar loss and {"translation", "rotation", "fov"}: scalars, detached, not weighted. Raises ValueError for
    shapes that do not agree or no prediction.
    """
    shapes = [tuple(pose.shape) for pose in poses]
    right = target.dim() == 3 and target.shape[-1] == 9 and usable.shape == target.shape[:1]
    if not right or not poses or any(shape != tuple(target.shape) for shape in shapes):
        raise ValueError(
            f"camera_loss takes one or more predictions B T 9, a target B T 9 and B flags, got {shapes}, "
            f"{tuple(target.shape)} and {tuple(usable.shape)}"
        )
    known = usable[:, None, None]
    wanted = torch.where(known, target.float(), 0.0)
    wanted = torch.cat([wanted[..., :3], _upper(wanted[..., 3:7]), wanted[..., 7:]], dim=-1)
    total = wanted.new_zeros(())
    parts: dict[str, Tensor] = {}
    for i, pose in enumerate(poses):
        parts = _pose_errors(torch.where(known, pose.float(), 0.0), wanted, delta)
        error = parts["translation"] + parts["rotation"] + FOV_WEIGHT * parts["fov"]
        total = total + decay ** (len(poses) - 1 - i) * error
    return total / len(poses), {name: value.detach() for name, value in parts.items()}


def _pose_errors(predicted: Tensor, target: Tensor, delta: float) -> dict[str, Tensor]:
    quaternion, wanted = predicted[..., 3:7], target[..., 3:7]
    opposite = (quaternion.detach() * wanted).sum(dim=-1, keepdim=True) < 0
    wanted = torch.where(opposite, -wanted, wanted)
    translation = functional.huber_loss(predicted[..., :3], target[..., :3], reduction="none", delta=delta)
    return {
        "translation": torch.where(translation.isinf(), torch.nan, translation.clamp(max=LARGEST)).mean(),
        "rotation": functional.huber_loss(quaternion, wanted, delta=delta),
        "fov": functional.huber_loss(predicted[..., 7:], target[..., 7:], delta=delta),
    }


def _upper(quaternion: Tensor) -> Tensor:
    """The same rotation with w ≥ 0."""
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def _check(predicted: Tensor, confidence: Tensor, target: Tensor, mask: Tensor, dims: int) -> None:
    plane = predicted.shape[:4]
    right = predicted.dim() == dims and target.shape == predicted.shape and (dims == 4 or predicted.shape[-1] == 3)
    if not right or confidence.shape != plane or mask.shape != plane or mask.dtype != torch.bool:
        shape = "B T H W" if dims == 4 else "B T H W 3"
        raise ValueError(
            f"prediction and target must be {shape}, confidence and a bool mask B T H W, got {tuple(predicted.shape)}, "
            f"{tuple(target.shape)}, {tuple(confidence.shape)} and {tuple(mask.shape)} {mask.dtype}"
        )
