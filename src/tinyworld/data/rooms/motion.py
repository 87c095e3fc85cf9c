"""How things move: a pose for every moment, in metres and seconds, for all time (every motion repeats).

The room's frame is right-handed with z up; a thing's own frame is turned by its yaw and then moved as told here.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinyworld.data.rooms.noise import Array

Vector = tuple[float, float, float]
MotionKind = Literal["roll", "bounce", "slide", "turn", "swing", "circle", "float"]


def rotation_about(axis: Vector | Array, angle: float) -> Array:
    """The 3 × 3 rotation by `angle` radians about `axis` (Rodrigues' formula), float64."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def yaw_rotation(yaw: float) -> Array:
    """The rotation about the vertical."""
    return rotation_about((0.0, 0.0, 1.0), yaw)


@dataclass(frozen=True)
class Motion:
    """One repeating movement.

    `reach` is the way from the middle to the end (m) in the room's frame for roll, slide and float, the height for
    bounce (its z), the radius for circle (its x); `angle` is the amplitude of a swing or the turn in one period (rad);
    `radius` is a rolling ball's radius (m); `phase` shifts the start by a share of the period.
    """

    kind: MotionKind
    period: float
    phase: float = 0.0
    reach: Vector = (0.0, 0.0, 0.0)
    angle: float = 0.0
    radius: float = 1.0

    def pose(self, time: float) -> tuple[Array, Array]:
        """Rotation (3, 3) about the thing's own origin and shift (3,) of that origin, at `time` seconds."""
        turn = 2.0 * np.pi * (time / self.period + self.phase)
        reach = np.asarray(self.reach, np.float64)
        still = np.zeros(3)
        if self.kind == "turn":
            return yaw_rotation(self.angle * turn / (2.0 * np.pi)), still
        if self.kind == "swing":
            return rotation_about(self.reach, self.angle * np.sin(turn)), still
        if self.kind == "circle":
            arm = self.reach[0] * np.array([np.cos(turn), np.sin(turn), 0.0])
            return yaw_rotation(turn + np.pi / 2), arm
        if self.kind == "bounce":
            share = (turn / (2.0 * np.pi)) % 1.0
            height = self.reach[2] * (1.0 - (2.0 * share - 1.0) ** 2)
            return rotation_about((0.3, 1.0, 0.2), self.angle * np.sin(turn)), np.array([0.0, 0.0, height])
        shift = reach * np.sin(turn)
        if self.kind == "roll":
            way = float(np.linalg.norm(reach))
            axis = np.cross([0.0, 0.0, 1.0], reach / way)
            return rotation_about(axis, way * np.sin(turn) / self.radius), shift
        return yaw_rotation(self.angle * np.sin(turn)), shift
