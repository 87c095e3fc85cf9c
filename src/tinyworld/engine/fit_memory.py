"""The dearest micro-batch, run once before step 1: what a step really takes, before a night is spent on finding out."""

import gc
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinyworld.core import dist, rng
from tinyworld.core.errors import TrainingError
from tinyworld.engine.memory import gib
from tinyworld.engine.saving import copied
from tinyworld.engine.task import Auxiliary

SEED = rng.derive_seed("fit_memory")


@dataclass(frozen=True)
class Measured:
    """The most that was in use. size: bytes, of all tensors on the GPU; on the CPU how far the resident memory of the
    process grew, which is only an indication: the C library gives memory back late or never."""

    size: int
    on_gpu: bool

    def __str__(self) -> str:
        what = "in tensors on the GPU" if self.on_gpu else "more resident memory (an indication: no GPU here)"
        return f"{gib(self.size)} {what}"


def measure(
    run: Callable[[], object],
    device: torch.device,
    trained: nn.Module,
    auxiliaries: Mapping[str, Auxiliary],
    advice: Callable[[], str],
) -> Measured:
    """Run forward, backward and the auxiliaries' update of the dearest micro-batch once, and forget it again.

    run: makes the losses of that micro-batch and takes them backwards into `trained`'s gradients. Afterwards gradients are
    None and every generator, auxiliary and BatchNorm statistic is as before. Raises TrainingError on all ranks when the
    memory of one does not suffice; its message ends with `advice()`, what would fit.

    Auxiliaries communicate: all ranks call this together. AdamW's moments do not exist before step 1 and come on top.
    """
    before = {name: (copied(member.state_dict()), member.rank_state()) for name, member in auxiliaries.items()}
    buffers = {name: buffer.clone() for name, buffer in trained.named_buffers()}
    started = _start(device)
    with rng.isolated(SEED):
        try:
            shortage = dist.agree(dist.together(lambda: _runs_short(run)))  # before anything communicates
            shortage = shortage or any(_runs_short(member.learn) for member in auxiliaries.values())
        finally:
            _forget(trained, buffers, auxiliaries, before)
    found = _end(device, started)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if dist.agree(shortage):
        with dist.alike():
            raise TrainingError(
                f"the largest micro-batch does not fit the memory of {_name(device)}: it ran out before step 1, at "
                f"{found}.{advice()}"
            )
    return found


def _runs_short(work: Callable[[], object]) -> bool:
    """Whether memory does not suffice. What the failed pass holds is let go of on return."""
    try:
        work()
    except (torch.OutOfMemoryError, MemoryError):
        return True
    return False


def _forget(
    trained: nn.Module,
    buffers: dict[str, torch.Tensor],
    auxiliaries: Mapping[str, Auxiliary],
    before: Mapping[str, tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    trained.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in trained.named_buffers():
            buffer.copy_(buffers[name])
    for name, member in auxiliaries.items():
        member.forget()
        state, of_rank = before[name]
        member.load_state_dict(state)
        member.load_rank_state(of_rank)
    gc.collect()


def _start(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    gc.collect()
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the peak starts again at what is resident now
    return _resident_peak()


def _end(device: torch.device, started: int) -> Measured:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return Measured(torch.cuda.max_memory_allocated(device), on_gpu=True)
    return Measured(max(_resident_peak() - started, 0), on_gpu=False)


def _resident_peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
