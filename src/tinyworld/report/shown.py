"""What the viewer shows: a clip, and one or more worlds made of it (predicted, true, …), as plain arrays."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from tinyworld.core.geometry import Cameras, world_points

LARGEST = 1e6
"""Points farther than this from the first camera are no points: exp of a broken depth is."""


@dataclass(frozen=True)
class ShownWorld:
    """Geometry of T pictures of h w pixels, which may be coarser than the clip's frames.

    depth: float T h w, 0 or not finite = none. points: T h w 3 in the world of the cameras, not finite = none; None: those of
    depth and cameras. confidence: T h w, higher is surer; None: unknown. cameras: T, of h w pixels, OpenCV axes.
    """

    name: str
    depth: np.ndarray
    points: np.ndarray | None
    confidence: np.ndarray | None
    cameras: Cameras

    def __post_init__(self) -> None:
        grid = self.depth.shape
        cameras = (len(self.cameras.extrinsics), self.cameras.height, self.cameras.width)
        if len(grid) != 3 or cameras != grid:
            raise ValueError(f"{self.name}: depth {grid} and cameras of (frames, height, width) {cameras}")
        if self.points is not None and self.points.shape != (*grid, 3):
            raise ValueError(f"{self.name}: points {self.points.shape} for depth {grid}")
        if self.confidence is not None and self.confidence.shape != grid:
            raise ValueError(f"{self.name}: confidence {self.confidence.shape} for depth {grid}")

    @property
    def known(self) -> np.ndarray:
        """bool T h w: where there is a depth."""
        return np.isfinite(self.depth) & (self.depth > 0)

    def every(self, frames: slice, stride: int) -> "ShownWorld":
        """These frames, and every stride-th row and column: pixel centre u becomes u / stride."""
        at = (frames, slice(None, None, stride), slice(None, None, stride))
        depth = self.depth[at]
        cameras = Cameras(
            self.cameras.extrinsics[frames], self.cameras.intrinsics[frames] / stride, depth.shape[1], depth.shape[2]
        )
        points = None if self.points is None else self.points[at]
        confidence = None if self.confidence is None else self.confidence[at]
        return ShownWorld(self.name, depth, points, confidence, cameras)

    def placed(self) -> tuple[np.ndarray, np.ndarray]:
        """Points float64 T h w 3 in the world, and bool T h w where there is one."""
        if self.points is not None:
            points = self.points.astype(np.float64)
        else:
            depth = torch.from_numpy(np.where(self.known, self.depth, 0).astype(np.float64))
            points = world_points(depth, self.cameras.to("cpu", torch.float64)).numpy()
        with np.errstate(invalid="ignore"):
            valid = np.asarray((np.abs(points) <= LARGEST).all(-1))
        if self.points is None:
            valid &= self.known
        return points, valid


@dataclass(frozen=True)
class ShownScene:
    """frames: uint8 T H W 3. scale: metres per unit, 1 where unknown. facts: label → value, as the page tells them. asked: the
    cameras that the clip was made to follow, in the worlds' unit; None where there were none."""

    name: str
    frames: np.ndarray
    worlds: tuple[ShownWorld, ...]
    fps: float
    scale: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)
    asked: Cameras | None = None

    def __post_init__(self) -> None:
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[3] != 3 or not self.frames.size:
            raise ValueError(f"frames are uint8 T H W 3, not {self.frames.dtype} {self.frames.shape}")
        if not self.worlds or any(len(world.depth) != len(self.frames) for world in self.worlds):
            raise ValueError(f"{self.name}: a scene has one world or more, each with the {len(self.frames)} frames")

    def thinned(self, most_frames: int) -> "ShownScene":
        """At most that many frames, evenly spaced from the first, at the pace they had."""
        step = -(-len(self.frames) // most_frames)
        if step == 1:
            return self
        worlds = tuple(world.every(slice(None, None, step), 1) for world in self.worlds)
        return replace(self, frames=self.frames[::step], worlds=worlds, fps=self.fps / step)
