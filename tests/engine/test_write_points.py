"""A process is killed (SIGKILL) at every point where it changes the disk while it saves; nothing that was good is lost.

The points are Python's audit events in a forked child: opening for writing, mkdir, rename, link, remove. torch.save and
safetensors write without events, so in one variant the files are written in two halves with an event between them.
"""

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from tinyworld.core import files
from tinyworld.engine import checkpoint
from tinyworld.engine.writer import Contents, Writer

CHANGES = {"os.mkdir", "os.rmdir", "os.rename", "os.link", "os.remove", "shutil.copyfile", "half"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TIMEOUT = 60.0
FINISHED = 0


def tensors(step: int, salt: int = 0) -> dict[str, torch.Tensor]:
    """What a step holds; salt tells two saves of one step apart."""
    return {
        name: torch.arange(16.0) * step + index + salt for index, name in enumerate(("model", "ema", "moments", "rng"))
    }


def contents(step: int, salt: int = 0, halves: bool = False) -> Contents:
    held = tensors(step, salt)

    def weights(name: str) -> Callable[[Path], None]:
        content = {"w": held[name]}
        return lambda path: in_halves(path, save(content)) if halves else save_file(content, path)

    named = {f"{name}.safetensors": weights(name) for name in ("model", "ema")}
    return Contents(named, {"trainer": {"moments": held["moments"]}}, {"rng": {"rng": held["rng"]}})


def in_halves(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        sys.audit("half")
        file.write(data[len(data) // 2 :])


def torch_save_in_halves(value: Any, path: Path) -> None:
    buffer = io.BytesIO()
    TORCH_SAVE(value, buffer)
    in_halves(path, buffer.getvalue())


TORCH_SAVE = torch.save


def read(folder: Path) -> dict[str, torch.Tensor]:
    held = {name: load_file(folder / f"{name}.safetensors")["w"] for name in ("model", "ema")}
    return {
        **held,
        "moments": checkpoint.read_state(folder, "trainer")["moments"],
        "rng": checkpoint.read_rank_state(folder, "rng", 0)["rng"],
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saver(run: Path, background: bool = False) -> Writer:
    return Writer(run, keep=2, background=background, timeout=TIMEOUT)


def kill_at(point: int) -> None:
    """Have this process killed when it is about to make its `point`-th change."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in CHANGES or (event == "open" and arguments[2] & WRITING):
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def killed(run: Path, point: int, salt: int, halves: bool) -> bool:
    """Save step 20 in a forked process that dies at a point; whether it came so far."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if halves:
                torch.save = torch_save_in_halves
            one = saver(run, background=True)
            kill_at(point)
            one.save(20, contents(20, salt, halves), {"seed": 1})
            one.wait()
            code = FINISHED
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (FINISHED, -signal.SIGKILL), f"the save at point {point} failed by itself: {status}"
    return status != FINISHED


def check(run: Path, possible: list[dict[str, torch.Tensor]]) -> int:
    """What the next start does, and what it must find; which of the possible states it is."""
    files.remove_staging(run)
    assert not [path.name for path in run.iterdir() if path.name.startswith(files.STAGING_PREFIX)]
    newest = checkpoint.newest_good(run)
    assert newest is not None and checkpoint.relink(run) == newest
    assert all(not files.verify_folder(path) for path in checkpoint.listing(run)), "a damaged folder under its name"
    assert (run / "latest.safetensors").samefile(newest / "ema.safetensors")
    held = read(newest)
    (index,) = [index for index, state in enumerate(possible) if same(state, held)]
    saver(run).save(30, contents(30), {"seed": 1})
    assert checkpoint.newest_good(run) == run / "checkpoint-30" and same(read(run / "checkpoint-30"), tensors(30))
    assert checkpoint.relink(run) == run / "checkpoint-30"
    return index


@pytest.mark.parametrize("variant", ["as it is", "halves", "same step"])
def test_a_kill_at_any_point_loses_nothing(tmp_path: Path, variant: str) -> None:
    """The new checkpoint is there or the one before it, never less, from the first point to the last."""
    before, salt = tmp_path / "before", int(variant == "same step")
    for step in (5, 10, *([20] if salt else [])):  # keep=2: the next one to be saved removes the oldest
        saver(before).save(step, contents(step), {"seed": 1})
    possible = [tensors(20, salt), tensors(20 if salt else 10)]
    found, going_on = [], True
    while going_on:
        run = tmp_path / f"killed-{len(found) + 1}"
        shutil.copytree(before, run, copy_function=os.link)  # the links stay links; nothing is changed in place
        going_on = killed(run, len(found) + 1, salt, variant == "halves")
        found.append(check(run, possible))
    assert len(found) > 20 and found[0] == 1 and found[-1] == 0
    assert found == sorted(found, reverse=True), "a checkpoint that was published disappeared again"
    assert checkpoint.newest_good(before) == before / f"checkpoint-{20 if salt else 10}"
