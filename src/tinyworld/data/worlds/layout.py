"""Which samples a data set of video, depth, points and cameras has: a metadata.json, or folders found by search.

A sample's folder is sample_xxx/{video.mp4, depth/, points/, camera_params.txt}; points/ may be absent. A metadata.json may
name the files otherwise.
"""

import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, get_args

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.data.manifest import SHOWN
from tinyworld.media.camera_formats import Convention

METADATA = "metadata.json"
VIDEO, DEPTH, POINTS, CAMERAS = "video.mp4", "depth", "points", "camera_params.txt"
VIDEO_KEYS = ("video", "video_path")
DEPTH_KEYS = ("depth_dir", "depth")
POINT_KEYS = ("points_dir", "points")
CAMERA_KEYS = ("camera_params", "camera_file")
CAPTION_KEYS = ("caption", "prompt", "text")
SET_KEYS = "keys: data.dataset_base_path, data.dataset_metadata_path"


@dataclass(frozen=True)
class WorldEntry:
    """A sample by name; nothing of it has been opened.

    id: unique in the data set. video: file. depth, points: folders of one file per frame, None where there are
    none. cameras: file. caption: empty where none is given. promised_frames, fps, promised_size (height, width in pixels):
    what metadata.json says, None where it says nothing. convention: what the camera file's matrices do, None where only the
    file can tell. scene: what place it shows, so that no place is trained on and held out at the same time; the id where
    none is given.
    """

    id: str
    video: Path
    depth: Path | None
    points: Path | None
    cameras: Path
    caption: str
    promised_frames: int | None
    fps: float | None
    convention: Convention | None
    scene: str
    promised_size: tuple[int, int] | None = None


def list_worlds(dataset_base_path: str | Path, dataset_metadata_path: str | Path | None = None) -> list[WorldEntry]:
    """The samples of a data set, in the order of its metadata.json, else sorted by folder.

    Without `dataset_metadata_path` the file is `dataset_base_path`/metadata.json; where there is none, every folder right
    below `dataset_base_path` that holds one of a sample's parts is a sample, and its name the id.

    metadata.json is UTF-8 JSON: a list of objects, or an object with such a list under "samples". Their keys: the video under
    "video" or "video_path", the depth folder under "depth_dir" or "depth", the camera file under "camera_params" or
    "camera_file"; optional the points folder under "points_dir" or "points", "id" and "scene" (text or whole numbers),
    "caption", "prompt" or "text", "num_frames", "height", "width", "fps" and "camera_convention" ("w2c" or "c2w"). null
    counts as absent; other keys are not read. Paths are relative to `dataset_base_path` and stay inside it. The id defaults
    to the video's folder, or to its path without suffix when the file is not called video.mp4.

    Nothing is opened here but metadata.json. Raises MissingFileError for a missing folder or file, and DataError naming every
    problem at once (the first ten samples spelled out).
    """
    source, entries, problems = _survey(dataset_base_path, dataset_metadata_path)
    problems += [(name, reason) for name, reason in _repeats(entries)]
    if problems:
        more = f"\n  … and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "".join(f"\n  {': '.join(filter(None, problem))}" for problem in problems[:SHOWN])
        total = len(entries) + len(problems)
        raise DataError(f"{source}: {len(problems)} of {total} samples cannot be used ({SET_KEYS}):{listed}{more}")
    return entries


def survey_worlds(
    dataset_base_path: str | Path, dataset_metadata_path: str | Path | None = None
) -> tuple[list[WorldEntry], list[tuple[str, str]]]:
    """As `list_worlds`, for who wants to hear of every sample: the entries that can be opened, and (sample, problem) of the
    others. Raises for what makes the whole list unusable."""
    _, entries, problems = _survey(dataset_base_path, dataset_metadata_path)
    repeated = _repeats(entries)
    twice = {name for name, _ in repeated}
    return [entry for entry in entries if entry.id not in twice], problems + repeated


def _survey(
    dataset_base_path: str | Path, dataset_metadata_path: str | Path | None
) -> tuple[Path, list[WorldEntry], list[tuple[str, str]]]:
    """Where the list stands, its good entries, and (sample, problems) of the others."""
    root = Path(os.path.abspath(dataset_base_path))  # noqa: PTH100 - resolve() would follow links, which a set may be made of
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise MissingFileError(f"{root} {kind}; it should hold the samples (key: data.dataset_base_path)")
    if dataset_metadata_path is None:
        file = root / METADATA
        source, items = (file, _items(file)) if file.is_file() else (root, _search(root))
    else:
        source = Path(dataset_metadata_path)
        items = _items(source)
    if not items:
        raise DataError(f"{source}: no samples ({SET_KEYS})")
    entries: list[WorldEntry] = []
    problems: list[tuple[str, str]] = []
    for number, item in enumerate(items):
        reader = _Reader(item, root)
        entry = reader.entry()
        if reader.problems or entry is None:
            problems.append((f"sample {number}{_name(item)}", "; ".join(reader.problems)))
        else:
            entries.append(entry)
    return source, entries, problems


def _search(root: Path) -> list[dict[str, str]]:
    """Samples as metadata.json would list them; what is missing in a folder is found out later, with its name."""
    parts = {"video": VIDEO, "camera_params": CAMERAS}
    maps = {"depth_dir": DEPTH, "points_dir": POINTS}
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: cannot be searched for samples: {error.strerror}") from error
    samples = []
    for folder in folders:
        if any((folder / part).exists() for part in (*parts.values(), DEPTH)):
            there = {key: part for key, part in maps.items() if (folder / part).is_dir()}
            samples.append(
                {"id": folder.name} | {key: f"{folder.name}/{part}" for key, part in (parts | there).items()}
            )
    if not samples:
        raise DataError(
            f"{root}: no {METADATA}, and no folders sample_xxx/ with {VIDEO}, {DEPTH}/ and {CAMERAS} right below ({SET_KEYS})"
        )
    return samples


def _items(file: Path) -> list[Any]:
    """The samples of a metadata.json as they stand there."""
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file (key: data.dataset_metadata_path)")
    try:
        value = json.loads(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {error}") from error
    if isinstance(value, dict):
        if "samples" not in value:
            raise DataError(f'{file}: an object without "samples"; a list of samples is needed')
        value = value["samples"]
        if not isinstance(value, list):
            raise DataError(f'{file}: "samples" must be a list of objects, not {_kind(value)}{_name(value)}')
    if not isinstance(value, list):
        raise DataError(f"{file}: a list of samples is needed, not {_kind(value)}")
    return value


class _Reader:
    """One sample of a metadata.json; `problems` collects all that is wrong with it."""

    def __init__(self, item: Any, root: Path) -> None:
        self.item = item if isinstance(item, dict) else {}
        self.root = root
        self.problems: list[str] = [] if isinstance(item, dict) else [f"an object is needed, not {_kind(item)}"]

    def entry(self) -> WorldEntry | None:
        """The sample, or None when it lacks something or is no object; None is never without a problem."""
        if self.problems:
            return None
        video, cameras = self._path(VIDEO_KEYS, "video"), self._path(CAMERA_KEYS, "camera file")
        depth, points = self._path(DEPTH_KEYS, None), self._path(POINT_KEYS, None)
        frames, height, width = (self._number(key) for key in ("num_frames", "height", "width"))
        fps, caption, convention = self._fps(), self._text(CAPTION_KEYS), self._convention()
        name, scene = self._label("id"), self._label("scene")
        if video is None or cameras is None:
            return None
        name = name or self._default_id(video)
        size = None if height is None or width is None else (height, width)
        return WorldEntry(
            name, video, depth, points, cameras, caption or "", frames, fps, convention, scene or name, size
        )

    def _first(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        """The first of `keys` that has a value, and that value; null counts as none."""
        return next(((key, self.item[key]) for key in keys if self.item.get(key) is not None), (keys[0], None))

    def _path(self, keys: tuple[str, ...], needed: str | None) -> Path | None:
        """A file of the data set, or a folder of it for depth and points. needed: what it is called when it has to be there."""
        key, name = self._first(keys)
        if name is None or name == "":
            if needed:
                self.problems.append(f"no {needed} (key {' or '.join(keys)})")
            return None
        if not isinstance(name, str):
            self.problems.append(f"{key} must be text, not {_kind(name)}")
            return None
        try:
            return _inside(name, self.root, folder=keys in (DEPTH_KEYS, POINT_KEYS))
        except ValueError as problem:
            self.problems.append(f"{key} {problem}")
        return None

    def _text(self, keys: tuple[str, ...]) -> str | None:
        key, value = self._first(keys)
        if value is not None and not isinstance(value, str):
            self.problems.append(f"{key} must be text, not {_kind(value)}")
            return None
        return value

    def _label(self, key: str) -> str:
        value = self.item.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            self.problems.append(f"{key} must be text or a whole number, not {_kind(value)}")
        return "" if value is None else str(value)

    def _number(self, key: str) -> int | None:
        value = self.item.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.problems.append(f"{key} must be a whole number of at least 1, not {value!r}")
            return None
        return value

    def _fps(self) -> float | None:
        value = self.item.get("fps")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            self.problems.append(f"fps must be a number above 0, not {value!r}")
            return None
        return float(value)

    def _convention(self) -> Convention | None:
        value = self.item.get("camera_convention")
        if value is not None and value not in get_args(Convention):
            self.problems.append(f"camera_convention must be one of {', '.join(get_args(Convention))}, not {value!r}")
            return None
        return value

    def _default_id(self, video: Path) -> str:
        inside = video.relative_to(self.root)
        return (inside.parent if video.name == VIDEO and len(inside.parts) > 1 else inside.with_suffix("")).as_posix()


def _inside(name: str, root: Path, folder: bool) -> Path:
    """The file or folder that a sample means. Refuses, without touching it, what lies outside the data set."""
    if "\0" in name:
        raise ValueError(f"{name!r} is not a path")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise ValueError(f"{name!r} is an absolute path; paths must be relative to {root}")
    path = Path(os.path.normpath(root / name))
    if root not in path.parents:
        raise ValueError(f"{name!r} leaves the data folder {root}; paths must stay inside it")
    try:
        found = path.is_dir() if folder else path.is_file()
    except OSError as error:
        raise ValueError(f"{name!r} cannot be looked at: {error.strerror}") from error
    if not found:
        raise ValueError(f"{name!r}: there is no {'folder' if folder else 'file'} {path}")
    return path


def _repeats(entries: list[WorldEntry]) -> list[tuple[str, str]]:
    """(id, problem) of clips that come twice: they would be trained on twice, or trained on and held out at the same time."""
    ids, videos = Counter(entry.id for entry in entries), Counter(entry.video for entry in entries)
    return [(name, f"the id {name!r} is given to {count} samples") for name, count in ids.items() if count > 1] + [
        (entry.id, f"the video {entry.video} is listed {videos[entry.video]} times")
        for entry in {entry.video: entry for entry in entries}.values()
        if videos[entry.video] > 1 and ids[entry.id] == 1
    ]


def _name(item: Any) -> str:
    """How to call a sample in a message, after its number."""
    names = [item.get(key) for key in ("id", *VIDEO_KEYS)] if isinstance(item, dict) else []
    return next((f" ({name})" for name in names if isinstance(name, str | int) and name != ""), "")


def _kind(value: Any) -> str:
    """A JSON value's type in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
