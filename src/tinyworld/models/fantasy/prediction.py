"""What the geometry branch predicts for a clip."""

from typing import NamedTuple

from torch import Tensor


class Geometry(NamedTuple):
    """Geometry of B clips of T frames, all fp32, lengths in units of the clip's scale, the world that of the first camera.

    depth, depth_confidence: B T H W, z depth > 0 and confidence > 1. points, point_confidence: B T H W 3 and B T H W.
    poses: B T 9 of every iteration of the camera head, the last is the answer: translation (3) and quaternion XYZW (4, any
    norm) of the world→camera extrinsics, vertical and horizontal field of view (2, radians, >= 0).
    """

    depth: Tensor
    depth_confidence: Tensor
    points: Tensor
    point_confidence: Tensor
    poses: tuple[Tensor, ...]
