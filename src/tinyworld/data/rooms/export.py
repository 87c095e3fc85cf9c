"""The data set as a folder: complete or absent, the same for the same arguments, rendered by several processes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.files import read_manifest, staged_folder, verify_folder, write_json
from tinyworld.data.rooms.sample import Wanted, write_sample

RECORD = "rooms"
"""The key of the manifest that holds the arguments a data set was made with."""
VERSION = 1
"""Of the scenes and the renderer; other numbers mean other pictures for the same arguments."""
SMALLEST = 32


def make_rooms(
    folder: str | Path,
    scenes: int = 12,
    frames: int = 49,
    height: int = 128,
    width: int = 128,
    seed: int = 0,
    fps: int = 24,
    points: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Path:
    """Render a data set of rooms and return its folder.

    Writes sample_000, sample_001, … (one scene each; see `sample`) and metadata.json, and appears under its name only when
    complete. Scene i of a seed is the same whatever the other arguments are but the picture's size and rate, and frame k
    does not depend on `frames`; the same arguments give the same bytes on one machine, whatever `workers` is.

    points: also write world points per frame (12 bytes a pixel; they follow from depth and cameras). on_progress is
    called with (scenes done, scenes in all). workers: processes to render with, by default one per free core.

    A complete data set made with the same arguments is kept and returned (also one that has points when none are asked
    for). Raises ConfigError for arguments out of range, DataError for a folder with anything else in it.
    """
    folder = Path(folder)
    wanted = Wanted(seed, frames, height, width, fps, points)
    _check(wanted, scenes, workers)
    parameters = {"version": VERSION, "scenes": scenes, **wanted.to_dict()}
    report = on_progress or (lambda done, total: None)
    if _exists(folder, parameters):
        report(scenes, scenes)
        return folder
    count = min(scenes, workers or _cores())
    with staged_folder(folder, {RECORD: parameters}) as root:
        entries: list[dict[str, Any]] = []
        rendered = _in_processes(root, scenes, wanted, count) if count > 1 else _here(root, scenes, wanted)
        with closing(rendered):  # an interruption ends the processes before the folder they write into is removed
            for entry in rendered:
                entries.append(entry)
                report(len(entries), scenes)
        write_json(root / "metadata.json", sorted(entries, key=lambda entry: (len(entry["id"]), entry["id"])))
    return folder


def _check(wanted: Wanted, scenes: int, workers: int | None) -> None:
    problems = []
    for name, value, least in (
        ("scenes", scenes, 1), ("frames", wanted.frames, 1), ("fps", wanted.fps, 1), ("seed", wanted.seed, 0),
        ("height", wanted.height, SMALLEST), ("width", wanted.width, SMALLEST), ("workers", workers or 1, 1),
    ):  # fmt: skip
        if value < least:
            problems.append(f"{name}={value}: rooms need {name} of at least {least}.")
        elif name in ("height", "width") and value % 2:
            problems.append(f"{name}={value}: video needs even sizes. Use {name}={value - 1} or {value + 1}.")
    if problems:
        raise ConfigError(problems)


def _exists(folder: Path, parameters: dict[str, Any]) -> bool:
    """Whether the data set is there already; raises DataError when something else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    manifest = read_manifest(folder) if folder.is_dir() else None
    recorded = (manifest or {}).get(RECORD)
    advice = "Choose another folder, or remove this one first."
    if not isinstance(recorded, dict):
        raise DataError(f"{folder} exists and is not a data set of rooms; nothing was written. {advice}")
    wanted = parameters | ({"points": True} if recorded.get("points") else {})
    if recorded != wanted:
        keys = [key for key in parameters if recorded.get(key) != parameters[key]]
        has = ", ".join(f"{key}={recorded.get(key)}" for key in keys)
        asked = ", ".join(f"{key}={parameters[key]}" for key in keys)
        raise DataError(f"{folder} holds rooms made with {has}, but {asked} was asked for. {advice}")
    problems = verify_folder(folder)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise DataError(f"{folder} was changed after it was made: {problems[0]}{more}. {advice}")
    return True


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(root: Path, scenes: int, wanted: Wanted) -> Generator[dict[str, Any], None, None]:
    for index in range(scenes):
        yield write_sample(root, index, wanted)


def _in_processes(root: Path, scenes: int, wanted: Wanted, count: int) -> Generator[dict[str, Any], None, None]:
    """Entries as they are finished by `count` processes; none is left running when this ends.

    Processes of their own, not forks of this one: a fork would copy the locks of torch's threads, and
    `multiprocessing`'s other ways import the caller's main module again.
    """
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    lines: SimpleQueue[tuple[int, str | None]] = SimpleQueue()
    workers: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryFile("w+") as errors:
        try:
            for k in range(count):
                order = {"root": str(root.absolute()), "scenes": [k, scenes, count], "wanted": wanted.to_dict()}
                command = [sys.executable, "-P", "-m", "tinyworld.data.rooms.worker", json.dumps(order)]
                worker = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
                )
                workers.append(worker)
                assert worker.stdout is not None
                Thread(target=_forward, args=(k, worker.stdout, lines), daemon=True).start()
            left = count
            while left:
                k, line = lines.get()
                if line is not None:
                    yield json.loads(line)
                    continue
                left -= 1
                if workers[k].wait():
                    errors.seek(0)
                    raise RuntimeError(f"a process that renders rooms failed:\n{errors.read()[-2000:].strip()}")
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def _forward(number: int, output: IO[str], lines: "SimpleQueue[tuple[int, str | None]]") -> None:
    """Pass on the lines of one process, then None."""
    with output:
        for line in output:
            lines.put((number, line))
    lines.put((number, None))
