"""What a checkpoint of a run holds, and a run put back to one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyworld.core import dist, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError
from tinyworld.engine import checkpoint
from tinyworld.engine.auxiliaries import Auxiliaries
from tinyworld.engine.parallel import Snapshot, Strategy
from tinyworld.engine.state import TrainingState
from tinyworld.engine.task import Task
from tinyworld.engine.writer import Contents


def contents(task: Task, strategy: Strategy, auxiliaries: Auxiliaries, state: TrainingState) -> Contents:
    """This rank's part, copied: training may go on while it is written. Every rank must call it."""
    snapshot = strategy.snapshot()
    weights: dict[str, Callable[[Path], None]] = {}
    states: dict[str, Any] = {}
    if snapshot is not None:
        weights["model.safetensors"] = partial(task.write_weights, snapshot.weights)
        if snapshot.average is not None:
            weights["ema.safetensors"] = partial(task.write_weights, snapshot.average)
        optimizer = {"updates": snapshot.updates, "moments": snapshot.moments}
        trainer = {"state": state.to_dict(), "averaged_updates": snapshot.averaged_updates}
        states = {"optimizer": optimizer, "trainer": trainer, **copied(auxiliaries.states())}
    return Contents(weights, states, {"rng": rng.capture(), **auxiliaries.rank_states()})


def copied(value: Any) -> Any:
    """The same plain value with every tensor copied to main memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


def restore(path: Path, task: Task, strategy: Strategy, auxiliaries: Auxiliaries, average: bool) -> TrainingState:
    """Put everything back to a checkpoint that was verified; returns the run's state then. Every rank must call it.

    Raises CheckpointError when it holds no averaged weights and `average` are asked for.
    """
    trainer, optimizer = checkpoint.read_state(path, "trainer"), checkpoint.read_state(path, "optimizer")
    if trainer is None or optimizer is None:
        raise CheckpointError(
            f"{path} has no state of an optimizer: another version of tinyworld wrote it. Start a new run from its weights "
            f"with --pretrained_model_path {path / 'model.safetensors'}."
        )
    averaged = path / "ema.safetensors"
    if average and not averaged.exists():
        raise CheckpointError(
            f"{path} holds no averaged weights, but ema_decay is not 0: the run it comes from had none. Use --ema_decay 0 to "
            "go on with it."
        )
    strategy.load(
        Snapshot(
            task.read_weights(path / "model.safetensors"),
            task.read_weights(averaged) if average else None,
            optimizer["moments"],
            optimizer["updates"],
            trainer["averaged_updates"],
        )
    )
    auxiliaries.restore(path)
    _restore_generators(path)
    return TrainingState.from_dict(trainer["state"])


def _restore_generators(path: Path) -> None:
    """Each rank's own random state; of a run with another number of ranks, one that follows from its first."""
    count = checkpoint.rank_count(path, "rng")
    if count == dist.world_size():
        rng.restore(checkpoint.read_rank_state(path, "rng", dist.rank()))
        return
    LOGGER.warning(
        "%s comes from %d processes, now there are %d: the global batches stay the same, numbers may differ in their last "
        "digits",
        path.name,
        count,
        dist.world_size(),
    )
    rng.restore(checkpoint.read_rank_state(path, "rng", 0))
    rng.seed_all(rng.derive_seed("resized", int(torch.randint(2**62, ())), dist.rank(), dist.world_size()))
