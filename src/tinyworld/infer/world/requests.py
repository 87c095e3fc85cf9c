"""One request or a list of them: prompts, pictures, cameras and seeds side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.geometry import Cameras
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.infer.world.conditions import Clip
from tinyworld.infer.world.pictures import Picture, fitted, open_picture

Camera = Cameras | str | Path
Source = int | torch.Generator
SEED_RANGE = 2**62


@dataclass(frozen=True)
class Requests:
    """B samples. many: whether lists were given, so that a list is wanted back. cameras: as the model is given
    them, in the world of the first one and the scene's unit. words: for cameras, where they were asked for in words."""

    prompts: list[str]
    negative: list[str]
    pictures: list[np.ndarray | None]
    cameras: list[Cameras | None]
    words: list[str | None]
    seeds: list[int]
    many: bool


def requests_of(
    clip: Clip,
    prompt: str | Sequence[str],
    negative: str | Sequence[str],
    image: Picture | Sequence[Picture | None] | None,
    camera: Camera | Sequence[Camera | None] | None,
    generator: Source | Sequence[Source] | None,
    camera_scale: float,
    camera_options: Mapping[str, Any],
) -> Requests:
    """Lists have one length, what is no list counts for all. Raises ConfigError, and what reading pictures and cameras raises."""
    given = {"prompt": prompt, "negative_prompt": negative, "image": image, "camera": camera, "generator": generator}
    lengths = {name: len(value) for name, value in given.items() if isinstance(value, list | tuple)}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"Lists of one request must be equally long and not empty: {told}.")
    count = next(iter(lengths.values()), 1)
    columns = {name: _column(value, count) for name, value in given.items() if name != "generator"}
    return Requests(
        columns["prompt"],
        columns["negative_prompt"],
        [None if source is None else fitted_picture(source, clip) for source in columns["image"]],
        [
            None if asked is None else cameras_of(asked, clip, camera_scale, camera_options)
            for asked in columns["camera"]
        ],
        [str(asked) if isinstance(asked, str | Path) else None for asked in columns["camera"]],
        seeds_of(generator, count),
        bool(lengths),
    )


def fitted_picture(source: Picture, clip: Clip) -> np.ndarray:
    """uint8 H W 3 in the clip's size."""
    return fitted(open_picture(source)[None], clip.height, clip.width)[0]


def cameras_of(asked: Camera, clip: Clip, scale: float, options: Mapping[str, Any]) -> Cameras:
    """Cameras of a clip in the world of the first one, in the scene's unit, float64.

    asked: `Cameras` or a file, whose lengths are divided by `scale`; a named path or a text, which are in the scene's unit.
    options: of `camera_paths.cameras_for`. Raises DataError for cameras of another clip, and what reading raises.
    """
    if not isinstance(asked, Cameras):
        made = cameras_for(asked, clip.frames, clip.height, clip.width, **options)
        return made.relative().scaled(scale) if _is_file(asked) else made
    size = (len(asked.extrinsics), asked.height, asked.width)
    if asked.extrinsics.dim() != 3 or size != (clip.frames, clip.height, clip.width):
        raise DataError(
            f"cameras of {size} (frames, height, width) were given for a clip of {(clip.frames, clip.height, clip.width)}: use "
            "their select(), cropped() and resized(), or another clip."
        )
    return asked.to(torch.float64).relative().scaled(scale)


def _is_file(asked: str | Path) -> bool:
    """Of something that has been read: whether it was a file."""
    try:
        return Path(asked).is_file()
    except OSError:  # a text that is too long for a name
        return False


def _column(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] * count


def seeds_of(generator: Source | Sequence[Source] | None, count: int) -> list[int]:
    """One seed per sample: a number s gives s, s + 1, …; a generator is drawn from once per sample; None is 0."""
    if isinstance(generator, list | tuple):
        return [seeds_of(source, 1)[0] for source in generator]
    if isinstance(generator, torch.Generator):
        drawn = torch.randint(SEED_RANGE, (count,), generator=generator, device=generator.device)
        return [int(seed) for seed in drawn]
    assert generator is None or isinstance(generator, int)
    return [(generator or 0) + place for place in range(count)]
