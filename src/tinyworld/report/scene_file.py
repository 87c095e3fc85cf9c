"""The geometry of a held-out clip as one small file, for the pages: frames, and depth, points and cameras of each world.

An .npz, about a megabyte at most: WebP frames, float16 depth, points and confidence at every so many pixels, float32 cameras.
It is something to look at, not to measure.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.core.files import json_ready, write_atomic
from tinyworld.core.geometry import Cameras
from tinyworld.report.pictures import encoded
from tinyworld.report.shown import ShownScene, ShownWorld

FORM = 1
MOST_FRAMES = 25
MOST_PIXELS = 40_000
"""Of depth, all frames together."""
PICTURE_WIDTH = 320
HALF_LARGEST = 60_000.0
"""Below the largest float16."""


def write_scene_file(path: str | Path, scene: ShownScene) -> None:
    """Write a scene, complete or absent: at most MOST_FRAMES frames, evenly spaced, and every so many pixels of its maps."""
    scene = scene.thinned(MOST_FRAMES)
    pictures = [np.frombuffer(encoded(frame, PICTURE_WIDTH), np.uint8) for frame in scene.frames]
    arrays = {f"frame_{number}": picture for number, picture in enumerate(pictures)}
    about = {
        "form": FORM,
        "name": scene.name,
        "frames": len(pictures),
        "fps": scene.fps,
        "scale": scene.scale,
        "facts": scene.facts,
        "worlds": [_described(world) for world in scene.worlds],
    }
    for number, world in enumerate(scene.worlds):
        stride = next(s for s in range(1, 10_000) if world.depth[:, ::s, ::s].size <= max(MOST_PIXELS, len(pictures)))
        arrays |= {f"{key}_{number}": value for key, value in _arrays(world.every(slice(None), stride)).items()}
    file = io.BytesIO()
    text = json.dumps(json_ready(about), ensure_ascii=False).encode()
    np.savez_compressed(file, about=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
    write_atomic(Path(path), file.getvalue())


def _described(world: ShownWorld) -> dict[str, Any]:
    return {"name": world.name, "points": world.points is not None, "confidence": world.confidence is not None}


def _arrays(world: ShownWorld) -> dict[str, np.ndarray]:
    known = world.known & (world.depth <= HALF_LARGEST)
    arrays: dict[str, np.ndarray] = {
        "depth": np.where(known, world.depth, 0).astype(np.float16),
        "extrinsics": world.cameras.extrinsics.cpu().numpy().astype(np.float32),
        "intrinsics": world.cameras.intrinsics.cpu().numpy().astype(np.float32),
    }
    if world.points is not None:
        with np.errstate(invalid="ignore"):
            far = np.abs(world.points) > HALF_LARGEST
        arrays["points"] = np.where(far, np.nan, world.points).astype(np.float16)
    if world.confidence is not None:
        arrays["confidence"] = np.clip(np.nan_to_num(world.confidence), 0, HALF_LARGEST).astype(np.float16)
    return arrays


def read_scene_file(path: str | Path) -> ShownScene:
    """The scene that `write_scene_file` wrote. Raises MissingFileError, or DataError for a damaged or another file."""
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as loaded:
            about = json.loads(loaded["about"].tobytes())
            if about["form"] != FORM:
                raise DataError(f"{path}: a scene in form {about['form']}; this version reads form {FORM}.")
            frames = np.stack([_picture(loaded[f"frame_{number}"]) for number in range(about["frames"])])
            worlds = tuple(_world(loaded, number, told) for number, told in enumerate(about["worlds"]))
        return ShownScene(about["name"], frames, worlds, float(about["fps"]), float(about["scale"]), about["facts"])
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise DataError(f"{path}: not a scene of a held-out clip, or damaged: {error}") from error


def _picture(content: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(content.tobytes()), formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGB"))


def _world(loaded: Mapping[str, np.ndarray], number: int, told: dict[str, Any]) -> ShownWorld:
    def maps(key: str) -> np.ndarray:
        return loaded[f"{key}_{number}"].astype(np.float32)

    depth = maps("depth")
    extrinsics, intrinsics = (torch.from_numpy(maps(key)).double() for key in ("extrinsics", "intrinsics"))
    cameras = Cameras(extrinsics, intrinsics, *depth.shape[1:])
    points = maps("points") if told["points"] else None
    return ShownWorld(str(told["name"]), depth, points, maps("confidence") if told["confidence"] else None, cameras)
