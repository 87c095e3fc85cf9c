"""The camera's way through a room: smooth, endless, always both turning and moving.

A path is a function of time in seconds, so the frames of a short clip are the first frames of a longer one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinyworld.data.rooms.motion import Vector, rotation_about, yaw_rotation
from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.trace import View

PathKind = Literal["orbit", "dolly", "truck", "pan", "crane", "walk", "handheld"]
SENTENCES: dict[PathKind, str] = {
    "orbit": "The camera orbits", "dolly": "The camera moves towards and away from", "truck": "The camera slides past",
    "pan": "The camera pans across", "crane": "The camera rises and sinks before", "walk": "The camera walks along",
    "handheld": "A handheld camera looks at",
}  # fmt: skip


@dataclass(frozen=True)
class CameraPath:
    """One path around a first position `eye` and a point looked at, `target` (room frame, metres).

    `reach` is the amplitude of the movement: metres, or radians for orbit and pan. `shake` scales a slow tremble of
    position and direction; `waves` are its twelve phases. `fov` is the field of view (rad) across the shorter side.
    """

    kind: PathKind
    eye: Vector
    target: Vector
    reach: float
    period: float
    phase: float
    fov: float
    shake: float
    waves: tuple[float, ...]

    def _middle(self, time: float) -> tuple[Array, Array]:
        """Position and point looked at, without the tremble."""
        eye, target = np.asarray(self.eye, np.float64), np.asarray(self.target, np.float64)
        u = float(np.sin(2.0 * np.pi * time / self.period + self.phase))
        w = float(np.sin(2.0 * np.pi * time / self.period * 0.5 + 2.0 * self.phase))
        forward = (target - eye) * [1.0, 1.0, 0.0]
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        up = np.array([0.0, 0.0, 1.0])
        way = u * self.reach
        if self.kind == "orbit":
            return target + yaw_rotation(way) @ (eye - target) + up * 0.08 * w, target
        if self.kind == "pan":
            eye = eye + right * 0.25 * u + up * 0.05 * w
            return eye, eye + yaw_rotation(-way) @ (target - np.asarray(self.eye))
        if self.kind == "truck":
            return eye + right * way + forward * 0.1 * w, target + right * 0.45 * way
        if self.kind == "crane":
            return eye + up * 0.6 * way + forward * 0.3 * way + right * 0.15 * w, target
        if self.kind == "walk":
            step = 0.03 * np.sin(2.0 * np.pi * 0.9 * time + self.phase) ** 2
            return eye + forward * way + right * 0.25 * way + up * step, target + right * 0.5 * way
        side = 0.25 if self.kind == "dolly" else 0.5
        return eye + forward * way + right * side * way, target

    def pose(self, time: float) -> tuple[Array, Array]:
        """Rotation (3, 3) room → camera in OpenCV's axes and the camera's position (3,), float64, at `time` seconds."""
        eye, target = self._middle(time)
        phases = np.asarray(self.waves, np.float64).reshape(6, 2)
        slow = np.sin(2.0 * np.pi * 0.45 * time + phases[:, 0]) + 0.45 * np.sin(
            2.0 * np.pi * 1.15 * time + phases[:, 1]
        )
        eye = eye + self.shake * 0.02 * slow[:3]
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        angles = self.shake * np.array([0.010, 0.012, 0.014]) * slow[3:]
        for axis in range(3):
            rotation = rotation_about(np.eye(3)[axis], angles[axis]) @ rotation
        return rotation, eye

    def view(self, time: float, height: int, width: int) -> View:
        """The pinhole camera at `time` seconds for pictures of this size: square pixels, centred principal point."""
        rotation, eye = self.pose(time)
        focal = min(height, width) / 2.0 / float(np.tan(self.fov / 2.0))
        return View(rotation, eye, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0, height, width)
