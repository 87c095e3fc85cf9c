"""Checkpoints written in the background: what is published, what fails as a whole, who waits for whom."""

import errno
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from tests.engine.written import SLOW, contents, make, names, saved, value_of
from tinyworld.core import files
from tinyworld.core.errors import CheckpointError
from tinyworld.engine import checkpoint
from tinyworld.engine.writer import Contents


@pytest.mark.parametrize("background", [True, False])
def test_a_checkpoint_holds_everything_and_is_linked(tmp_path: Path, background: bool) -> None:
    one = make(tmp_path, background=background)
    one.save(20, contents(4.0), {"seed": 7})
    one.wait()
    path = tmp_path / "checkpoint-20"
    manifest = files.read_manifest(path)
    assert manifest is not None and (manifest["step"], manifest["fingerprint"]) == (20, {"seed": 7})
    assert list(manifest["files"]) == ["ema.safetensors", "model.safetensors", "state/rng-rank0.pt", "state/trainer.pt"]
    assert files.verify_folder(path) == []
    assert checkpoint.read_state(path, "trainer") == {"value": torch.tensor(4.0)}
    assert list(checkpoint.read_rank_states(path, "rng")) == [{"rank": 0}]
    assert value_of(path / "model.safetensors") == 4 and value_of(tmp_path / "latest.safetensors") == 2
    assert (tmp_path / "latest.safetensors").samefile(tmp_path / "step-20.safetensors")
    assert names(tmp_path) == ["checkpoint-20", "latest.safetensors", "step-20.safetensors"]
    assert sorted(p.name for p in path.iterdir()) == ["ema.safetensors", "manifest.json", "model.safetensors", "state"]
    (done,) = one.finished()
    assert (done.step, done.path, done.bytes) == (20, path, checkpoint.size_of(path)) and one.finished() == []


def test_without_an_average_the_weights_are_linked(tmp_path: Path) -> None:
    saved(tmp_path, 3, average=False)
    assert (tmp_path / "latest.safetensors").samefile(tmp_path / "checkpoint-3" / "model.safetensors")


def blocking(event: threading.Event) -> Contents:
    made = contents()

    def write(path: Path) -> None:
        assert event.wait(SLOW)
        made.files["model.safetensors"](path)

    return Contents({"model.safetensors": write}, {}, {})


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    one, event = make(tmp_path), threading.Event()
    one.save(1, blocking(event), {})
    assert one.finished() == [] and one.failed() is None and checkpoint.listing(tmp_path) == []
    event.set()
    one.wait()
    assert [done.step for done in one.finished()] == [1]


def test_only_one_checkpoint_is_on_its_way(tmp_path: Path) -> None:
    one, event = make(tmp_path), threading.Event()
    one.save(1, blocking(event), {})
    threading.Timer(0.05, event.set).start()
    one.save(2, contents(), {})
    assert event.is_set() and (tmp_path / "checkpoint-1").exists()
    one.wait()
    first, second = one.finished()
    assert (first.step, second.step) == (1, 2)


@pytest.mark.parametrize("background", [True, False])
def test_what_cannot_be_written_leaves_nothing_and_does_not_hinder_the_next(tmp_path: Path, background: bool) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.EIO, "Input/output error", str(path))

    saved(tmp_path, 1)
    before = names(tmp_path)
    one = make(tmp_path, background=background)
    with pytest.raises(CheckpointError, match="checkpoint-2 was not written: OSError.*checkpoint-2/model") as error:
        one.save(2, Contents({"model.safetensors": broken}, {}, {}), {})
        one.wait()
    assert files.STAGING_PREFIX not in str(error.value) and isinstance(error.value.__cause__, OSError)
    assert names(tmp_path) == before and one.finished() == [] and one.failed() is None
    one.save(2, contents(), {})
    one.wait()
    assert checkpoint.newest_good(tmp_path) == tmp_path / "checkpoint-2"


def test_an_error_is_seen_without_waiting_and_not_lost_by_the_next_save(tmp_path: Path) -> None:
    one = make(tmp_path)
    one.save(1, Contents({"model.safetensors": lambda path: None}, {}, {}), {})
    for thread in threading.enumerate():
        if thread.name == "checkpoint-1":
            thread.join()
    assert "checkpoint-1 was not written" in str(one.failed())
    with pytest.raises(CheckpointError):
        one.save(2, contents(), {})


def test_closing_lets_a_write_end_and_logs_what_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, event = make(tmp_path), threading.Event()
    one.save(1, blocking(event), {})
    threading.Timer(0.05, event.set).start()
    one.close()
    assert checkpoint.newest_good(tmp_path) == tmp_path / "checkpoint-1" and not caplog.text
    one = make(tmp_path)
    one.save(2, Contents({"model.safetensors": lambda path: None}, {}, {}), {})
    one.close()
    assert "checkpoint-2 was not written" in caplog.text


def test_every_file_is_durable_before_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        order.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        order.append(f"rename {Path(target).name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    saved(tmp_path, 5)
    order = [name.removeprefix(f".staging-{os.getpid()}-") for name in order]
    published = order.index("rename checkpoint-5")
    written = ("model.safetensors", "ema.safetensors", "trainer.pt", "rng-rank0.pt")
    assert max(order.index(name) for name in written) < order.index("manifest.json") < order.index("state") < published
    assert order[published + 1] == tmp_path.name


def test_what_reads_back_otherwise_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rot(path: Path) -> None:
        if path.name == "trainer.pt":
            path.write_bytes(bytes(path.stat().st_size))

    monkeypatch.setattr(files, "drop_cached", rot)
    with pytest.raises(
        CheckpointError, match="checkpoint-5/state/trainer.pt does not match its SHA-256.*Check the disk"
    ):
        saved(tmp_path, 5)
    assert names(tmp_path) == []


def test_the_same_step_is_replaced_only_by_a_complete_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(tmp_path, background=False)
    one.save(5, contents(1.0), {})
    with pytest.raises(CheckpointError):
        one.save(5, Contents({"model.safetensors": lambda path: None}, {}, {}), {})
    assert value_of(tmp_path / "checkpoint-5" / "model.safetensors") == 1
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if Path(target).name == "checkpoint-5" and "old-" not in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing)
        with pytest.raises(CheckpointError):
            one.save(5, contents(2.0), {})
    assert files.verify_folder(tmp_path / "checkpoint-5") == [] and value_of(tmp_path / "latest.safetensors") == 0.5
    one.save(5, contents(3.0), {})
    assert value_of(tmp_path / "checkpoint-5" / "model.safetensors") == 3
    assert value_of(tmp_path / "latest.safetensors") == value_of(tmp_path / "step-5.safetensors") == 1.5
    assert names(tmp_path) == ["checkpoint-5", "latest.safetensors", "step-5.safetensors"]


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def torch_error(*_: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 640 vs 598")


@pytest.mark.parametrize(("place", "fault"), [("os.fsync", no_space), ("torch.save", torch_error)])
def test_a_full_disk_is_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, fault: Callable[..., None]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(place, fault)
        patched.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
        one = make(tmp_path, keep=3, background=False)
        with pytest.raises(CheckpointError, match="checkpoint-5 was not written: the disk of .* is full") as error:
            one.save(5, contents(size=2**20, replay=torch.zeros(2**20)), {})
    for words in (
        "at least 4.0 MiB",
        "MiB are free",
        "checkpoints_total_limit (now 3)",
        "run.output_dir",
        str(tmp_path),
    ):
        assert words in str(error.value)
    assert names(tmp_path) == []
    one.save(5, contents(), {})


def test_a_failed_file_is_closed_so_that_its_room_comes_back(tmp_path: Path) -> None:
    opened = []

    def broken(path: Path) -> None:
        file = path.open("wb")
        opened.append(weakref.ref(file))
        raise RuntimeError("broken")

    one = make(tmp_path)
    one.save(1, Contents({"model.safetensors": broken}, {}, {}), {})
    with pytest.raises(CheckpointError) as error:
        one.wait()
    assert opened[0]() is None and str(error.value.__cause__) == "broken"
