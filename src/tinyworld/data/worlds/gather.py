"""Everything of one sample, read to the end: every frame, depth map, camera and point map, with every fault named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from tinyworld.core.errors import DataError, UserError
from tinyworld.core.geometry import Cameras, choose_pairs, to_world, unproject
from tinyworld.data.worlds.layout import WorldEntry
from tinyworld.data.worlds.reprojection import Evidence
from tinyworld.media.camera_files import read_cameras
from tinyworld.media.camera_formats import Convention
from tinyworld.media.depth_files import ARRAY_SUFFIXES, list_frames, read_depth, read_points
from tinyworld.media.read import VideoInfo, iter_frames, probe

Intrinsics = tuple[float, float, float, float]
SAME_FAULT = 3
"""Files with a fault of one kind that are named; the others are counted."""
THINNED = 4000
"""Pixels of a frame that medians of depth and points are taken from."""


@dataclass(frozen=True)
class DepthFacts:
    """median: of the frames' medians. low, high: the smallest and largest of their 1st and 99th hundredths; all in metres.
    measured: part of the pixels that have a depth. empty: frames without any. levels: the most different values in one frame
    (of some thousand pixels).
    """

    median: float
    low: float
    high: float
    measured: float
    empty: tuple[int, ...]
    levels: int


@dataclass(frozen=True)
class PointFacts:
    """Median distance between points and unprojected depth, divided by depth, when the points are taken to be in the world,
    in the first camera's or in each camera's coordinates. factor: median length of points by that of unprojected depth, in
    the world."""

    world: float
    first: float
    camera: float
    factor: float


@dataclass
class Gathered:
    """What was read of a sample. faults: why it cannot be used; anything else may be missing then."""

    faults: list[str] = field(default_factory=list)
    video: VideoInfo | None = None
    cameras: Cameras | None = None
    depth: DepthFacts | None = None
    points: PointFacts | None = None
    evidence: Evidence | None = None


def gather(
    entry: WorldEntry, pairs: int, convention: Convention | None = None, intrinsics: Intrinsics | None = None
) -> Gathered:
    """Read a sample to the end. Nothing that is wrong with it is raised; it stands in `faults`.

    pairs: how many pairs of frames to keep for `reprojection.measure`. convention, intrinsics: for camera files that do not
    say it; what metadata.json says of the convention goes first.
    """
    found = Gathered()
    frames: dict[int, torch.Tensor] = {}
    with _noting(found, entry):
        found.video = probe(entry.video)
    count = found.video.frames if found.video else 0
    chosen = choose_pairs(count, pairs)
    needed = {number for pair in chosen for number in pair}
    if found.video is not None:
        _check_promises(entry, found, found.video)
        with _noting(found, entry):
            frames = _read_video(entry.video, needed)
        with _noting(found, entry):
            said = entry.convention or convention
            height, width = found.video.height, found.video.width
            found.cameras = read_cameras(entry.cameras, height, width, said, count, intrinsics)
    depth = _read_depth(entry, entry.depth, found, needed) if entry.depth is not None else {}
    if entry.points is not None:
        _read_points(entry, entry.points, found)
    if not found.faults and depth:
        measured = tuple(pair for pair in chosen if all(bool((depth[number] > 0).any()) for number in pair))
        found.evidence = Evidence(frames, depth, measured) if measured else None
    return found


@contextmanager
def _noting(found: Gathered, entry: WorldEntry) -> Iterator[None]:
    """What is raised inside becomes a fault, with paths inside the sample's folder made short."""
    try:
        yield
    except (UserError, OSError) as error:
        found.faults.append(str(error).replace(f"{entry.video.parent}/", ""))


def _check_promises(entry: WorldEntry, found: Gathered, video: VideoInfo) -> None:
    if entry.promised_frames is not None and entry.promised_frames != video.frames:
        found.faults.append(f"metadata.json says {entry.promised_frames} frames, the video has {video.frames}")
    if entry.promised_size is not None and entry.promised_size != (video.height, video.width):
        height, width = entry.promised_size
        found.faults.append(
            f"metadata.json says {width}x{height} pixels (w x h), the video has {video.width}x{video.height}"
        )


def _read_video(path: Path, needed: set[int]) -> dict[int, torch.Tensor]:
    """Decodes every frame; returns the needed ones as C H W uint8."""
    return {
        number: torch.from_numpy(frame).permute(2, 0, 1)
        for number, frame in enumerate(iter_frames(path))
        if number in needed
    }


def _read_each(
    entry: WorldEntry, found: Gathered, what: str, files: list[Path], read: Callable[[Path], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """(number, map) of each file that can be read and has the video's size; faults of the others are noted."""
    video = found.video
    if video is not None and files and len(files) != video.frames:
        found.faults.append(f"{len(files)} {what} maps, the video has {video.frames} frames; every frame needs its own")
    faulty = 0
    for number, file in enumerate(files):
        before = len(found.faults)
        with _noting(found, entry):
            values = read(file)
            if video is not None and values.shape[:2] != (video.height, video.width):
                size = f"{values.shape[1]}x{values.shape[0]}"
                raise DataError(f"{file}: {size} pixels (w x h), the video has {video.width}x{video.height}")
            yield number, values
        if len(found.faults) > before:
            faulty += 1
            if faulty > SAME_FAULT:
                found.faults.pop()
    if faulty > SAME_FAULT:
        found.faults.append(f"and {faulty - SAME_FAULT} more {what} maps with a fault")


def _read_depth(entry: WorldEntry, folder: Path, found: Gathered, needed: set[int]) -> dict[int, torch.Tensor]:
    """The needed depth maps, H W float32; the facts of all of them go into `found`."""
    files: list[Path] = []
    with _noting(found, entry):
        files = list_frames(folder)
    kept: dict[int, torch.Tensor] = {}
    medians, quantiles, levels, measured, empty, seen = [], [], 0, 0.0, [], 0
    for number, depth in _read_each(entry, found, "depth", files, read_depth):
        if number in needed:
            kept[number] = torch.from_numpy(depth)
        seen += 1
        valid = depth[depth > 0]
        measured += len(valid) / depth.size
        if not len(valid):
            empty.append(number)
            continue
        some = valid[:: max(1, len(valid) // THINNED)]
        medians.append(float(np.median(some)))
        quantiles.append(np.quantile(some, [0.01, 0.99]))
        levels = max(levels, len(np.unique(some)))
    if medians:
        low, high = np.array(quantiles)[:, 0].min(), np.array(quantiles)[:, 1].max()
        found.depth = DepthFacts(
            float(np.median(medians)), float(low), float(high), measured / seen, tuple(empty), levels
        )
    elif seen:
        found.faults.append("no depth map has a single valid pixel")
    return kept


def _read_points(entry: WorldEntry, folder: Path, found: Gathered) -> None:
    """Reads every point map and compares it with the depth map of its frame."""
    files: list[Path] = []
    depth_files: list[Path] = []
    with _noting(found, entry):
        files = list_frames(folder, ARRAY_SUFFIXES)
    if not found.faults and entry.depth is not None:
        depth_files = list_frames(entry.depth)
    rows = []
    for number, points in _read_each(entry, found, "point", files, read_points):
        if found.cameras is not None and number < len(depth_files) and not found.faults:
            depth = read_depth(depth_files[number])
            row = _compare_points(points, depth, found.cameras, number)
            rows += [row] if row is not None else []
    if rows:
        found.points = PointFacts(*(float(value) for value in np.median(np.array(rows), axis=0)))


def _compare_points(points: np.ndarray, depth: np.ndarray, cameras: Cameras, number: int) -> list[float] | None:
    """`PointFacts` of one frame; None where nothing can be compared."""
    valid = (np.isfinite(points).all(2) & (depth > 0)).ravel().nonzero()[0]
    if not len(valid):
        return None
    chosen = torch.from_numpy(valid[:: max(1, len(valid) // THINNED)])
    given = torch.from_numpy(points).double().flatten(0, 1)[chosen]
    z = torch.from_numpy(depth).double()
    own = unproject(z, cameras.intrinsics[number]).flatten(0, 1)[chosen]
    z = z.flatten()[chosen]
    world = to_world(own, cameras.extrinsics[number])
    first = to_world(own, cameras.relative().extrinsics[number])
    errors = [float(((given - other).norm(dim=1) / z).median()) for other in (world, first, own)]
    length = world.norm(dim=1).clamp_min(1e-9)
    return [*errors, float((given.norm(dim=1) / length).median())]
