"""Checkpoints written in the background: what is published, what fails as a whole, who waits for whom."""

import errno
import json
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file, save_file
from torch import multiprocessing

from tinyworld.core import dist, files
from tinyworld.core.errors import CheckpointError
from tinyworld.engine import checkpoint, writer
from tinyworld.engine.writer import Contents, Writer

SLOW = 60.0
"""A time-out that no test should meet."""


def contents(value: float = 1.0, rank: int = 0, average: bool = True, size: int = 8, **own: Any) -> Contents:
    """All weights are `value`, the average is half of it."""

    def saver(number: float) -> Callable[[Path], None]:
        return lambda path: save_file({"w": torch.full((size,), number)}, path)

    weights = {"model.safetensors": saver(value)} | ({"ema.safetensors": saver(value / 2)} if average else {})
    return Contents(weights, {"trainer": {"value": torch.tensor(value)}}, {"rng": {"rank": rank}, **own})


def value_of(file: Path) -> float:
    return float(load_file(file)["w"][0])


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def make(run: Path, keep: int = 0, background: bool = True, timeout: float = SLOW) -> Writer:
    return Writer(run, keep, background, timeout)


def saved(run: Path, *steps: int, **values: Any) -> None:
    for step in steps:
        make(run, background=False).save(step, contents(float(step), **values), {})


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


def test_prune_keeps_what_others_need(tmp_path: Path) -> None:
    run, child = tmp_path / "run", tmp_path / "child"
    saved(run, 1, 2, 3, 4, 5, 6)
    child.mkdir()
    lines = [
        {"event": "start", "resumed_from": str(run / "checkpoint-2")},
        {"event": "step", "step": 3},
        {"event": "start", "resumed_from": str(run / "checkpoint-3")},  # no start of this run: it had steps of its own
    ]
    (child / "journal.jsonl").write_text('{"event": "sta\n[]\n{}\n' + "\n".join(json.dumps(line) for line in lines))
    (run / "checkpoint-4" / "manifest.json").unlink()
    removed = checkpoint.prune(run, 2)
    assert [path.name for path in removed] == ["checkpoint-1", "checkpoint-3"]
    assert [path.name for path in checkpoint.listing(run)] == [f"checkpoint-{n}" for n in (2, 4, 5, 6)]
    assert [name for name in names(run) if name.startswith("step")] == [f"step-{n}.safetensors" for n in (2, 4, 5, 6)]
    assert checkpoint.prune(run, 0) == []


def test_prune_never_removes_the_last_that_verifies(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    for step in (2, 3):
        file = tmp_path / f"checkpoint-{step}" / "state" / "trainer.pt"
        file.write_bytes(bytes(file.stat().st_size))
    assert checkpoint.prune(tmp_path, 1) == [tmp_path / "checkpoint-2"]
    assert checkpoint.newest_good(tmp_path) == tmp_path / "checkpoint-1"


def test_the_writer_prunes_and_goes_on_when_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = make(tmp_path, keep=1, background=False)
    one.save(1, contents(), {})
    one.save(2, contents(), {})
    assert [path.name for path in checkpoint.listing(tmp_path)] == ["checkpoint-2"]

    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(files, "remove_folder", busy)
    one.save(3, contents(), {})
    assert "could not be removed" in caplog.text and [done.step for done in one.finished()] == [1, 2, 3]


def test_links_follow_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.relink(tmp_path) is None
    saved(tmp_path, 1, 2, 3)
    assert checkpoint.relink(tmp_path) == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-3" / "ema.safetensors").write_bytes(b"")
    (tmp_path / "step-2.safetensors").unlink()
    assert checkpoint.relink(tmp_path) == tmp_path / "checkpoint-2"
    for name in ("latest", "step-2"):
        assert (tmp_path / f"{name}.safetensors").samefile(tmp_path / "checkpoint-2" / "ema.safetensors")
    assert not [name for name in names(tmp_path) if name.startswith(files.STAGING_PREFIX)]


def test_too_little_room_is_known_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage, mib = shutil.disk_usage(tmp_path), 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60 * mib))
    later = tmp_path / "not" / "yet"
    assert checkpoint.space_problem(later, 10 * mib, 5) is None
    problem = checkpoint.space_problem(later, 11 * mib, 5)
    assert problem is not None
    for words in (
        "60.0 MiB free",
        "need 66.0 MiB",
        "5 of about 11.0 MiB",
        "checkpoints_total_limit to 4",
        "run.output_dir",
    ):
        assert words in problem
    assert "total_limit" not in str(checkpoint.space_problem(later, 61 * mib, 1))
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_bytes(bytes(6 * mib))
    assert checkpoint.space_problem(tmp_path, 11 * mib, 5) is None


def test_the_estimate_is_what_a_checkpoint_takes(tmp_path: Path) -> None:
    weights = {f"w{index}": torch.zeros(2**16) for index in range(4)}
    moments = [{name: tensor.clone() for name, tensor in weights.items()} for _ in ("exp_avg", "exp_avg_sq")]
    one = make(tmp_path, background=False)
    names = ("model.safetensors", "ema.safetensors")
    one.save(1, Contents({n: lambda path: save_file(weights, path) for n in names}, {"trainer": moments}, {}), {})
    (done,) = one.finished()
    need = checkpoint.bytes_of(checkpoint.tensor_bytes(weights), average=True)
    assert 0 <= need - done.bytes <= checkpoint.SMALL_FILES


# Two processes


def error_of(one: Writer) -> str:
    try:
        one.wait()
    except CheckpointError as error:
        return str(error)
    return ""


def failing_save(*_: Any) -> None:
    raise RuntimeError("no such disk")


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    writer.LAST_GRACE = 0.2
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=240)
    )
    run = folder / "run"
    facts: dict[str, Any] = {}
    one = make(run)
    one.save(1, contents(1.0, rank), {})
    facts["first"] = error_of(one)
    save = torch.save
    for failing in (1, 0):  # the rank whose disk fails
        torch.save = failing_save if rank == failing else save
        one.save(2, contents(2.0, rank), {})
        facts[f"failing-{failing}"] = error_of(one)
        torch.save = save
        dist.gather(f"failed {failing}")
        facts[f"left-{failing}"] = names(run)
        dist.gather(f"seen {failing}")
    one.save(2, contents(2.0, rank), {})
    facts["second"] = error_of(one)
    facts["finished"] = [done.step for done in one.finished()]
    dist.gather("second")
    facts["names"] = names(run)
    dist.gather("names")

    late = make(run, timeout=0.3)
    if rank == 0:
        late.save(3, contents(3.0, rank), {})
        facts["late"] = error_of(late)
    dist.gather("late")
    if rank == 1:  # hears of it at once, from what rank 0 has left
        late.save(3, contents(3.0, rank), {})
        facts["late"] = error_of(late)
    left = make(run)  # with all the time in the world, but the run ends
    for turn in range(2):
        if rank == turn:
            left.save(3, contents(3.0, rank), {})
            left.close()
        dist.gather(f"left {turn}")
    lonely = make(run, timeout=0.1)
    if rank == 1:
        lonely.save(3, contents(3.0, rank), {})
        facts["lonely"] = error_of(lonely)
    facts["end"] = names(run)
    torch.save(facts, folder / f"facts-{rank}.pt")
    dist.gather("end")
    gone = make(run)
    torch.distributed.destroy_process_group()
    if rank == 0:  # the process ends while its thread waits for the other: not for a whole time-out
        gone.save(4, contents(4.0), {})


def test_two_processes_write_one_checkpoint_or_none(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    run = tmp_path / "run"
    one, two = (torch.load(tmp_path / f"facts-{rank}.pt", weights_only=True) for rank in range(2))
    for facts in (one, two):
        assert facts["first"] == facts["second"] == ""
        assert facts["failing-1"] == "checkpoint-2 was not written (rank 1): RuntimeError: no such disk"
        assert facts["failing-0"] == "checkpoint-2 was not written (rank 0): RuntimeError: no such disk"
        assert "checkpoint-3 was not written: no part came from rank 1 within 0.3 s" in facts["late"]
        for left in ("left-1", "left-0"):
            assert facts[left] == ["checkpoint-1", "latest.safetensors", "step-1.safetensors"]
    assert "rank 0 did not begin with it within 0.1 s" in two["lonely"]
    assert (one["finished"], two["finished"]) == ([1, 2], [])
    expected = ["checkpoint-1", "checkpoint-2", "latest.safetensors", "step-1.safetensors", "step-2.safetensors"]
    assert one["names"] == two["names"] == two["end"] == expected
    manifest = files.read_manifest(run / "checkpoint-2")
    assert manifest is not None and {"state/rng-rank0.pt", "state/rng-rank1.pt"} < set(manifest["files"])
    for rank in range(2):
        state = torch.load(run / "checkpoint-2" / "state" / f"rng-rank{rank}.pt", weights_only=True)
        assert state == {"rank": rank}
    assert checkpoint.newest_good(run) == run / "checkpoint-2"
    files.remove_staging(run)
    assert names(run) == expected
