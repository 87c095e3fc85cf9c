"""Files that are complete or absent: stage, fsync, digest, manifest, rename.

Used by checkpoints and caches. A folder is published by renaming a staging folder whose manifest (sizes and SHA-256 of
every file) was written last; so a folder under its final name without a manifest that verifies does not come from here.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyworld.core.errors import MissingFileError
from tinyworld.core.version import __version__

MANIFEST = "manifest.json"
STAGING_PREFIX = ".staging-"
RETIRED = "old-"
"""Stands before the name of a folder that makes way for a new one of its name."""


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def drop_cached(path: Path) -> None:
    """Have the next reading of a durable file come from the disk, not from memory, where the system can be told so."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fsync_folder(path: Path) -> None:
    """Make renames and new names in a folder durable. Some file systems refuse; the data itself is already on disk then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    Raises OSError naming `path`; the staging file is gone then.
    """
    staging = path.with_name(f"{STAGING_PREFIX}{os.getpid()}-{path.name}")
    payload = data.encode() if isinstance(data, str) else data
    try:
        with staging.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except OSError as error:  # the staging name says nothing to a person, and a full disk names no file at all
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            staging.unlink()
    fsync_folder(path.parent)


def json_ready(value: Any) -> Any:
    """Plain JSON values: non-finite numbers become None (JSON has no NaN), everything unknown becomes text."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def write_json(path: Path, value: Any) -> None:
    """Atomic JSON of `json_ready(value)`, keys in the given order, indented for people."""
    write_atomic(path, json.dumps(json_ready(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def staged_folder(final: Path, extra: dict[str, Any] | None = None) -> Iterator[Path]:
    """Write a folder that appears under its final name only when complete and verified.

    Yields the staging folder. On a clean exit every file is fsynced, read back, digested into the manifest (together
    with `extra`), and the folder renamed. On an exception nothing appears. An existing complete folder of the same
    name is replaced only after the new one is ready.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_path(final, str(os.getpid()))
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        paths = sorted(p for p in staging.rglob("*") if p.is_file())
        seal(staging, {path.relative_to(staging).as_posix(): settled(path) for path in paths}, extra or {})
        publish(staging, final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def staging_path(final: Path, owner: str) -> Path:
    """Where `owner` (a process number, or a word that no number begins) writes what will be `final`."""
    return final.with_name(f"{STAGING_PREFIX}{owner}-{final.name}")


def settled(path: Path) -> dict[str, Any]:
    """Make a written file durable; its entry in a manifest."""
    fsync_file(path)
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def seal(folder: Path, entries: dict[str, dict[str, Any]], extra: dict[str, Any]) -> None:
    """Write the manifest of a staging folder whose files are settled; entries: relative name → `settled` of it."""
    write_json(folder / MANIFEST, {"tinyworld_version": __version__, "files": dict(sorted(entries.items())), **extra})
    for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        fsync_folder(inner)


def publish(staging: Path, final: Path) -> None:
    """Give a sealed staging folder its final name; a folder that has it makes way, and comes back when that fails."""
    retired = None
    if final.exists():
        retired = staging.with_name(f"{staging.name.removesuffix(final.name)}{RETIRED}{final.name}")
        final.rename(retired)
    try:
        staging.rename(final)
    except OSError:
        if retired is not None:
            retired.rename(final)
        raise
    fsync_folder(final.parent)
    if retired is not None:
        with contextlib.suppress(OSError):  # the new one is there; the next start removes what is left of the old
            shutil.rmtree(retired)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that none is ever seen half removed under its name, however the process ends."""
    doomed = staging_path(folder, f"{os.getpid()}-removed")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None when there is none that can be read or it does not have a manifest's form."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return None
    return manifest if all(_is_entry(entry) for entry in manifest["files"].values()) else None


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def verify_folder(folder: Path, content: bool = True) -> list[str]:
    """Every way in which a folder differs from its manifest; an empty list means complete and undamaged.

    Without `content` only presence and sizes are looked at, which reads nothing of large files.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return [f"{folder.name}/{MANIFEST} is missing or unreadable: the folder was never completed"]
    problems = []
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{folder.name}/{name} is missing")
        elif path.stat().st_size != expected["bytes"]:
            problems.append(
                f"{folder.name}/{name} has {path.stat().st_size} bytes, its manifest says {expected['bytes']}"
            )
        elif content and sha256(path) != expected["sha256"]:
            problems.append(f"{folder.name}/{name} does not match its SHA-256: its content was changed")
    return problems


def remove_staging(parent: Path) -> list[Path]:
    """Remove what killed processes left half-written below `parent` (never a folder under its final name).

    A retired folder whose replacement was never published is put back under its name first, whoever retired it: process
    numbers come again after a restart of the machine or the container.
    """
    removed = []
    for path in sorted(parent.glob(f"{STAGING_PREFIX}*")):
        owner, _, name = path.name.removeprefix(STAGING_PREFIX).partition("-")
        final = parent / name.removeprefix(RETIRED)
        if name.startswith(RETIRED) and not final.exists():
            path.rename(final)
            continue
        if owner.isdigit() and int(owner) != os.getpid() and _alive(int(owner)):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def hard_link(source: Path, link: Path) -> None:
    """Point `link` at the same content as `source` in one step; a copy where the file system has no hard links."""
    staging = link.with_name(f"{STAGING_PREFIX}{os.getpid()}-{link.name}")
    staging.unlink(missing_ok=True)
    try:
        os.link(source, staging)
    except OSError:
        shutil.copy2(source, staging)
    staging.replace(link)
    staging.unlink(missing_ok=True)  # renaming one name of a file to another of its names does nothing


def find(path: str | Path, beside: Path | None = None, what: str = "file", key: str | None = None) -> Path:
    """Resolve a user's path: as given, from the working directory, then beside the recipe it was written in.

    Raises MissingFileError naming each place that was looked at and the key to change.
    """
    given = Path(path).expanduser()
    places = [given] if given.is_absolute() else [Path.cwd() / given, *([beside / given] if beside else [])]
    for place in places:
        if place.exists():
            return place.resolve()
    looked = " and ".join(str(place) for place in dict.fromkeys(places))
    hint = f" Change {key}, or put the {what} there." if key else ""
    raise MissingFileError(f"No {what} at {str(path)!r}: looked at {looked}.{hint}")
