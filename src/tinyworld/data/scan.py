"""Looking at every video once, before training: which can be used, which cannot and why."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tinyworld.core.errors import DataError, UserError
from tinyworld.core.files import write_json
from tinyworld.data.manifest import SHOWN, Entry
from tinyworld.media.read import VideoInfo, iter_frames, probe

THREADS = 4
MAX_ENLARGEMENT = 2.0
"""A video is enlarged at most this much to cover a crop; a smaller one has nothing to teach at that size."""
MIN_LOOPED_FRAMES = 2
"""A looped clip needs motion: one frame is a picture."""


@dataclass(frozen=True)
class ClipRef:
    """A video that can be used. frames: how many it really holds. width, height: pixels. fps: 0 where unknown."""

    id: str
    path: Path
    frames: int
    width: int
    height: int
    fps: float
    caption: str = ""


@dataclass(frozen=True)
class Need:
    """What a training clip takes from a video.

    height, width: of the crop, pixels. n_frames: of the window. frame_steps: the steps that a window may have.
    short_clips: what becomes of a video too short for `n_frames` at every step: "loop" plays it forward and backward
    (at least 2 frames), "drop" leaves it out. quarantine_budget: the fraction of files that may be unreadable, see
    `check_budget`.
    """

    height: int
    width: int
    n_frames: int
    short_clips: Literal["loop", "drop"] = "loop"
    quarantine_budget: float = 0.05
    frame_steps: tuple[int, ...] = (1,)

    def is_short(self, clip: ClipRef) -> bool:
        """Too few frames for a window even at the smallest step."""
        return clip.frames < (self.n_frames - 1) * min(self.frame_steps) + 1

    def refusal(self, clip: ClipRef) -> str | None:
        """Why no training clip can be cut from a readable video; None when one can."""
        enlargement = max(self.height / clip.height, self.width / clip.width)
        if enlargement > MAX_ENLARGEMENT:
            return (
                f"{clip.width}x{clip.height} pixels (w x h) are smaller than any training crop: less than half of "
                f"{self.width}x{self.height} (keys: data.width, data.height)"
            )
        if self.is_short(clip):
            words = f"{clip.frames} frame{'s' if clip.frames > 1 else ''} of the {self.n_frames} that a clip needs"
            if self.short_clips == "drop":
                return f"too short: {words}, and data.short_clips=drop leaves short videos out"
            if clip.frames < MIN_LOOPED_FRAMES:
                return f"too short: {words}, and a single picture cannot be looped"
        return None


@dataclass(frozen=True)
class ScanReport:
    """What a scan found.

    clips: usable, in the order of the entries. looped: those of them that are too short and will be played forward and
    backward. quarantined: (path, reason) of unreadable files. dropped: (path, reason) of readable ones that no clip can
    be cut from.
    """

    clips: list[ClipRef] = field(default_factory=list)
    looped: list[ClipRef] = field(default_factory=list)
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)


def scan(
    entries: Sequence[Entry],
    need: Need,
    deep: bool = False,
    index: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ScanReport:
    """Probe every entry in a few threads and sort it into usable, quarantined and dropped. No file ends it early.

    deep: also decode every frame, which finds damaged pictures and picture sizes that change. index: a JSON file that
    remembers the results by path, size and modification time, so that the next scan reads only what is new; readable
    files only are remembered. on_progress(done, total) is called from this thread after each file.

    Raises DataError when more files are unreadable than `need.quarantine_budget` allows, or none is left to use.
    """
    known = _Index(index, deep)
    report = ScanReport()
    pool = ThreadPoolExecutor(THREADS)
    try:
        found = pool.map(lambda entry: _examine(entry, deep, known), entries)
        for done, (entry, outcome) in enumerate(zip(entries, found, strict=True), start=1):
            _sort(entry, outcome, need, report)
            if on_progress is not None:
                on_progress(done, len(entries))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for a hundred thousand files
    known.save()
    check_budget(dict(report.quarantined), len(entries), need.quarantine_budget)
    if not report.clips:
        reasons = _listed([*report.quarantined, *report.dropped])
        raise DataError(f"none of the {len(entries)} videos can be used for training:{reasons}")
    return report


def check_budget(unreadable: dict[str, str], files: int, fraction: float) -> None:
    """Raise DataError when more files are unreadable than the budget allows.

    unreadable: reason by path. Allowed are `fraction` of the files, rounded down, but at least one; none when the
    fraction is 0.
    """
    allowed = max(1, math.floor(fraction * files + 1e-9)) if fraction > 0 else 0
    if len(unreadable) > allowed:
        listed = _listed(unreadable.items())
        raise DataError(
            f"{len(unreadable)} of {files} videos are unreadable, {allowed} may be (data.quarantine_budget="
            f"{fraction:g}):{listed}\nMend or remove them, or raise data.quarantine_budget."
        )


def _listed(reasons: Iterable[tuple[str, str]]) -> str:
    lines = [f"\n  {path}: {reason}" for path, reason in reasons]
    return "".join(lines[:SHOWN]) + (f"\n  … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


def reason_of(error: Exception, path: Path) -> str:
    """An error's text without the path that it begins with."""
    return str(error).removeprefix(f"{path}: ")


def _examine(entry: Entry, deep: bool, known: "_Index") -> VideoInfo | str:
    """What a file holds, or why it cannot be used."""
    try:
        info = known.get(entry.path)
        if info is None:
            info = probe(entry.path)
            if deep:
                for _ in iter_frames(entry.path):
                    pass
            known.put(info)
    except (UserError, OSError) as error:
        return reason_of(error, entry.path)
    if entry.promised_frames is not None and entry.promised_frames > info.frames:
        return f"the annotation file says {entry.promised_frames} frames, the video has {info.frames}"
    return info


def _sort(entry: Entry, outcome: VideoInfo | str, need: Need, report: ScanReport) -> None:
    if isinstance(outcome, str):
        report.quarantined.append((str(entry.path), outcome))
        return
    clip = ClipRef(entry.id, entry.path, outcome.frames, outcome.width, outcome.height, outcome.fps, entry.caption)
    refusal = need.refusal(clip)
    if refusal is not None:
        report.dropped.append((str(entry.path), refusal))
        return
    report.clips.append(clip)
    if need.is_short(clip):
        report.looped.append(clip)


class _Index:
    """Results of earlier scans by path, size and modification time. A deep result also serves a shallow scan."""

    def __init__(self, file: Path | None, deep: bool) -> None:
        self.file = file
        self.deep = deep
        self.known: dict[str, dict[str, Any]] = {}
        if file is not None and file.is_file():
            try:
                self.known = dict(json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise DataError(f"{file}: a damaged scan index; delete it, the next scan writes it anew") from error

    def get(self, path: Path) -> VideoInfo | None:
        entry = self.known.get(str(path))
        if entry is None or entry["state"] != _state(path) or (self.deep and not entry["deep"]):
            return None
        return VideoInfo(path, *entry["info"])

    def put(self, info: VideoInfo) -> None:
        if self.file is not None:
            facts = [info.width, info.height, info.fps, info.frames]
            self.known[str(info.path)] = {"state": _state(info.path), "deep": self.deep, "info": facts}

    def save(self) -> None:
        if self.file is not None:
            write_json(self.file, self.known)


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
