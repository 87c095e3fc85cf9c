"""What `tinyworld evaluate fantasy` looks at: a run's held-out samples, a data set, scenes, videos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import ConfigError, DataError, FramePlanError, MissingFileError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tinyworld.data.worlds.scan import WorldRef
    from tinyworld.infer.world.conditions import Clip
    from tinyworld.infer.world.evaluate import Labelled

Kind = Literal["run", "set", "scene", "video"]


@dataclass(frozen=True)
class Windows:
    """Which windows are cut. step: between frames; None is 1, or of a run's samples that of its training. windows: of each
    clip. most: clips of a set, None for all."""

    clip: "Clip"
    step: int | None = None
    windows: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("--step", self.step), ("--windows", self.windows), ("--max_clips", self.most)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} must be at least 1.")


def kind_of(path: Path) -> Kind:
    """What a path is, by what lies there. Raises MissingFileError."""
    if path.is_file():
        return "video"
    if not path.is_dir():
        raise MissingFileError(
            f"{path}: there is nothing. Give a data set with depth and cameras, a run (its held-out samples are taken), a scene "
            "written by generate or lift, or a video."
        )
    if (path / "scene.json").is_file():
        return "scene"
    return "run" if (path / "config.yaml").is_file() else "set"


def labelled_windows(path: Path, wanted: Windows) -> Iterator["Labelled"]:
    """The windows of a data set's samples, or of those that a run holds out. What cannot be used is told in a warning.

    Raises DataError where nothing is left, ConfigError for a run that has no such samples.
    """
    worlds, step, max_depth, usual = _of_run(path, wanted) if kind_of(path) == "run" else _of_set(path, wanted)
    used = 0
    for world in worlds[: wanted.most]:
        try:
            found = list(_windows(world, wanted, wanted.step or step, max_depth))
        except (DataError, OSError) as error:
            LOGGER.warning("%s is left out: %s", world.id, error)
            continue
        used += 1
        yield from (replace(window, usual_depth=usual) for window in found)
    if not used:
        raise DataError(f"{path}: none of the {len(worlds)} samples could be used; the warnings above say why.")


def video_windows(path: Path, wanted: Windows) -> Iterator[tuple[int, "np.ndarray"]]:
    """(start, frames uint8 T H W 3) of a video, cut and resized to the clip. Raises FramePlanError for one too short."""
    from tinyworld.infer.world.evaluate import starts
    from tinyworld.infer.world.pictures import fitted
    from tinyworld.media.read import probe, read_frames

    clip, step, info = wanted.clip, wanted.step or 1, probe(path)
    if info.frames < (clip.frames - 1) * step + 1:
        most = ((info.frames - 1) // step) // 4 * 4 + 1
        raise FramePlanError(
            f"{path} has {info.frames} frames, and {clip.frames} with --step {step} span more. Use --frames {most}.",
            (most,),
        )
    for start in starts(info.frames, clip.frames, step, wanted.windows):
        numbers = range(start, start + clip.frames * step, step)
        yield start, fitted(read_frames(path, numbers), clip.height, clip.width)


def _of_run(folder: Path, wanted: Windows) -> "tuple[list[WorldRef], int, float, Tensor | None]":
    """The held-out samples of a run, its step between frames, its limit of depth, and its training clips' mean depth map."""
    from tinyworld.config.load import load_recipe
    from tinyworld.config.schema import FantasyRecipe
    from tinyworld.data.worlds.dataset import WorldDataset
    from tinyworld.tasks.fantasy.sources import find_sources
    from tinyworld.tasks.fantasy.usual import usual

    recipe = load_recipe(folder / "config.yaml")
    if not isinstance(recipe, FantasyRecipe):
        raise ConfigError(f"{folder}: the run of another task: it has no samples with depth and cameras.")
    sources, clip = find_sources(recipe), wanted.clip
    step, max_depth = min(recipe.data.frame_steps), recipe.data.max_depth
    size = (clip.height, clip.width, clip.frames)
    mean = usual(WorldDataset(sources.train, [size], [wanted.step or step], max_depth), sources.train, *size)
    return sources.held_out, step, max_depth, None if mean is None else mean.depth


def _of_set(folder: Path, wanted: Windows) -> "tuple[list[WorldRef], int, float, None]":
    from tinyworld.core.console import LOGGER, counting
    from tinyworld.data.worlds.dataset import MAX_DEPTH
    from tinyworld.data.worlds.layout import list_worlds
    from tinyworld.data.worlds.scan import scan_worlds

    clip, step = wanted.clip, wanted.step or 1
    span = (clip.frames - 1) * step + 1
    with counting("looking at samples") as on_progress:
        report = scan_worlds(list_worlds(folder), span, on_progress, clip.height, clip.width)
    for name, reason in [*report.refused, *report.dropped]:
        LOGGER.warning("%s is left out: %s", name, reason)
    if not report.worlds:
        raise DataError(
            f"{folder}: none of the samples can be used (why is said above). --frames {clip.frames} with --step {step} needs "
            f"{span} frames of at least half of {clip.width}x{clip.height} pixels (w x h)."
        )
    return report.worlds, 1, MAX_DEPTH, None


def _windows(world: "WorldRef", wanted: Windows, step: int, max_depth: float) -> Iterator["Labelled"]:
    from tinyworld.data.cut import crop_region, largest_factor, window
    from tinyworld.data.worlds.cut import WorldCut
    from tinyworld.infer.world.evaluate import starts

    clip = wanted.clip
    if world.frames < (clip.frames - 1) * step + 1:
        raise DataError(
            f"{world.id} has {world.frames} frames, and {clip.frames} with --step {step} span more. Use fewer (--frames)."
        )
    factor = largest_factor(world.clip, clip.height, clip.width)
    region = crop_region(world.clip, clip.height, clip.width, factor, 0.5, 0.5)
    (middle,) = starts(world.frames, clip.frames, step, 1)
    for start in starts(world.frames, clip.frames, step, wanted.windows):
        numbers = tuple(window(world.frames, clip.frames, start, step))
        cut = WorldCut(world, numbers, region, clip.height, clip.width)
        yield _read(cut, (world.id,) if start == middle else (world.id, start), max_depth)


def _read(cut: "object", names: Sequence[str | int], max_depth: float) -> "Labelled":
    from tinyworld.core.rng import derive_seed
    from tinyworld.data.cut import resize
    from tinyworld.data.worlds.array_cache import ArrayCache
    from tinyworld.data.worlds.cut import WorldCut, read_geometry
    from tinyworld.infer.world.evaluate import Labelled
    from tinyworld.media.depth_files import read_depth, read_points
    from tinyworld.media.read import read_frames

    assert isinstance(cut, WorldCut)
    frames = resize(read_frames(cut.world.entry.video, cut.numbers, cut.region), cut.height, cut.width)
    known = read_geometry(cut, ArrayCache(read_depth, 0), ArrayCache(read_points, 0), max_depth)
    return Labelled(
        cut.world.id,
        cut.start,
        derive_seed("held out", *names),  # of the middle window: the noise that training validates it with
        frames.movedim(1, -1).contiguous().numpy(),
        known.depth,
        known.mask,
        known.points,
        known.cameras,
        known.usable,
    )
