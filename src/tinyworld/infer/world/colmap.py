"""A COLMAP model as text, with the pictures: what Gaussian splatting tools start from.

Layout: images/ and sparse/0/{cameras,images,points3D}.txt. COLMAP's cameras are ours (world→camera, OpenCV axes), its
quaternions begin with w, and its pixels count from the picture's edge: the top left pixel's centre is (0.5, 0.5).
Source: colmap.github.io/format.html.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tinyworld.core.files import hard_link, write_atomic
from tinyworld.core.geometry import Cameras, matrix_to_quaternion, project, to_camera
from tinyworld.infer.world.cloud import Cloud

MOST_POINTS = 100_000
MOST_OBSERVATIONS = 1000
"""In each picture. Text is slow to read, and splatting needs the points' places, not all their observations."""
SAME_DEPTH = 0.02
"""A point is seen where the picture's depth is the point's, up to this part of it."""

Observation = tuple[int, float, float]


def write_colmap(folder: Path, cameras: Cameras, depth: np.ndarray, cloud: Cloud, images: Sequence[Path]) -> None:
    """Write the model of one clip into a new folder.

    cameras: T. depth: float T H W, 0 = none, for what is seen where. images: T files, which appear under images/ without
    taking space twice where the file system can. Of large clouds 100,000 points are taken evenly.
    """
    model = folder / "sparse/0"
    pictures = folder / "images"
    for new in (model, pictures):
        new.mkdir(parents=True)
    for image in images:
        hard_link(image, pictures / image.name)
    extrinsics, values = cameras.extrinsics.detach().cpu().double(), cameras.intrinsics.detach().cpu().double()
    small = cloud.thinned(MOST_POINTS)
    points = torch.from_numpy(small.points).double()
    shared = bool((values == values[0]).all())
    lenses = values[:1] if shared else values
    write_atomic(model / "cameras.txt", _cameras_text(lenses.numpy(), cameras.height, cameras.width))
    tracks: list[list[str]] = [[] for _ in small.points]
    lines = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME", "# X Y POINT3D_ID, ..."]
    for number, image in enumerate(images, 1):
        matrix, lens = extrinsics[number - 1], values[number - 1]
        seen = _observations(points, matrix, lens, depth[number - 1])
        for position, (point, _, _) in enumerate(seen):
            tracks[point].append(f"{number} {position}")
        lines += [_pose(number, matrix, 1 if shared else number, image.name), _observed(seen, lens)]
    write_atomic(model / "images.txt", "\n".join(lines) + "\n")
    write_atomic(model / "points3D.txt", _points_text(small, tracks))


def _cameras_text(lenses: np.ndarray, height: int, width: int) -> str:
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY"]
    for number, (fx, fy, cx, cy) in enumerate(lenses.tolist(), 1):
        lines.append(f"{number} PINHOLE {width} {height} {fx!r} {fy!r} {cx + 0.5!r} {cy + 0.5!r}")
    return "\n".join(lines) + "\n"


def _pose(number: int, matrix: torch.Tensor, camera: int, name: str) -> str:
    x, y, z, w = matrix_to_quaternion(matrix[:, :3]).tolist()
    numbers = " ".join(repr(value) for value in (w, x, y, z, *matrix[:, 3].tolist()))
    return f"{number} {numbers} {camera} {name}"


def _observations(
    points: torch.Tensor, matrix: torch.Tensor, lens: torch.Tensor, depth: np.ndarray
) -> list[Observation]:
    """Which points a picture of depth H W shows and where (u, v, centres at whole numbers); some, evenly, where many."""
    height, width = depth.shape
    u, v, z = project(to_camera(points, matrix), lens).numpy().T
    inside = np.flatnonzero((u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5))
    met = depth[np.floor(v[inside] + 0.5).astype(int), np.floor(u[inside] + 0.5).astype(int)]
    seen = inside[np.abs(met - z[inside]) <= SAME_DEPTH * z[inside]]
    if len(seen) > MOST_OBSERVATIONS:
        seen = seen[np.arange(MOST_OBSERVATIONS) * len(seen) // MOST_OBSERVATIONS]
    return [(int(point), float(u[point]), float(v[point])) for point in seen]


def _observed(seen: list[Observation], lens: torch.Tensor) -> str:
    """A picture's second line. Some readers stop at an empty one: a picture that shows no point gets a pixel of no point."""
    if not seen:
        return f"{lens[2].item() + 0.5:.3f} {lens[3].item() + 0.5:.3f} -1"
    return " ".join(f"{u + 0.5:.3f} {v + 0.5:.3f} {point + 1}" for point, u, v in seen)


def _points_text(cloud: Cloud, tracks: list[list[str]]) -> str:
    lines = ["# POINT3D_ID X Y Z R G B ERROR, IMAGE_ID POINT2D_IDX, ..."]
    for number, (point, colour, track) in enumerate(
        zip(cloud.points.tolist(), cloud.colours.tolist(), tracks, strict=True), 1
    ):
        place = " ".join(f"{value:.8g}" for value in point)
        lines.append(" ".join([str(number), place, *map(str, colour), "0", *track]))
    return "\n".join(lines) + "\n"
