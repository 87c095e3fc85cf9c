"""Batches of clips, loaded ahead by worker processes that keep no state."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinyworld.core.errors import DataError, TrainingError, UserError, passing
from tinyworld.data.clips import ClipDataset, Sample
from tinyworld.data.cut import Cut
from tinyworld.data.latent_cache import Latents
from tinyworld.data.order import Draw, Order
from tinyworld.data.scan import reason_of

PARENT_CHECK_SECONDS = 2.0
S = TypeVar("S")
B = TypeVar("B")


@dataclass
class ClipBatch:
    """One micro-batch of one process.

    frames: uint8 N T C H W, RGB in [0, 255]. ids, starts, steps: of the N clips, as in `Sample`. faults: (path, reason)
    of videos that could not be read and were replaced. noise_seeds: of the N clips, for `core.rng.normal`. posterior:
    (mean, log variance) of the reference VAE's latents, fp32 N L c h w each; None without a cache of them.
    """

    frames: Tensor
    ids: list[str]
    starts: list[int]
    steps: list[int]
    faults: list[tuple[str, str]] = field(default_factory=list)
    noise_seeds: list[int] = field(default_factory=list)
    posterior: Latents | None = None

    @property
    def draws(self) -> list[str]:
        """What tells each sample from every other: its clip, its cut and its noise."""
        cuts = zip(self.ids, self.starts, self.steps, self.noise_seeds, strict=True)
        return [f"{name}@{start}/{step}#{seed}" for name, start, step, seed in cuts]

    def split(self, parts: int) -> list["ClipBatch"]:
        """The same samples in `parts` batches as equal as can be (fewer when there are fewer samples); faults in the first."""
        size, count = -(-len(self.ids) // parts), len(self.ids)
        pieces = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        return [
            ClipBatch(
                self.frames[piece],
                self.ids[piece],
                self.starts[piece],
                self.steps[piece],
                [] if piece.start else self.faults,
                self.noise_seeds[piece],
                None if self.posterior is None else (self.posterior[0][piece], self.posterior[1][piece]),
            )
            for piece in pieces
        ]

    def to(self, device: torch.device | str) -> "ClipBatch":
        """The same batch with its tensors on a device (copied in the background from pinned memory)."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "ClipBatch":
        """The same batch in page-locked memory; the data loader calls this."""
        return self._with(torch.Tensor.pin_memory)

    def _with(self, moved: Callable[[Tensor], Tensor]) -> "ClipBatch":
        pair = self.posterior
        return replace(
            self, frames=moved(self.frames), posterior=None if pair is None else (moved(pair[0]), moved(pair[1]))
        )


def train_batches(
    dataset: ClipDataset,
    order: Order,
    start_step: int,
    stop_step: int,
    rank: int = 0,
    world: int = 1,
    micro_batches: int = 1,
    num_workers: int = 0,
    prefetch: int = 2,
    pin: bool = False,
) -> Iterator[list[ClipBatch]]:
    """`step_batches` of clips."""
    return step_batches(
        dataset, stack_clips, order, start_step, stop_step, rank, world, micro_batches, num_workers, prefetch, pin
    )


def step_batches(
    dataset: Dataset[S],
    stack: Callable[[list[S]], B],
    order: Order,
    start_step: int,
    stop_step: int,
    rank: int = 0,
    world: int = 1,
    micro_batches: int = 1,
    num_workers: int = 0,
    prefetch: int = 2,
    pin: bool = False,
) -> Iterator[list[B]]:
    """For each optimizer step in [start_step, stop_step) the micro-batches of one process.

    dataset: samples by `Draw`. stack: makes a batch of some of them; with `pin` it has a method `pin_memory`.

    What comes depends on (dataset, order, step, rank, world, micro_batches) only: neither on the number of workers nor
    on where a run began, so a resume is a `start_step`. The workers live as long as the iterator; each loads up to
    `prefetch` micro-batches ahead. No random generator of this process is touched. Close the iterator (or let go of it)
    to end the workers early.

    Raises DataError when too many videos in a row cannot be read, and TrainingError when a worker process dies.
    """
    draws = (
        part for step in range(start_step, stop_step) for part in order.rank_slice(step, rank, world, micro_batches)
    )
    batches = _loaded(_Guarded(dataset), draws, functools.partial(_stack_good, stack), num_workers, prefetch, pin)
    try:
        for _ in range(start_step, stop_step):
            yield [_next(batches, num_workers) for _ in range(micro_batches)]
    finally:
        _end_workers(batches, num_workers)


def read_cuts(
    dataset: ClipDataset, groups: Sequence[Sequence[Cut]], num_workers: int = 0, prefetch: int = 2
) -> Iterator[list[Tensor | UserError]]:
    """For each group of cuts their pixels (uint8 T C H W), or in their place why a video cannot be read.

    Loaded ahead as in `train_batches`. Raises TrainingError when a worker process dies.
    """
    batches = _loaded(_Cuts(dataset), groups, list, num_workers, prefetch)
    try:
        for _ in groups:
            yield _next(batches, num_workers)
    finally:
        _end_workers(batches, num_workers)


def _loaded(
    dataset: Dataset[Any],
    groups: Iterable[Sequence[Any]],
    collate: Callable[[list[Any]], Any],
    num_workers: int,
    prefetch: int,
    pin: bool = False,
) -> Any:
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=groups,  # type: ignore[arg-type]  # torch declares lists of numbers and takes any index
        num_workers=num_workers,
        prefetch_factor=prefetch if num_workers else None,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=functools.partial(_start_worker, os.getpid()),
        generator=torch.Generator(),  # else each iterator takes a number from the process-wide one
    )
    return iter(loader)


def _end_workers(batches: Any, num_workers: int) -> None:
    if num_workers:
        batches._shutdown_workers()  # PyTorch would do it when the iterator is collected, which can take seconds


def _next(batches: Iterator[Any], num_workers: int) -> Any:
    try:
        batch = next(batches)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise passing(
            TrainingError(
                f"A data loading process died ({error}). Most often memory ran out (RAM, or /dev/shm in a container). Use "
                f"fewer workers (key: data.num_workers, now {num_workers}; 0 loads in the main process) or less prefetch "
                "(key: data.prefetch_factor)."
            )
        ) from error
    if isinstance(batch, UserError):
        raise batch
    return batch


class _Guarded(Dataset[S | UserError], Generic[S]):
    """Hands a user's error over as a value: raised in a worker it would reach the user as a traceback in a string."""

    def __init__(self, dataset: Dataset[S]) -> None:
        self.dataset = dataset

    def __getitem__(self, draw: Draw) -> S | UserError:
        try:
            return self.dataset[draw]
        except UserError as error:
            return passing(DataError(str(error))) if error.passing else DataError(str(error))


class _Cuts(Dataset[Tensor | UserError]):
    """Pixels of cuts; a video that cannot be read is a value, for the caller to count."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, cut: Cut) -> Tensor | UserError:
        try:
            return self.dataset.read(cut)
        except (UserError, OSError) as error:
            return DataError(reason_of(error, cut.clip.path))


def _stack_good(stack: Callable[[list[S]], B], samples: list[S | UserError]) -> B | UserError:
    """A batch of the samples, or the first error among them."""
    good: list[S] = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        good.append(sample)
    return stack(good)


def stack_clips(samples: Sequence[Sample]) -> ClipBatch:
    """A batch of clips of one shape."""
    return ClipBatch(
        torch.stack([sample.frames for sample in samples]),
        [sample.id for sample in samples],
        [sample.start for sample in samples],
        [sample.step for sample in samples],
        [fault for sample in samples for fault in sample.faults],
        [sample.noise_seed for sample in samples],
        _stacked([sample.posterior for sample in samples]),
    )


def _stacked(pairs: Sequence[Latents | None]) -> Latents | None:
    """One pair N L c h w of N pairs; None when there are none (all samples of a data set have them or none has)."""
    known = [pair for pair in pairs if pair is not None]
    return (torch.stack([mean for mean, _ in known]), torch.stack([logvar for _, logvar in known])) if known else None


def _start_worker(parent: int, number: int) -> None:
    """Signals are the parent's business: it saves a checkpoint and then ends the workers.

    Ctrl-C and a scheduler's SIGTERM reach every process of the job. A worker that died of them would break the parent's
    last step; so it ignores SIGINT, and SIGTERM from anyone but the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # absent on macOS, where SIGTERM keeps its default
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """End this worker when its parent asks, or is gone (PyTorch misses a parent killed while its workers start)."""
    process = multiprocessing.parent_process()
    forked = os.getppid() == parent  # else a server has started it, and lives on

    def lives() -> bool:
        return os.getppid() == parent if forked or process is None else process.is_alive()

    while lives():
        asked = signal.sigtimedwait({signal.SIGTERM}, PARENT_CHECK_SECONDS)
        if asked is not None and asked.si_pid == parent:
            break
    os._exit(0)  # any other code would be reported as a failure while the parent ends
