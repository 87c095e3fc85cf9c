"""Coloured point clouds of scenes, and PLY files of them that every viewer opens."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from tinyworld.core.errors import ConfigError
from tinyworld.core.files import write_atomic
from tinyworld.core.geometry import Cameras, to_camera, world_points

if TYPE_CHECKING:  # a scene's folder holds a cloud: scene.py imports this file
    from tinyworld.infer.world.scene import Scene

Source = Literal["depth", "points"]
VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")],
)
PLY_TYPES = {"<f4": "float", "|u1": "uchar"}
LARGEST = 1e6
"""Points farther than this many units from the first camera are left out: no scene is that large, exp of a broken depth is."""


@dataclass(frozen=True)
class CloudOptions:
    """How a cloud is made. Raises ConfigError for values outside their ranges.

    source: "depth": depth unprojected with the cameras, as the release does; "points": the point map.
    percentile: of the confidences of valid pixels, 0 to below 100: pixels below it are left out.
    voxel: edge in the scene's units; all points in a voxel become one, at their mean place with their mean colour. 0: all stay.
    stride: every how many rows and columns a pixel is taken; the release takes 4.
    drop_sky: pixels deeper than this many times the clip's median depth are left out; None: none. Models give sky a large but
    finite depth, and a few times the median separates it outdoors; indoors there is nothing to drop.
    """

    source: Source = "depth"
    percentile: float = 10.0
    voxel: float = 0.005
    stride: int = 2
    drop_sky: float | None = None

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ConfigError(f"cloud source is {self.source!r}; it must be one of {', '.join(get_args(Source))}.")
        if not 0 <= self.percentile < 100:
            raise ConfigError(f"cloud percentile is {self.percentile}; it must be 0 (all points) to below 100.")
        if not 0 <= self.voxel < float("inf"):
            raise ConfigError(
                f"cloud voxel is {self.voxel}; it must be 0 (off) or a length above 0 in the scene's units."
            )
        if self.stride < 1:
            raise ConfigError(f"cloud stride is {self.stride}; it must be 1 (every pixel) or more.")
        if self.drop_sky is not None and not self.drop_sky > 0:
            raise ConfigError(
                f"cloud drop_sky is {self.drop_sky}; it must be above 0, times the median depth (5 is a good value), or none."
            )


@dataclass(frozen=True)
class Cloud:
    """points: float32 N 3, in the world and the units of the scene. colours: uint8 N 3, RGB."""

    points: np.ndarray
    colours: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.points)
        if self.points.shape != (count, 3) or self.points.dtype != np.float32:
            raise ValueError(f"points are float32 N 3, not {self.points.dtype} {self.points.shape}")
        if self.colours.shape != (count, 3) or self.colours.dtype != np.uint8:
            raise ValueError(f"colours are uint8 {count} 3, not {self.colours.dtype} {self.colours.shape}")

    def thinned(self, most: int) -> "Cloud":
        """At most this many points, taken evenly along the cloud's order."""
        if len(self.points) <= most:
            return self
        at = np.arange(most) * len(self.points) // most
        return Cloud(self.points[at], self.colours[at])


def cloud_of(
    scene: "Scene",
    source: Source = CloudOptions.source,
    percentile: float = CloudOptions.percentile,
    voxel: float = CloudOptions.voxel,
    stride: int = CloudOptions.stride,
    drop_sky: float | None = CloudOptions.drop_sky,
) -> Cloud:
    """The coloured points of all frames of a scene; see `CloudOptions`. The same scene gives the same cloud.

    Raises ConfigError for options outside their ranges and for source "points" where the scene has no point map.
    """
    options = CloudOptions(source, percentile, voxel, stride, drop_sky)
    every = (slice(None), slice(None, None, options.stride), slice(None, None, options.stride))
    frames, depth, confidence = scene.frames[every], scene.depth[every], scene.confidence[every]
    cameras = _strided(scene.cameras, options.stride)
    if options.source == "points":
        if scene.points is None:
            raise ConfigError('cloud source is "points", but the scene has no point map; choose "depth".')
        points = scene.points[every].astype(np.float64)
        confidence = confidence if scene.point_confidence is None else scene.point_confidence[every]
        depth = to_camera(torch.from_numpy(points), cameras.extrinsics)[..., 2].numpy()
    else:
        points = world_points(torch.from_numpy(depth.astype(np.float64)), cameras).numpy()
    mask = np.isfinite(depth) & (depth > 0) & np.isfinite(confidence) & (np.abs(points) <= LARGEST).all(-1)
    if mask.any():
        mask = _chosen(mask, depth, confidence, options)
    kept, colours = points[mask], frames[mask]
    if options.voxel > 0:
        return _merged(kept, colours, options.voxel)
    return Cloud(kept.astype(np.float32), np.ascontiguousarray(colours))


def _strided(cameras: Cameras, stride: int) -> Cameras:
    """The cameras of the pictures whose pixels are every stride-th of the old: pixel centre u becomes u / stride."""
    height, width = -(-cameras.height // stride), -(-cameras.width // stride)
    return Cameras(cameras.extrinsics.cpu().double(), cameras.intrinsics.cpu().double() / stride, height, width)


def _chosen(mask: np.ndarray, depth: np.ndarray, confidence: np.ndarray, options: CloudOptions) -> np.ndarray:
    """The valid pixels without the unsure and, if asked, without the sky; medians and percentiles are those of valid pixels."""
    least = np.percentile(confidence[mask], options.percentile)
    kept = mask & (confidence >= least)
    if options.drop_sky is not None:
        kept &= depth <= options.drop_sky * np.median(depth[mask])
    return kept


def _merged(points: np.ndarray, colours: np.ndarray, voxel: float) -> Cloud:
    """One point per voxel, in the order of the voxels' z, y, x: means in float64, which do not depend on the machine."""
    cells = np.floor(points / voxel)
    order = np.lexsort(cells.T)
    cells = cells[order]
    first = np.ones(len(cells), dtype=bool)
    first[1:] = (cells[1:] != cells[:-1]).any(1)
    groups = np.cumsum(first) - 1
    count = np.bincount(groups)[:, None]
    values = np.concatenate([points, colours], 1)[order]
    sums = np.stack([np.bincount(groups, column) for column in values.T], 1)
    means = sums / count
    return Cloud(means[:, :3].astype(np.float32), np.rint(means[:, 3:]).astype(np.uint8))


def write_ply(cloud: Cloud, path: str | Path) -> None:
    """Write a binary little-endian PLY, float x y z and uchar red green blue; complete or absent."""
    vertices = np.empty(len(cloud.points), VERTEX)
    for axis, name in enumerate(("x", "y", "z")):
        vertices[name] = cloud.points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = cloud.colours[:, channel]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property {PLY_TYPES[VERTEX[name].str]} {name}" for name in VERTEX.names or ()]
    header = "\n".join([*lines, "end_header"]) + "\n"
    write_atomic(Path(path), header.encode() + vertices.tobytes())
