"""Loading: the same batches for any number of workers, from any start; workers that outlive signals but not the run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing import active_children

from tinyworld.core.errors import DataError, TrainingError
from tinyworld.core.rng import capture
from tinyworld.data.clips import ClipDataset
from tinyworld.data.loader import ClipBatch, train_batches
from tinyworld.data.order import Order
from tinyworld.data.scan import ClipRef


@pytest.fixture
def dataset(clip_refs: list[ClipRef]) -> ClipDataset:
    return ClipDataset(clip_refs, [(32, 32, 4), (48, 32, 3)], frame_steps=[1, 2], crop_scale="random")


@pytest.fixture
def order(dataset: ClipDataset) -> Order:
    return Order(dataset.bucket_of, 4, seed=3)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    assert active_children() == []


def same(one: list[list[ClipBatch]], other: list[list[ClipBatch]]) -> bool:
    pairs = [(a, b) for ours, theirs in zip(one, other, strict=True) for a, b in zip(ours, theirs, strict=True)]
    return all(
        torch.equal(a.frames, b.frames) and (a.ids, a.starts, a.steps, a.faults) == (b.ids, b.starts, b.steps, b.faults)
        for a, b in pairs
    )


def test_batches_are_those_of_the_order(dataset: ClipDataset, order: Order) -> None:
    batches = list(train_batches(dataset, order, 5, 8, micro_batches=2))
    assert len(batches) == 3
    for step, parts in enumerate(batches, start=5):
        for part, draws in zip(parts, order.rank_slice(step, 0, 1, 2), strict=True):
            samples = [dataset[draw] for draw in draws]
            assert torch.equal(part.frames, torch.stack([sample.frames for sample in samples]))
            assert part.frames.dtype == torch.uint8
            assert part.ids == [sample.id for sample in samples]
            assert (part.starts, part.steps) == ([s.start for s in samples], [s.step for s in samples])
            height, width, frames = dataset.buckets[draws[0].bucket]
            assert part.frames.shape == (2, frames, 3, height, width)


def test_neither_workers_nor_the_start_change_anything(dataset: ClipDataset, order: Order) -> None:
    straight = list(train_batches(dataset, order, 0, 6, micro_batches=2))
    assert same(straight, list(train_batches(dataset, order, 0, 6, micro_batches=2, num_workers=2)))
    assert same(straight[4:], list(train_batches(dataset, order, 4, 6, micro_batches=2, num_workers=1, prefetch=1)))


def test_two_processes_see_what_one_sees_in_two_micro_batches(dataset: ClipDataset, order: Order) -> None:
    alone = list(train_batches(dataset, order, 2, 4, rank=0, world=1, micro_batches=2))
    ranks = [list(train_batches(dataset, order, 2, 4, rank=rank, world=2, micro_batches=1)) for rank in range(2)]
    assert same(alone, [[first[0], second[0]] for first, second in zip(*ranks, strict=True)])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_generator_of_this_process_moves(num_workers: int, dataset: ClipDataset, order: Order) -> None:
    before = capture()
    list(train_batches(dataset, order, 0, 2, num_workers=num_workers))
    after = capture()
    assert before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert before["numpy"][2:] == after["numpy"][2:]


def test_the_state_of_this_process_changes_no_batch(dataset: ClipDataset, order: Order) -> None:
    first = list(train_batches(dataset, order, 0, 2, num_workers=1))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert same(first, list(train_batches(dataset, order, 0, 2, num_workers=1)))


def test_faults_travel_with_the_batch(clip_refs: list[ClipRef], tmp_path: Path) -> None:
    clips = [*clip_refs, replace(clip_refs[0], id="gone", path=tmp_path / "gone.mp4")]
    dataset = ClipDataset(clips, [(32, 32, 4)])
    order = Order(dataset.bucket_of, 7, seed=0)
    (((batch,),), ((again,),)) = (tuple(train_batches(dataset, order, 0, 1, num_workers=workers)) for workers in (0, 1))
    assert batch.faults[0] == (str(tmp_path / "gone.mp4"), "no such file")
    assert batch.faults == again.faults
    assert "gone" not in batch.ids
    assert len(batch.ids) == 7


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_readable_is_one_clear_error(num_workers: int, clip_refs: list[ClipRef], tmp_path: Path) -> None:
    dataset = ClipDataset([replace(clip_refs[0], path=tmp_path / "gone.mp4")], [(32, 32, 4)])
    with pytest.raises(DataError, match="videos in a row could not be read") as caught:
        next(train_batches(dataset, Order(dataset.bucket_of, 2, 0), 0, 4, num_workers=num_workers))
    assert "Traceback" not in str(caught.value)


def test_moving_and_pinning_keep_the_names(dataset: ClipDataset, order: Order) -> None:
    ((batch,),) = train_batches(dataset, order, 0, 1)
    moved = batch.to("meta")
    assert moved.frames.device.type == "meta"
    assert (moved.ids, moved.starts, moved.steps, moved.faults) == (batch.ids, batch.starts, batch.steps, batch.faults)
    if torch.cuda.is_available():
        assert batch.pin_memory().frames.is_pinned()


def test_a_worker_that_dies_is_one_clear_error(dataset: ClipDataset, order: Order) -> None:
    batches = train_batches(dataset, order, 0, 1000, num_workers=1, prefetch=1)
    next(batches)
    os.kill(active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"A data loading process died .*key: data\.num_workers, now 1"):
        for _ in batches:
            pass


def test_workers_end_with_the_iterator(dataset: ClipDataset, order: Order) -> None:
    batches = train_batches(dataset, order, 0, 1000, num_workers=2)
    next(batches)
    assert len(active_children()) == 2
    batches.close()
    assert active_children() == []


def test_workers_outlive_the_signals_of_a_scheduler_and_a_keyboard(dataset: ClipDataset, order: Order) -> None:
    expected = list(train_batches(dataset, order, 0, 8))
    batches = train_batches(dataset, order, 0, 8, num_workers=2, prefetch=1)
    got = [next(batches)]
    for worker in active_children():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            # from a third process: a scheduler is not the parent either
            subprocess.run([sys.executable, "-c", f"import os; os.kill({worker.pid}, {int(number)})"], check=True)
    got += list(batches)
    assert same(expected, got)


def test_workers_end_when_their_parent_asks(dataset: ClipDataset, order: Order) -> None:
    batches = train_batches(dataset, order, 0, 1000, num_workers=1)
    next(batches)
    (worker,) = active_children()
    worker.terminate()
    worker.join(timeout=60)
    assert not worker.is_alive()
    batches.close()


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from tinyworld.data.clips import ClipDataset
from tinyworld.data.loader import train_batches
from tinyworld.data.order import Order
from tinyworld.data.scan import ClipRef
from multiprocessing import active_children
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a shell's background begins with SIGINT ignored
clips = [ClipRef(str(n), Path(sys.argv[1]) / f"clip_{n}.mp4", 10 * (n + 1), 96, 64, 24.0) for n in range(6)]
dataset = ClipDataset(clips, [(32, 32, 4)])
batches = train_batches(dataset, Order(dataset.bucket_of, 2, 0), 0, 10**6, num_workers=2)
HOW
"""
STARTED = "next(batches); print(*(child.pid for child in active_children()), flush=True); "
KILLED_WHILE_STARTING = """
import threading, time, tinyworld.data.loader as loader
start = loader._start_worker
def slowly(parent, number):
    start(parent, number)
    print(os.getpid(), flush=True)
    time.sleep(2)
loader._start_worker = slowly
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
next(batches)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (STARTED + "raise SystemExit(3)", 3),
        (STARTED + "os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        # Not signal.pause(): the signal may reach another thread first, and nothing would end the pause.
        (STARTED + "os.killpg(0, signal.SIGINT)\nwhile True: time.sleep(0.05)", None),
        (KILLED_WHILE_STARTING, -signal.SIGKILL),
    ],
    ids=["exit", "kill", "interrupt", "kill while starting"],
)
def test_no_worker_and_no_noise_is_left_however_the_parent_ends(how: str, code: int | None, video_folder: Path) -> None:
    script = SCRIPT.replace("HOW", how)
    run = subprocess.run(
        [sys.executable, "-c", script, str(video_folder)],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        check=False,
    )
    workers = [int(word) for word in run.stdout.split()]
    assert len(workers) == 2
    assert code is None or run.returncode == code
    assert run.stderr.count("Traceback") <= (1 if code is None else 0), run.stderr  # the parent's own KeyboardInterrupt
    assert "DataLoader worker" not in run.stderr
    for _ in range(100):  # workers of a killed parent look for it every two seconds
        if not any(alive(pid) for pid in workers):
            break
        time.sleep(0.1)
    assert not [pid for pid in workers if alive(pid)]
