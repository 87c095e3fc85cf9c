"""Processes: who am I, and decisions that all ranks take together. Everything works with one process.

No rank decides alone: whatever makes one rank stop, skip or save goes through `agree`, so that no other rank is left
waiting in a collective.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from tinyworld.core.errors import UserError, elsewhere, passing

T = TypeVar("T")


def active() -> bool:
    """Whether a process group of more than one rank is running."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if active() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return dist.get_world_size() if active() else int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    return rank() == 0


def _device() -> torch.device:
    """Collectives run where the backend's tensors must live."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def agree(flag: bool) -> bool:
    """True on every rank when it is true on any. Every rank must call it, in the same order."""
    if not active():
        return bool(flag)
    vote = torch.tensor([1 if flag else 0], device=_device())
    dist.all_reduce(vote, op=dist.ReduceOp.MAX)
    return bool(vote.item())


def total(values: Sequence[float]) -> list[float]:
    """The sum over ranks of each value, in one collective; all ranks must pass as many. Whole numbers stay exact below 2^53."""
    if not active():
        return [float(value) for value in values]
    packed = torch.tensor(list(values), dtype=torch.float64, device=_device())
    dist.all_reduce(packed)
    return packed.tolist()


def mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """The mean of each value over ranks; all ranks must pass the same keys."""
    if not active() or not values:
        return dict(values)
    names = sorted(values)
    packed = torch.tensor([values[name] for name in names], dtype=torch.float64, device=_device())
    dist.all_reduce(packed)
    return dict(zip(names, (packed / world_size()).tolist(), strict=True))


def gather(value: T) -> list[T]:
    """`value` of every rank, on every rank, in rank order. Any picklable value from our own processes."""
    if not active():
        return [value]
    collected: list[T | None] = [None] * world_size()
    dist.all_gather_object(collected, value)
    return collected  # type: ignore[return-value]


def from_main(value: T) -> T:
    """Rank 0's value on every rank."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=_device())
    return box[0]


def raise_together(error: Exception | None) -> None:
    """Raise on every rank when one has an error: that one its own, the others the same, marked as told elsewhere."""
    if not active():
        if error is not None:
            raise error
        return
    errors = gather(_for_others(error))
    first = next((number for number, other in enumerate(errors) if other is not None), None)
    if first is None:
        return
    if first == rank():
        assert error is not None
        raise error
    raise elsewhere(errors[first])


def _for_others(error: Exception | None) -> Exception | None:
    """The error as other processes get it: without its traceback and what that holds."""
    if isinstance(error, UserError):
        same = type(error)(str(error))
        return passing(same) if error.passing else same
    return None if error is None else RuntimeError(f"rank {rank()}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def alike() -> Iterator[None]:
    """Around what every rank decides from the same numbers: an error is raised by all of them and told by one."""
    try:
        yield
    except Exception as error:
        if not is_main():
            elsewhere(error)
        raise


def on_main(work: Callable[[], T]) -> T:
    """Do something on the main rank only; every rank gets its result, or raises its error instead of waiting for it."""
    outcome: tuple[T | None, Exception | None] = (None, None)
    if is_main():
        try:
            outcome = (work(), None)
        except Exception as error:
            if not active():
                raise
            outcome = (None, error)
    result, failure = from_main(outcome)
    if failure is not None:
        raise failure if is_main() else elsewhere(failure)
    return result  # type: ignore[return-value]


def together(work: Callable[[], T]) -> T:
    """Do something on every rank; when it fails on any of them, every rank raises and none goes on alone."""
    result: T | None = None
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:
        if not active():
            raise
        failure = error
    raise_together(failure)
    return result  # type: ignore[return-value]
