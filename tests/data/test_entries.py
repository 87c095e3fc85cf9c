"""Entries: named by what they depend on, complete or absent, any number of writers."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tinyworld.core.rng import normal
from tinyworld.data.entries import Entries

PARTS = ("mean", "logvar")


@pytest.fixture(params=[PARTS, ()], ids=["always the same parts", "any parts"])
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Entries:
    return Entries(tmp_path / "entries", 3, request.param)


def facts(number: int = 0) -> dict[str, Any]:
    return {"video": "ab", "frames": [number, number + 1], "colour": None}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    first, second = normal([seed, seed + 1], (4, 4, 6)).half().unbind(0)
    return {"mean": first, "logvar": second}


def missing(entries: Entries, count: int = 1, deep: bool = False) -> list[int]:
    return entries.missing(range(count), facts, deep)


def test_what_is_read_is_what_was_written_last(entries: Entries) -> None:
    assert entries.read(facts()) is None and missing(entries) == missing(entries, deep=True) == [0]
    for seed in (0, 5):
        assert entries.write(facts(), tensors(seed)) == entries.path(facts()).stat().st_size
        found = entries.read(facts())
        assert found is not None and found.keys() == tensors().keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors(seed).items())
    assert missing(entries) == missing(entries, deep=True) == []


@pytest.mark.parametrize("parts", [PARTS, ()])
def test_what_is_on_disk_stays_readable(parts: tuple[str, ...], tmp_path: Path) -> None:
    """Names, metadata and checksums of folders that were filled long ago."""
    entries = Entries(tmp_path, 1, parts)
    entries.write(facts(), tensors())
    text = '{"colour": null, "format": 1, "frames": [0, 1], "video": "ab"}'
    key = hashlib.sha256(text.encode()).hexdigest()
    digest = hashlib.sha256()
    for name in parts or sorted(PARTS):
        digest.update(b"" if parts else f"{name} ".encode())
        digest.update(b"torch.float16 [4, 4, 6]" + tensors()[name].numpy().tobytes())
    with safe_open(tmp_path / key[:2] / key[2:4] / f"{key}.safetensors", "pt") as file:
        assert file.metadata() == {"facts": text, "sha256": digest.hexdigest()}


def test_each_fact_and_the_version_change_the_key(entries: Entries) -> None:
    others = [facts(1), {**facts(), "video": "b"}, {**facts(), "colour": [1.0]}, {**facts(), "more": None}]
    keys = [entries.key(facts()), *map(entries.key, others), Entries(entries.folder, 4, entries.parts).key(facts())]
    assert len(set(keys)) == 6
    assert entries.key(dict(reversed(facts().items()))) == keys[0]


def test_what_was_read_outlives_its_file(entries: Entries) -> None:
    entries.write(facts(), tensors())
    found = entries.read(facts())
    file = entries.path(facts())
    file.write_bytes(bytes(file.stat().st_size))  # in place, as nothing here ever writes
    assert found is not None and all(torch.equal(found[name], tensor) for name, tensor in tensors().items())


@pytest.mark.parametrize("keep", [0, 5, 8, 200, -1])
def test_a_truncated_entry_counts_as_missing(keep: int, entries: Entries) -> None:
    entries.write(facts(), tensors())
    file = entries.path(facts())
    file.write_bytes(file.read_bytes()[:keep])
    assert entries.read(facts()) is None
    assert missing(entries) == missing(entries, deep=True) == [0]
    entries.write(facts(), tensors())
    assert missing(entries, deep=True) == []


@pytest.mark.parametrize("place", [-1, -200, -380, 9, 60, 200])
def test_a_damaged_entry_is_never_data(place: int, entries: Entries) -> None:
    entries.write(facts(), tensors())
    file = entries.path(facts())
    content = bytearray(file.read_bytes())
    content[place] ^= 0x04
    file.write_bytes(content)
    assert entries.read(facts()) is None and missing(entries, deep=True) == [0]


def test_an_entry_under_anothers_name_is_not_taken(entries: Entries) -> None:
    for number in (0, 1):
        entries.write(facts(number), tensors())
    shutil.copy(entries.path(facts(0)), entries.path(facts(1)))
    assert entries.read(facts(1)) is None and missing(entries, 2) == missing(entries, 2, deep=True) == [1]


def test_an_entry_without_all_its_parts_counts_as_missing(tmp_path: Path) -> None:
    entries = Entries(tmp_path, 1, PARTS)
    Entries(tmp_path, 1).write(facts(), {"mean": tensors()["mean"]})
    assert entries.read(facts()) is None and missing(entries, deep=True) == [0]


def test_what_cannot_be_named_is_missing(entries: Entries, tmp_path: Path) -> None:
    def of_a_file(number: int) -> dict[str, Any]:
        return {"bytes": (tmp_path / str(number)).stat().st_size}

    (tmp_path / "1").touch()
    entries.write(of_a_file(1), tensors())
    assert entries.missing([0, 1], of_a_file) == entries.missing([0, 1], of_a_file, deep=True) == [0]


WRITER = """
import sys
from pathlib import Path
import torch
from tinyworld.data.entries import Entries
entries = Entries(Path(sys.argv[1]), 3)
zeros = {"mean": torch.zeros(9, 16, 60, 104).half(), "logvar": torch.zeros(9, 16, 60, 104).half()}
for number in range(10**6):
    entries.write({"video": "ab", "frames": [number % 20, number % 20 + 1], "colour": None}, zeros)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_entries_only(tmp_path: Path) -> None:
    entries = Entries(tmp_path, 3)
    for wait in (0.0, 0.011):
        process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for file in tmp_path.rglob("*.safetensors"):
            assert file.stat().st_size > 4 * 9 * 16 * 60 * 104
        assert missing(entries, 20) == missing(entries, 20, deep=True) != list(range(20))


def _write_all(entries: Entries, count: int) -> None:
    for number in range(count):
        entries.write(facts(number), tensors(number))


def test_writers_do_not_disturb_each_other(entries: Entries) -> None:
    fork, count = multiprocessing.get_context("fork"), 30
    writers = [fork.Process(target=_write_all, args=(entries, count)) for _ in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        for number in range(count):
            found = entries.read(facts(number))
            assert found is None or torch.equal(found["mean"], tensors(number)["mean"])
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert missing(entries, count, deep=True) == []
    files = [file for file in entries.folder.rglob("*") if file.is_file()]
    assert len(files) == count and all(file.suffix == ".safetensors" for file in files)


def test_what_nobody_needs_is_swept(entries: Entries) -> None:
    sizes = [entries.write(facts(number), tensors()) for number in range(6)]
    fresh, stale = (entries.path(facts()).with_name(f".staging-1-{name}") for name in ("fresh", "stale"))
    for file in (fresh, stale):
        file.write_bytes(b"half")
    os.utime(stale, (1, 1))
    assert entries.sweep({entries.key(facts(number)) for number in range(4)}) == (2, 4 + sum(sizes[4:]))
    assert missing(entries, 6) == [4, 5]
    assert fresh.exists() and not stale.exists()
    assert Entries(entries.folder / "none", 1).sweep([]) == (0, 0)
