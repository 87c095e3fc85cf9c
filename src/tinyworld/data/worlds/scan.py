"""Looking at every sample once, before training: do video, depth, points and cameras belong together?"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tinyworld.core.errors import ConfigError, DataError, UserError
from tinyworld.core.geometry import Cameras
from tinyworld.data.manifest import SHOWN
from tinyworld.data.scan import MAX_ENLARGEMENT, THREADS, ClipRef, check_budget, reason_of
from tinyworld.data.worlds.headers import array_shape
from tinyworld.data.worlds.layout import WorldEntry
from tinyworld.media.camera_files import read_cameras
from tinyworld.media.camera_formats import Convention
from tinyworld.media.depth_files import ARRAY_SUFFIXES, list_frames
from tinyworld.media.read import VideoInfo, probe

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels of the video."""


@dataclass(frozen=True, eq=False)
class WorldRef:
    """A sample that can be used.

    frames: of the video, of which each has a depth map, a camera and, where `point_files` is not empty, points. height,
    width: of the video and of all maps, pixels. fps: of metadata.json, else of the video (0 where unknown). cameras: float64,
    of all frames, in the file's own world, intrinsics in pixels of the video. point_files hold points of that world.
    """

    entry: WorldEntry
    frames: int
    height: int
    width: int
    fps: float
    cameras: Cameras
    depth_files: tuple[Path, ...]
    point_files: tuple[Path, ...]

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def scene(self) -> str:
        return self.entry.scene

    @property
    def clip(self) -> ClipRef:
        """Its video, as the code for clips without geometry takes it."""
        entry = self.entry
        return ClipRef(entry.id, entry.video, self.frames, self.width, self.height, self.fps, entry.caption)


@dataclass(frozen=True)
class WorldReport:
    """What a scan found.

    worlds: usable, in the order of the entries. refused: (id, reason) of samples with a fault. dropped: (id, reason) of sound
    ones that are too short or too small.
    """

    worlds: list[WorldRef] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def check(self, quarantine_budget: float) -> None:
        """Raise DataError when more samples have a fault than the budget allows (`data.scan.check_budget`), or none is left."""
        total = len(self.worlds) + len(self.refused) + len(self.dropped)
        check_budget(dict(self.refused), total, quarantine_budget)
        if not self.worlds:
            reasons = [f"\n  {name}: {reason}" for name, reason in [*self.refused, *self.dropped]]
            more = f"\n  … and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
            raise DataError(f"none of the {total} samples can be used:{''.join(reasons[:SHOWN])}{more}")


def scan_worlds(
    entries: Sequence[WorldEntry],
    n_frames: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
    height: int = 1,
    width: int = 1,
    convention: Convention | None = None,
    intrinsics: Intrinsics | None = None,
) -> WorldReport:
    """Look at every sample in a few threads and sort it into usable, refused and dropped. No sample ends it early.

    A sample is refused when its video cannot be opened; when the numbers of frames of the video, metadata.json, the depth
    folder, the points folder and the camera file are not all the same; when a depth or points file is of a wrong kind, cut off
    or not of the video's size; when the camera file is refused (`media.camera_files.read_cameras`). One packet-wise look at
    the video and the ends of the other files are read: `data verify` decodes them all.

    n_frames: how many frames of a video the shortest clip spans, (frames - 1) × step + 1. height, width: of the smallest crop;
    a video is enlarged at most twice to cover it. Sound samples below these are dropped. convention, intrinsics: for camera
    files that do not say it, see `read_cameras`; what metadata.json says of a sample's convention goes first.
    on_progress(done, total) is called from this thread. Call `check` on the report before training on it.
    """
    report = WorldReport()
    pool = ThreadPoolExecutor(THREADS)
    try:
        found = pool.map(lambda entry: _examine(entry, convention, intrinsics), entries)
        for done, (entry, outcome) in enumerate(zip(entries, found, strict=True), start=1):
            if isinstance(outcome, str):
                report.refused.append((entry.id, outcome))
            elif (reason := _unsuitable(outcome, n_frames, height, width)) is not None:
                report.dropped.append((entry.id, reason))
            else:
                report.worlds.append(outcome)
            if on_progress is not None:
                on_progress(done, len(entries))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for all the rest
    return report


def _unsuitable(world: WorldRef, n_frames: int, height: int, width: int) -> str | None:
    if max(height / world.height, width / world.width) > MAX_ENLARGEMENT:
        return (
            f"{world.width}x{world.height} pixels (w x h) are smaller than any training crop: less than half of "
            f"{width}x{height} (keys: data.width, data.height)"
        )
    if world.frames < n_frames:
        return f"too short: {world.frames} frames of the {n_frames} that a clip spans (keys: data.num_frames, data.frame_steps)"
    return None


def _examine(entry: WorldEntry, convention: Convention | None, intrinsics: Intrinsics | None) -> WorldRef | str:
    """The sample, or why it cannot be used."""
    try:
        return open_world(entry, convention, intrinsics)
    except ConfigError:  # about the recipe, not about this sample
        raise
    except (UserError, OSError) as error:
        return reason_of(error, entry.video)


def open_world(
    entry: WorldEntry, convention: Convention | None = None, intrinsics: Intrinsics | None = None
) -> WorldRef:
    """One sample, checked as `scan_worlds` says. Raises the kinds of UserError of what it reads, naming file and fault."""
    if entry.depth is None:
        raise DataError("no depth: training needs it for every frame (a folder depth/ in the sample)")
    video = probe(entry.video)
    depth = tuple(list_frames(entry.depth))
    points = tuple(list_frames(entry.points, ARRAY_SUFFIXES)) if entry.points is not None else ()
    _check_counts(entry, video, len(depth), len(points))
    size = (video.height, video.width)
    if entry.promised_size is not None and entry.promised_size != size:
        height, width = entry.promised_size
        raise DataError(
            f"metadata.json says {width}x{height} pixels (w x h), the video has {video.width}x{video.height}"
        )
    for files, what, shape in ((depth, "depth", size), (points, "points", (*size, 3))):
        for file in files:
            _check_shape(file, what, shape, video)
    said = entry.convention or convention
    cameras = read_cameras(entry.cameras, video.height, video.width, said, video.frames, intrinsics)
    fps = video.fps if entry.fps is None else entry.fps
    return WorldRef(entry, video.frames, video.height, video.width, fps, cameras, depth, points)


def _check_counts(entry: WorldEntry, video: VideoInfo, depth: int, points: int) -> None:
    counts = [(entry.promised_frames, "metadata.json says {} frames"), (depth, f"{entry.depth} holds {{}} depth maps")]
    if entry.points is not None:
        counts.append((points, f"{entry.points} holds {{}} point maps"))
    wrong = [words.format(count) for count, words in counts if count is not None and count != video.frames]
    if wrong:
        raise DataError(f"{', '.join(wrong)}, the video has {video.frames}; every frame needs its own")


def _check_shape(file: Path, what: str, expected: tuple[int, ...], video: VideoInfo) -> None:
    shape = array_shape(file, what)
    if shape != expected:
        found = "x".join(map(str, shape))
        wanted = "x".join(map(str, expected))
        raise DataError(
            f"{file}: {what} of shape {found}, the video is {video.width}x{video.height} pixels (w x h) and needs {wanted}"
        )
