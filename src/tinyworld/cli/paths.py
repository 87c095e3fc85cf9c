"""Paths on the command line: the videos that were given, and files that may be written without harm to them."""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyworld.core.errors import ConfigError, MissingFileError


@dataclass(frozen=True)
class Video:
    """A video that a command was given. name: its path below the folder that was given, or the name of the file."""

    path: Path
    name: Path


def given_path(text: str) -> Path:
    """An argument that is a path. An empty one, mostly an unset variable of a script, would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError('a path is needed, not an empty text; the current folder is written "."')
    return Path(text)


def find_videos(given: Sequence[Path]) -> list[Video]:
    """The files as given, and the videos in and below each folder. Raises DataError for a folder without any."""
    from tinyworld.data.manifest import list_videos

    found = []
    for path in given:
        if path.is_dir():
            root = Path(os.path.abspath(path))  # noqa: PTH100 - as list_videos takes it: resolve() would follow links
            names = [entry.path.relative_to(root) for entry in list_videos(root)]
            found += [Video(path / name, name) for name in names]
        else:
            found.append(Video(path, Path(path.name)))
    return found


def plan_outputs(videos: Sequence[Video], folder: Path) -> list[Path]:
    """An mp4 in `folder` for each video, under the video's own name.

    Raises ConfigError with every output that would replace one of the videos, and with every two that are the same.
    """
    outputs = [folder / video.name.with_name(f"{video.name.stem}.mp4") for video in videos]
    first: dict[Path, Path] = {}
    problems = []
    for video, output in zip(videos, outputs, strict=True):
        if output in first:
            problems.append(
                f"{first[output]} and {video.path} would both be written to {output}. Give one of them, or reconstruct "
                "them in separate runs, each with its own --output."
            )
        first.setdefault(output, video.path)
    if problems:
        raise ConfigError(problems)
    refuse_overwriting(outputs, [video.path for video in videos], "--output")
    return outputs


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path], key: str) -> None:
    """Raises ConfigError naming every output that is one of the inputs, under whatever name or link."""
    known = {_identity(path): path for path in inputs}
    known.pop(None, None)
    problems = [
        f"{output} would be overwritten, and it is one of the files to read ({known[_identity(output)]}). "
        f"Give another place with {key}."
        for output in outputs
        if _identity(output) in known
    ]
    if problems:
        raise ConfigError(problems)


def check_writable(file: Path, key: str) -> None:
    """Find out before the work whether a file could be written after it.

    Raises MissingFileError when its folder is not there, ConfigError when something else than a file has its name.
    """
    if not file.parent.is_dir():
        raise MissingFileError(f"{key} {file}: there is no folder {file.parent}. Create it, or give another path.")
    if file.exists() and not file.is_file():
        kind = "a folder" if file.is_dir() else "no ordinary file"
        raise ConfigError(f"{key} {file} is {kind}. Give the name of a file, such as numbers.json.")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one file from another on this machine; None for a file that is not there."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
