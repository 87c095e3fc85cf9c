"""Clips per optimizer step: train_batch_size x gradient_accumulation_steps x processes. No torch.

With `parallel.global_batch_size` the product is fixed and the accumulation follows, so that a run keeps its step when
it moves to another number of processes.
"""

import os

from tinyworld.config.schema import Recipe
from tinyworld.core.errors import ConfigError
from tinyworld.core.frames import divisors, nearest_counts

MOST_PROCESSES = 8192
"""No run has more; what is larger is a slip of the keyboard."""


def processes_here() -> int:
    """Processes of this run: WORLD_SIZE, as torchrun sets it, else 1. Raises ConfigError when that is no such number."""
    return processes_of(os.environ.get("WORLD_SIZE", "1"), "the environment variable WORLD_SIZE")


def processes_of(text: str, key: str) -> int:
    """A number of processes that was given as text under the name `key`. Raises ConfigError."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PROCESSES:
        return int(text)
    raise ConfigError(f"{key} is {text!r}: it must be a whole number of processes, from 1 to {MOST_PROCESSES}.")


def accumulation(
    per_process: int,
    processes: int,
    configured: int,
    global_batch: int | None,
    key: str = "training.train_batch_size",
) -> int:
    """Forward passes per optimizer step of each process.

    per_process: clips in one of them, which `key` sets. configured: gradient_accumulation_steps. With `global_batch`,
    configured may be 1, its default, or what follows anyway. Raises ConfigError when the clips do not divide or the
    two keys contradict each other.
    """
    if global_batch is None:
        return configured
    at_once = per_process * processes
    if global_batch % at_once:
        raise ConfigError(_indivisible(per_process, processes, global_batch, key))
    follows = global_batch // at_once
    if configured not in (1, follows):
        raise ConfigError(
            f"global_batch_size={global_batch} and gradient_accumulation_steps={configured} contradict each other: "
            f"{configured} passes of {per_process} clips ({key}) in {_count(processes, 'process', 'es')} make "
            f"{at_once * configured} clips per step. Keep one of them: gradient_accumulation_steps=1 leaves it to "
            f"global_batch_size (here {follows} would follow), or parallel.global_batch_size=null (keys: "
            "parallel.global_batch_size, training.gradient_accumulation_steps)."
        )
    return follows


def accumulations(recipe: Recipe, processes: int) -> list[int]:
    """`accumulation` of each of the recipe's stages. Raises ConfigError with the problems of all of them."""
    found: list[int] = []
    problems: list[str] = []
    configured, total = recipe.training.gradient_accumulation_steps, recipe.parallel.global_batch_size
    for stage in recipe.stages():
        try:
            found.append(accumulation(stage.batch, processes, configured, total, stage.batch_key))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return found


def clips_per_step(recipe: Recipe, processes: int) -> list[int]:
    """Clips of an optimizer step over all processes, stage by stage. Raises as `accumulations`."""
    passes = accumulations(recipe, processes)
    return [stage.batch * count * processes for stage, count in zip(recipe.stages(), passes, strict=True)]


def _indivisible(per_process: int, processes: int, global_batch: int, key: str) -> str:
    at_once = per_process * processes
    totals = " or ".join(map(str, nearest_counts(global_batch, at_once, 0)))
    leaf = key.removeprefix("training.")
    ways = [f"global_batch_size={totals} (key: parallel.global_batch_size)"]
    if global_batch % processes == 0:
        batches = _around(per_process, divisors(global_batch // processes))
        ways.append(f"{leaf}={batches} with these processes (key: {key})")
    if global_batch % per_process == 0:
        counts = _around(processes, divisors(global_batch // per_process))
        ways.append(f"{counts} processes with this {leaf}")
    return (
        f"global_batch_size={global_batch} is no multiple of the {at_once} clips that go through at once: "
        f"{leaf}={per_process} x {_count(processes, 'process', 'es')}. Use {'; or '.join(ways)}."
    )


def _around(value: int, valid: tuple[int, ...]) -> str:
    """The valid values next to one that is not."""
    nearest = [*[size for size in valid if size < value][-1:], *[size for size in valid if size > value][:1]]
    return " or ".join(map(str, nearest))


def _count(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"
