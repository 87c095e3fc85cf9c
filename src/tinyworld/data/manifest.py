"""Which videos a data set has: a folder that is searched, or an annotation file that lists them."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyworld.core.errors import DataError, MissingFileError

CONTAINERS = "mp4 m4v mov mkv webm avi ts mts m2ts mpg mpeg flv wmv ogv 3gp 3g2 gif h264 h265"
SUFFIXES = frozenset(f".{name}" for name in CONTAINERS.split())
PATH_KEYS = ("path", "video", "video_path", "file_name")
CAPTION_KEYS = ("caption", "text", "prompt")
FRAME_KEYS = ("num_frames", "frames")
LIST_KEYS = ("videos", "data", "samples")
SHOWN = 10
"""How many problems a message spells out; it counts the rest."""


@dataclass(frozen=True)
class Entry:
    """A video by name. id: unique in the data set. path: absolute. caption: empty where none is given.

    promised_frames: how many frames the annotation file says it has, None where it says nothing.
    """

    id: str
    path: Path
    caption: str = ""
    promised_frames: int | None = None


def list_videos(data_root: str | Path, annotation_file: str | Path | None = None) -> list[Entry]:
    """The videos of a data set, sorted by id when found by search, else in the order of the annotation file.

    Without an annotation file: every file below `data_root` with the suffix of a video container (`SUFFIXES`, any
    case), hidden files and folders left out, links to folders followed. The id is the path below `data_root` without
    its suffix (with it, where two files differ in nothing else).

    With one, UTF-8 JSON in any of these forms:
      - a list of objects: the video under "path", "video", "video_path" or "file_name"; optional "id" (text or a whole
        number), "caption", "text" or "prompt", and "num_frames" or "frames"; other keys are not read,
      - a list of paths,
      - an object with such a list under "videos", "data" or "samples",
      - an object {"name.mp4": "caption", …},
      - JSON lines: one such object, or one path in quotes, per line.
    Paths are relative to `data_root`, or absolute but inside it; the id defaults as above.

    Nothing is opened here but the annotation file. Raises MissingFileError for a missing folder or annotation file,
    and DataError naming every problem at once (the first ten spelled out): no videos, unreadable JSON, an entry without
    a path, values of a wrong type, the same id or the same file twice, a path that leaves `data_root`, a missing file.
    """
    root = Path(os.path.abspath(data_root))  # noqa: PTH100 - resolve() would follow links, which a data set may be made of
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise MissingFileError(f"{root} {kind}; it should hold the training videos (key: data.data_root)")
    return _search(root) if annotation_file is None else _read(Path(annotation_file), root)


def _search(root: Path) -> list[Entry]:
    try:
        paths = sorted(_walk(root, set()))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be searched for videos: {error.strerror}") from error
    if not paths:
        raise DataError(f"{root}: no videos in this folder or below (looked for {CONTAINERS}; key: data.data_root)")
    ids = _default_ids([path.relative_to(root) for path in paths])
    return sorted((Entry(name, path) for name, path in zip(ids, paths, strict=True)), key=lambda entry: entry.id)


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Video files below a folder; `seen` keeps links that lead back up from going round in circles."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, seen)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _default_ids(names: list[Path]) -> list[str]:
    """Paths without their suffix; with it, where that would name two files alike."""
    short = [name.with_suffix("").as_posix() for name in names]
    alike = Counter(short)
    return [full.as_posix() if alike[name] > 1 else name for name, full in zip(short, names, strict=True)]


def _read(file: Path, root: Path) -> list[Entry]:
    items = _items(file)
    if not items:
        raise DataError(f"{file}: the annotation file lists no videos (key: data.annotation_file)")
    entries: list[Entry] = []
    problems: list[str] = []
    for number, item in enumerate(items):
        try:
            entries.append(_entry(item, root))
        except ValueError as problem:
            problems.append(f"entry {number}{_name(item)}: {problem}")
    if not problems:
        entries = _with_default_ids(entries, root)
        problems = _repeats(entries)
    if problems:
        more = f"\n  … and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
        raise DataError(f"{file}: {len(problems)} of {len(items)} entries cannot be used:{listed}{more}")
    return entries


def _items(file: Path) -> list[Any]:
    """The entries of an annotation file as they stand there, whichever form it has."""
    if not file.is_file():
        raise MissingFileError(f"{file}: no such annotation file (key: data.annotation_file)")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}); save the annotation file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        value = _json_lines(text)
        if value is None:
            raise DataError(f"{file}: not JSON, nor JSON lines: {error}") from error
    if isinstance(value, dict) and not any(isinstance(value.get(key), str) for key in PATH_KEYS):
        named = [key for key in LIST_KEYS if key in value]
        if not named and all(isinstance(caption, str) for caption in value.values()):
            return [{"path": path, "caption": caption} for path, caption in value.items()]
        if len(named) != 1:
            raise DataError(f"{file}: an object, but with no list of videos under one of {', '.join(LIST_KEYS)}")
        value = value[named[0]]
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{file}: a list of videos is needed, not {_kind(value)}")
    return value


def _json_lines(text: str) -> list[Any] | None:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        values = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None
    return values if all(isinstance(value, dict | str) for value in values) else None


def _entry(item: Any, root: Path) -> Entry:
    """One entry; the id is empty where none is given. Raises ValueError saying what is wrong."""
    if isinstance(item, str):
        item = {"path": item}
    if not isinstance(item, dict):
        raise ValueError(f"an object or a path is needed, not {_kind(item)}")
    name = _first(item, PATH_KEYS, str, "text")
    if not name:
        raise ValueError(f"no path of a video (one of the keys {', '.join(PATH_KEYS)})")
    identity = item.get("id")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
        raise ValueError(f"id must be text or a whole number, not {_kind(identity)}")
    frames = _first(item, FRAME_KEYS, int, "a whole number")
    if frames is not None and frames < 1:
        raise ValueError(f"the number of frames must be at least 1, not {frames}")
    caption = _first(item, CAPTION_KEYS, str, "text")
    return Entry("" if identity is None else str(identity), _inside(name, root), caption or "", frames)


def _first(item: dict[str, Any], keys: tuple[str, ...], kind: type, words: str) -> Any:
    """The value under the first of `keys` that has one (null counts as none)."""
    for key in keys:
        value = item.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ValueError(f"{key} must be {words}, not {_kind(value)}")
            return value
    return None


def _inside(name: str, root: Path) -> Path:
    """The file that an entry means. Refuses, without touching it, what lies outside the data set."""
    if "\0" in name:
        raise ValueError(f"{name!r} is not a path")
    path = Path(os.path.normpath(root / name))
    if root not in path.parents:
        raise ValueError(f"{name!r} leaves the data folder {root}; paths must stay inside it")
    if not path.is_file():
        raise ValueError(f"{name!r}: there is no file {path}")
    return path


def _with_default_ids(entries: list[Entry], root: Path) -> list[Entry]:
    defaults = _default_ids([entry.path.relative_to(root) for entry in entries])
    return [replace(entry, id=entry.id or name) for entry, name in zip(entries, defaults, strict=True)]


def _repeats(entries: list[Entry]) -> list[str]:
    """A video that comes twice would be trained on twice, or trained on and held out at the same time."""
    ids, paths = Counter(entry.id for entry in entries), Counter(entry.path for entry in entries)
    return [f"the id {name!r} is given to {count} entries" for name, count in ids.items() if count > 1] + [
        f"the file {path} is listed {count} times" for path, count in paths.items() if count > 1
    ]


def _name(item: Any) -> str:
    """How to call an entry in a message, after its number."""
    name = item.get("id") if isinstance(item, dict) else item
    return f" ({name})" if isinstance(name, str | int) and name != "" else ""


def _kind(value: Any) -> str:
    """A JSON value's type in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
