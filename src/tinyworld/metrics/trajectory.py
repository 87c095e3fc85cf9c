"""Metrics of predicted cameras against true ones, and the trivial cameras that they are read beside.

Cameras are B T; translations of the true ones are in units of the clip's scale (the mean distance of its points is 1), which
is what "still" is judged by. Everything is computed in float64 and does not depend on the world that either track is given
in, nor on the scale of the predicted one.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras, compose, inverse, rotation_angle

AUC_DEGREES = 30
STILL = 1e-3
"""In units of the clip's scale: a camera that moves by less than a thousandth of the distance of what it sees shifts the
picture by less than a pixel. The direction of so small a motion is noise of the labels."""
NO_DIRECTION = 90.0
"""Degrees that a prediction is off which stands still where the camera moved: it is neither right nor opposite."""
NAMES = ("ate", "rpe_translation", "rpe_rotation", "auc30")


def camera_metrics(predicted: Cameras, true: Cameras) -> dict[str, Tensor]:
    """Trajectory errors of each clip: four float64 values (B,). The first three are best at 0, auc30 at 1.

    ate: root mean square distance of the camera centres after the best similarity (Umeyama 1991) of the predicted track, in
    the true track's unit. At most the spread of the true track, so that a track of two frames or none that moved is always
    met: read it beside the others. Of a true track that stands still (STILL) size and direction are unknown: only the mean is
    aligned, and what the prediction moves is its error.
    rpe_translation, rpe_rotation: root mean square over consecutive frames of the difference of their relative positions
    (after the scale of that similarity, in the true track's unit) and of their relative rotations (degrees).
    auc30: for all pairs of frames the larger of the errors of the relative rotation and of the direction of the relative
    translation, opposite directions being 180 degrees; then the share of pairs below a threshold, mean over the thresholds
    1, 2, ... 30 degrees. Pairs that truly move less than STILL count by their rotation alone; a prediction without any motion
    in a pair has the direction error NO_DIRECTION. Source: Wang et al. 2023 (PoseDiffusion, arXiv:2306.15667), which counts
    opposite directions as equal.

    NaN for a single frame and for predictions that are not finite. Raises ValueError for tracks that differ in length, or
    true cameras that are not finite.
    """
    shape = true.extrinsics.shape
    if predicted.extrinsics.shape != shape or len(shape) != 4 or shape[0] == 0:
        raise ValueError(
            f"predicted and true cameras must be B T 3 4 of one shape, got {tuple(predicted.extrinsics.shape)} and "
            f"{tuple(shape)}"
        )
    if not bool(true.extrinsics.isfinite().all()):
        raise ValueError("the true cameras hold values that are not finite")
    pairs = zip(predicted.extrinsics.double(), true.extrinsics.double(), strict=True)
    clips = [_clip_metrics(made, wanted) for made, wanted in pairs]
    return {name: torch.stack([clip[i] for clip in clips]) for i, name in enumerate(NAMES)}


def identity_cameras(true: Cameras) -> Cameras:
    """The baseline that never moves: the true intrinsics, and every camera where the world's origin is."""
    still = torch.eye(3, 4, dtype=true.extrinsics.dtype, device=true.extrinsics.device)
    return Cameras(still.expand_as(true.extrinsics), true.intrinsics, true.height, true.width)


def mean_track(tracks: Sequence[Tensor]) -> Tensor:
    """The mean of pose encodings T 9 (`core.geometry.encode_pose`) of clips of one length: T 9, float64.

    Translations and fields of view are averaged; rotations by the mean of Markley et al. 2007, for which both signs of a
    quaternion are the same. As a baseline it is what a model can do that has seen the training clips and not this one.
    Raises ValueError for no track or tracks of different lengths.
    """
    if not tracks or any(track.shape != tracks[0].shape or track.shape[-1:] != (9,) for track in tracks):
        raise ValueError(f"mean_track takes pose encodings T 9 of one length, got {[tuple(t.shape) for t in tracks]}")
    poses = torch.stack([track.double() for track in tracks])
    mean = poses.mean(dim=0)
    quaternions = torch.nn.functional.normalize(poses[..., 3:7], dim=-1)
    products = (quaternions[..., :, None] * quaternions[..., None, :]).mean(dim=0)
    rotation = torch.linalg.eigh(products).eigenvectors[..., -1]
    rotation = torch.where(rotation[..., 3:] < 0, -rotation, rotation)
    return torch.cat([mean[..., :3], rotation, mean[..., 7:]], dim=-1)


def _clip_metrics(predicted: Tensor, true: Tensor) -> tuple[Tensor, ...]:
    """NAMES of one clip, from extrinsics T 3 4."""
    if len(true) < 2 or not bool(predicted.isfinite().all()):
        return (torch.tensor(math.nan, dtype=torch.float64, device=true.device),) * len(NAMES)
    scale, ate = align(inverse(predicted)[..., 3], inverse(true)[..., 3])
    made, wanted = (compose(track[:-1], inverse(track[1:])) for track in (predicted, true))
    steps = torch.linalg.vector_norm(scale * made[..., 3] - wanted[..., 3], dim=-1)
    turns = torch.rad2deg(rotation_angle(made[..., :3], wanted[..., :3]))
    return ate, steps.square().mean().sqrt(), turns.square().mean().sqrt(), _auc(_pair_errors(predicted, true))


def align(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scale of the similarity that brings points T 3 nearest to others, and the root mean square distance that is left.

    Least squares over scale, rotation (no mirroring) and translation: Umeyama 1991. Points on a line leave a turn about it
    open, which changes neither result. Where the target stands still (nowhere further than STILL from its mean) the scale is
    1 and nothing is turned; where the source does not move the scale is 0.
    """
    source, target = source - source.mean(dim=0), target - target.mean(dim=0)
    if float(torch.linalg.vector_norm(target, dim=-1).max()) < STILL:
        return torch.ones_like(source[0, 0]), (source - target).square().sum(dim=-1).mean().sqrt()
    spread = source.square().sum()
    u, singular, v = torch.linalg.svd(target.T @ source)
    sign = torch.ones_like(singular)
    sign[2] = torch.where(torch.linalg.det(u) * torch.linalg.det(v) < 0, -1.0, 1.0)
    scale = torch.where(spread > 0, (singular * sign).sum() / spread, 0.0)
    moved = scale * source @ ((u * sign) @ v).T
    return scale, (moved - target).square().sum(dim=-1).mean().sqrt()


def _pair_errors(predicted: Tensor, true: Tensor) -> Tensor:
    """Degrees that each pair of frames i < j is off, T (T - 1) / 2 values, from extrinsics T 3 4."""
    first, second = torch.triu_indices(len(true), len(true), offset=1, device=true.device)
    made, wanted = (compose(track[second], inverse(track[first])) for track in (predicted, true))
    turn = torch.rad2deg(rotation_angle(made[..., :3], wanted[..., :3]))
    a, b = made[..., 3], wanted[..., 3]
    cross, dot = torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(dim=-1)
    direction = torch.rad2deg(torch.atan2(cross, dot))  # exact for small angles, where acos is not
    length = torch.linalg.vector_norm(a, dim=-1)
    # What rounding leaves of a pair that does not move is no direction.
    direction = torch.where(length <= 1e-9 * length.max(), NO_DIRECTION, direction)
    direction = torch.where(torch.linalg.vector_norm(b, dim=-1) < STILL, 0.0, direction)
    return torch.maximum(turn, direction)


def _auc(errors: Tensor) -> Tensor:
    thresholds = torch.arange(1, AUC_DEGREES + 1, dtype=errors.dtype, device=errors.device)
    return (errors < thresholds[:, None]).double().mean()
