"""A scene of one slanted plane, seen exactly: depth, points and cameras agree to rounding."""

import numpy as np
import torch

from tinyworld.core.geometry import Cameras, inverse, pixel_rays, world_points
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.infer.world.scene import Scene

NORMAL, DISTANCE = np.array([0.2, -0.1, 1.0]), 1.2


def plane_scene(frames: int = 3, height: int = 18, width: int = 22, seed: int = 0, path: str = "orbit:20deg") -> Scene:
    rng = np.random.default_rng(seed)
    cameras = cameras_for(path, frames, height, width)
    depth = plane_depth(cameras).astype(np.float32)
    points = world_points(torch.from_numpy(depth).double(), cameras).numpy().astype(np.float32)
    return Scene(
        rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8),
        depth,
        (1 + rng.random(depth.shape)).astype(np.float32),
        points,
        (1 + rng.random(depth.shape)).astype(np.float32),
        cameras,
        fps=12.0,
        scale=2.5,
        facts={"prompt": "a plane", "seed": 3, "steps": [1, 2]},
    )


def plane_depth(cameras: Cameras) -> np.ndarray:
    """T H W: z of the plane in every pixel's ray."""
    x, y = torch.broadcast_tensors(*pixel_rays(cameras.intrinsics, cameras.height, cameras.width))
    rays = torch.stack([x, y, torch.ones_like(x)], -1).numpy()
    outward = inverse(cameras.extrinsics).numpy()
    directions = np.einsum("tij,thwj->thwi", outward[..., :3], rays)
    return (DISTANCE - outward[..., 3] @ NORMAL)[:, None, None] / (directions @ NORMAL)
