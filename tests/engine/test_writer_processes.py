"""Two processes write one checkpoint or none."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import multiprocessing

from tests.engine.written import contents, make, names
from tinyworld.core import dist, files
from tinyworld.core.errors import CheckpointError
from tinyworld.engine import checkpoint, writer
from tinyworld.engine.writer import Writer


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
    facts = {**written_together(run, rank), **written_apart(run, rank)}
    torch.save(facts, folder / f"facts-{rank}.pt")
    dist.gather("end")
    gone = make(run)
    torch.distributed.destroy_process_group()
    if rank == 0:  # the process ends while its thread waits for the other: not for a whole time-out
        gone.save(4, contents(4.0), {})
        return
    os._exit(0)  # the other rank: gloo's threads abort an orderly exit now and then, after all work is done


def written_together(run: Path, rank: int) -> dict[str, Any]:
    """A checkpoint of both, one that a disk refuses, and the next."""
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
    return facts


def written_apart(run: Path, rank: int) -> dict[str, Any]:
    """Checkpoints that one rank begins when the other has gone, or is late."""
    facts: dict[str, Any] = {}
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
    return facts


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
