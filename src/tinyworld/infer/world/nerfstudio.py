"""Cameras as transforms.json, the form of nerfstudio and instant-ngp.

Their cameras look along -z with y up (OpenGL), ours along z with y down: the columns y and z of camera→world change their
sign, the world stays as it is, and so does the cloud. Principal points count from the picture's edge: ours plus 0.5.
Source: docs.nerf.studio, "Data conventions".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyworld.core.files import write_json
from tinyworld.core.geometry import Cameras, inverse

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def write_transforms(path: Path, cameras: Cameras, images: Sequence[str], cloud: str) -> None:
    """Write transforms.json of one clip (T). images: T paths, cloud: the PLY's path, all relative to the file's folder.

    Intrinsics stand at the top where all frames share them, as some readers want it, else with each frame.
    """
    values = cameras.intrinsics.detach().cpu().double().numpy()
    outward = inverse(cameras.extrinsics.detach().cpu().double()).numpy()
    shared = bool((values == values[0]).all())
    listed = []
    for image, matrix, row in zip(images, outward, values, strict=True):
        whole = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]]) @ OPENGL
        own = {} if shared else _lens(cameras, row)
        listed.append({"file_path": image, **own, "transform_matrix": whole.tolist()})
    top = _lens(cameras, values[0]) if shared else {}
    write_json(path, {"camera_model": "OPENCV", **top, "ply_file_path": cloud, "frames": listed})


def _lens(cameras: Cameras, values: np.ndarray) -> dict[str, Any]:
    fx, fy, cx, cy = (float(value) for value in values)
    return {"w": cameras.width, "h": cameras.height, "fl_x": fx, "fl_y": fy, "cx": cx + 0.5, "cy": cy + 0.5}
