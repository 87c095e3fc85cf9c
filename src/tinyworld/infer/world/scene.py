"""A scene: frames, depth, points and cameras of one world, in memory and as a folder that other tools open.

The folder, everything in the scene's unit (`scale` metres), world = the first camera, OpenCV axes:

| file | holds |
|---|---|
| video.mp4, depth.mp4 | the frames; depth as colours, near is bright |
| images/frame_00000.png, … | the frames without loss |
| depth/000000.npy, … | float32 H W, 0 = none |
| confidence.npz | confidence of depth, float32 T H W; `point_confidence` too where there is one |
| points.npz | the point map, float32 T H W 3, where there is one |
| cameras.txt, cameras.json | world→camera, 19 columns; the release's JSON where that can hold them |
| cloud.ply | coloured points |
| transforms.json | cameras for nerfstudio and what reads its form |
| colmap/sparse/0, colmap/images | cameras, pictures and points for COLMAP and what reads its form |
| scene.json, manifest.json | sizes, scale and facts; the digest of every file |
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tinyworld.core.errors import ConfigError, DataError, MissingFileError
from tinyworld.core.files import staged_folder, verify_folder, write_json
from tinyworld.core.geometry import Cameras
from tinyworld.infer.world.cloud import Cloud, CloudOptions, cloud_of, write_ply
from tinyworld.infer.world.colmap import write_colmap
from tinyworld.infer.world.nerfstudio import write_transforms
from tinyworld.media.camera_files import read_cameras, write_cameras
from tinyworld.media.colour import colour_depth, depth_range
from tinyworld.media.depth_files import list_frames, read_depth
from tinyworld.media.png import write_png
from tinyworld.media.write import VideoWriter

FORM = 1
"""Of the folder, in scene.json: raised when an older reader would misunderstand."""


@dataclass(frozen=True)
class Scene:
    """One world, as NumPy arrays. Raises ValueError where shapes or number types do not fit together.

    frames: uint8 T H W 3. depth: float32 T H W in units of `scale` metres, 0 = none. confidence: float32 T H W, 1 and above.
    points: float32 T H W 3 in the world of the first camera, not finite = none. cameras: T, float64, the first extrinsics the
    identity. fps: frames a second. scale: metres per unit, 1 where unknown. facts: prompt, seed, steps, …, ready for JSON.
    """

    frames: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    points: np.ndarray | None
    point_confidence: np.ndarray | None
    cameras: Cameras
    fps: float
    scale: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[3] != 3 or not self.frames.size:
            raise ValueError(f"frames are uint8 T H W 3, not {self.frames.dtype} {self.frames.shape}")
        grid = self.frames.shape[:3]
        maps = {"depth": self.depth, "confidence": self.confidence, "point_confidence": self.point_confidence}
        for name, values in maps.items():
            if values is not None and (values.dtype != np.float32 or values.shape != grid):
                raise ValueError(f"{name} is float32 {grid}, as the frames, not {values.dtype} {values.shape}")
        if self.points is not None and (self.points.dtype != np.float32 or self.points.shape != (*grid, 3)):
            raise ValueError(f"points are float32 {(*grid, 3)}, not {self.points.dtype} {self.points.shape}")
        cameras = (len(self.cameras.extrinsics), self.cameras.height, self.cameras.width)
        if self.cameras.extrinsics.dim() != 3 or cameras != grid:
            raise ValueError(f"cameras of {cameras} (frames, height, width) for frames of {grid}")
        if not self.fps > 0 or not self.scale > 0:
            raise ValueError(f"fps {self.fps} and scale {self.scale} must be above 0")

    @property
    def height(self) -> int:
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        return int(self.frames.shape[2])


def write_scene(scene: Scene, folder: str | Path, options: CloudOptions = CloudOptions()) -> None:
    """Write the folder described above, complete or not at all; a scene that stood there is replaced when it is complete.

    Raises ConfigError when `folder` is a file, or a folder that holds something else.
    """
    folder = Path(folder)
    if folder.exists() and not _may_replace(folder):
        raise ConfigError(
            f"{folder}: there is something there that is not a scene of tinyworld's, and it will not be replaced. Give the "
            "scene a folder of its own."
        )
    cloud = cloud_of(scene, **asdict(options))
    with staged_folder(folder) as staging:
        images = _write_images(scene, staging)
        _write_videos(scene, staging)
        _write_arrays(scene, staging)
        write_cameras(staging / "cameras.txt", scene.cameras, "re10k")
        with contextlib.suppress(
            DataError
        ):  # one focal length and the middle as principal point is all this form can say
            write_cameras(staging / "cameras.json", scene.cameras, "json")
        write_ply(cloud, staging / "cloud.ply")
        write_transforms(
            staging / "transforms.json", scene.cameras, [f"images/{path.name}" for path in images], "cloud.ply"
        )
        write_colmap(staging / "colmap", scene.cameras, scene.depth, cloud, images)
        write_json(staging / "scene.json", _description(scene, cloud, options))


def read_scene(folder: str | Path) -> Scene:
    """The scene of a folder that `write_scene` wrote; frames are those of images/, without the video's loss.

    Raises MissingFileError for no such folder, DataError naming what is wrong for anything that is not a whole scene.
    """
    folder = Path(folder)
    if not (folder / "scene.json").is_file():
        raise MissingFileError(f"{folder}: no scene there: a scene is a folder with the file scene.json.")
    problems = verify_folder(folder, content=False)
    if problems:
        raise DataError(f"{folder}: not a whole scene: {'; '.join(problems[:3])}.")
    told = _read_description(folder)
    frames = _read_images(list_frames(folder / "images", (".png",)))
    depth = np.stack([read_depth(path) for path in list_frames(folder / "depth", (".npy",))])
    confidence = _read_arrays(folder / "confidence.npz")
    points = _read_arrays(folder / "points.npz")["points"] if (folder / "points.npz").is_file() else None
    count, height, width, _ = frames.shape
    cameras = read_cameras(folder / "cameras.txt", height, width, frames=count)
    return Scene(
        frames,
        depth,
        confidence["confidence"],
        points,
        confidence.get("point_confidence"),
        cameras,
        float(told["fps"]),
        float(told["scale"]),
        dict(told["facts"]),
    )


def _may_replace(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "scene.json").is_file() or not any(folder.iterdir()))


def _write_images(scene: Scene, folder: Path) -> list[Path]:
    paths = [folder / "images" / f"frame_{number:05d}.png" for number in range(len(scene.frames))]
    for path, frame in zip(paths, scene.frames, strict=True):
        write_png(path, frame)
    return paths


def _write_videos(scene: Scene, folder: Path) -> None:
    mask = np.isfinite(scene.depth) & (scene.depth > 0)
    near, far = depth_range(scene.depth, mask)
    with (
        VideoWriter(folder / "video.mp4", scene.width, scene.height, scene.fps) as video,
        VideoWriter(folder / "depth.mp4", scene.width, scene.height, scene.fps) as coloured,
    ):
        for frame, depth, valid in zip(scene.frames, scene.depth, mask, strict=True):
            video.write(frame)
            coloured.write(colour_depth(depth, valid, near, far))


def _write_arrays(scene: Scene, folder: Path) -> None:
    (folder / "depth").mkdir()
    for number, depth in enumerate(scene.depth):
        np.save(folder / "depth" / f"{number:06d}.npy", depth)
    if scene.point_confidence is None:
        np.savez(folder / "confidence.npz", confidence=scene.confidence)
    else:
        np.savez(folder / "confidence.npz", confidence=scene.confidence, point_confidence=scene.point_confidence)
    if scene.points is not None:
        np.savez(folder / "points.npz", points=scene.points)


def _description(scene: Scene, cloud: Cloud, options: CloudOptions) -> dict[str, Any]:
    return {
        "form": FORM,
        "frames": len(scene.frames),
        "height": scene.height,
        "width": scene.width,
        "fps": scene.fps,
        "scale": scene.scale,
        "scale_means": "metres per unit of depth, points and translations; 1 where unknown",
        "cloud": {"points": len(cloud.points), **asdict(options)},
        "facts": scene.facts,
    }


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "scene.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged: {error}") from error
    if not isinstance(told, dict) or told.get("form") != FORM or not {"fps", "scale", "facts"} <= set(told):
        raise DataError(f"{path}: not the description of a scene in form {FORM}, the one this version reads.")
    return told


def _read_images(paths: Sequence[Path]) -> np.ndarray:
    pictures = []
    for path in paths:
        try:
            with Image.open(path, formats=["PNG"]) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: damaged PNG: {error}") from error
    return np.stack(pictures)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}
