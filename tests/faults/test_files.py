"""Damaged, hostile, full and unwritable storage, and clocks that jump: nothing is lost but unsaved steps."""

import contextlib
import os
import pickle
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.fake import FakeTask, fake_recipe
from tests.engine.run_files import assert_same, events
from tests.faults import tasks
from tests.faults.processes import Run, quiet_recipe
from tinyworld.core.errors import EXIT_USER_ERROR, CheckpointError
from tinyworld.engine import checkpoint
from tinyworld.engine.loop import run_training

LATEST = {"checkpoint": {"resume_from_checkpoint": "latest"}}


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[random.Random(file.name).randrange(len(data))] ^= 1 << 3
    file.write_bytes(data)


def delete(file: Path) -> None:
    file.unlink()


def swap(file: Path) -> None:
    """The same file of the checkpoint before takes its place."""
    newest = next(parent for parent in file.parents if parent.name == "checkpoint-20")
    shutil.copy(newest.with_name("checkpoint-15") / file.relative_to(newest), file)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_training(FakeTask(), fake_recipe(tmp_path_factory.mktemp("straight"))).folder


@pytest.mark.parametrize("damage", [truncate, flip, delete, swap])
def test_any_damaged_file_of_the_newest_checkpoint_leads_to_the_one_before(
    damage: Callable[[Path], None], straight: Path, tmp_path: Path
) -> None:
    for number, file in enumerate(sorted(path for path in (straight / "checkpoint-20").rglob("*") if path.is_file())):
        output = tmp_path / str(number)
        shutil.copytree(straight, output / "run")
        damage(output / "run" / file.relative_to(straight))
        assert checkpoint.newest_good(output / "run") == output / "run" / "checkpoint-15", file.name
    shutil.rmtree(output / "run")
    shutil.copytree(straight, output / "run")
    damage(output / "run" / "checkpoint-20" / "state" / "optimizer.pt")
    resumed = run_training(FakeTask(), fake_recipe(output, **LATEST)).folder
    assert events(resumed, "start")[-1]["resumed_from"].endswith("checkpoint-15")
    assert_same(straight / "checkpoint-20", resumed / "checkpoint-20")


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch owned",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_training(FakeTask(), fake_recipe(tmp_path)).folder
    file = run / "checkpoint-20" / "state" / "optimizer.pt"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="optimizer.pt"):  # its digest is another
        run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "checkpoint-20"}))
    with pytest.raises(CheckpointError, match=r"optimizer\.pt .*code"):  # also where the digest was made to fit
        checkpoint.read_state(run / "checkpoint-20", "optimizer")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_changes_nothing(
    jump: float, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + shift[0])
    task = FakeTask()
    task.step_hook = lambda step: shift.__setitem__(0, jump if step >= 7 else 0.0)
    recipe = fake_recipe(tmp_path, validation={"validation_time_limit": 30}, parallel={"step_timeout": 30})
    run = run_training(task, recipe).folder
    assert_same(straight / "checkpoint-20", run / "checkpoint-20")
    assert checkpoint.newest_good(run) == run / "checkpoint-20"


def test_a_validation_that_takes_too_long_is_given_up_and_does_not_count(straight: Path, tmp_path: Path) -> None:
    class Slow(FakeTask):
        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            time.sleep(1.1)
            return super().evaluate(model, samples, device)

    recipe = fake_recipe(tmp_path, validation={"validation_time_limit": 1, "early_stopping_patience": 1})
    outcome = run_training(Slow(), recipe)
    assert (outcome.reason, outcome.history) == ("finished", [])
    assert all(
        torch.equal(value, load_file(straight / "checkpoint-20" / "model.safetensors")[name])
        for name, value in load_file(outcome.folder / "checkpoint-20" / "model.safetensors").items()
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs leave to mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_too_small_is_known_before_step_1(small_disk: Path) -> None:
    many = {"training": {"max_train_steps": 4000}, "checkpoint": {"checkpoints_total_limit": 50}}
    with Run(tasks.quiet, quiet_recipe(small_disk, **many), world=1) as run:
        assert run.codes() == [EXIT_USER_ERROR]
        assert "free, and the run's checkpoints need" in run.said(0)
    assert not events(run.folder, "step")


def test_a_disk_that_fills_up_ends_the_run_and_the_last_checkpoint_is_good(small_disk: Path) -> None:
    long = {"training": {"max_train_steps": 4000}, "validation": {"validation_steps": 100_000}}
    with Run(tasks.slow, quiet_recipe(small_disk, **long, checkpoint={"checkpoints_total_limit": 1}), world=1) as run:
        run.until("checkpoint", 8)
        with (small_disk / "other").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 1024)
        assert run.codes() == [EXIT_USER_ERROR], run.said(0)
        assert "is full" in run.said(0) or "No space left" in run.said(0)
    newest = checkpoint.newest_good(run.folder)
    assert newest is not None and checkpoint.step_of(newest) >= 8
    (small_disk / "other").unlink()
    step = checkpoint.step_of(newest)
    with Run(tasks.quiet, quiet_recipe(small_disk, training={"max_train_steps": step + 2}, **LATEST), world=1) as run:
        assert run.codes() == [0], run.said(0)


def test_an_output_folder_that_cannot_be_written_is_one_paragraph(tmp_path: Path) -> None:
    place = tmp_path / "frozen"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs leave to mount a file system")
    try:
        recipe = quiet_recipe(tmp_path, run={"output_dir": str(place / "output")})
        with Run(tasks.quiet, recipe, world=1, said_in=tmp_path) as run:
            assert run.codes() == [EXIT_USER_ERROR]
            assert "Read-only file system" in run.said(0) and "Traceback" not in run.said(0)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
