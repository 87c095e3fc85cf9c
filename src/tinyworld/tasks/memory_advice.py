"""Whether a plan fits the GPU that it is meant for, and what is said when it does not."""

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from tinyworld.config.schema import Recipe
from tinyworld.config.size import parse_size
from tinyworld.core import host_memory
from tinyworld.core.errors import ConfigError
from tinyworld.engine.accelerate_setup import training_device
from tinyworld.engine.memory import gib
from tinyworld.tasks.memory_plan import MemoryPlan, on_cpu

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
HOST_SHARE = 0.9
"""Of the free main memory: processes that read ahead, and other programs, take some too."""
Changes = dict[str, Any]
"""Dotted key → its new value."""


@dataclass(frozen=True)
class Proposal:
    """changes that fit together, what the plan then needs (bytes), and what they cost in words."""

    changes: Changes
    total: int
    cost: str

    @property
    def flags(self) -> str:
        """As typed after the command."""
        return " ".join(f"--{key.rpartition('.')[2]} {_typed(value)}" for key, value in self.changes.items())

    def __str__(self) -> str:
        return f"  {gib(self.total):>10}  {self.flags}" + (f"  ({self.cost})" if self.cost else "")


def memory_limit(recipe: Recipe) -> tuple[int, str] | None:
    """Bytes that a process may take and where they come from: run.gpu_memory, else the GPU here; None without either."""
    if recipe.run.gpu_memory is not None:
        return parse_size(recipe.run.gpu_memory), f"gpu_memory={recipe.run.gpu_memory}"
    device = training_device(recipe)
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory, torch.cuda.get_device_name(device)


def host_limit(processes: int) -> tuple[int, str] | None:
    """Bytes that each of the processes on this machine may take of what is free of main memory, and what to call it; None where
    the system does not say."""
    free, sharing = host_memory.available(), int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if free is None:
        return None
    what = "this machine's free main memory" + (f", shared by {sharing} processes," if sharing > 1 else "")
    return int(free * HOST_SHARE) // sharing, what


def applied_limit(recipe: Recipe, processes: int) -> tuple[int, str] | None:
    """`memory_limit`; for a run that is meant for a CPU, `host_limit`."""
    return host_limit(processes) if on_cpu(recipe) else memory_limit(recipe)


def checked(
    recipe: AnyRecipe,
    processes: int,
    plan_memory: Callable[[AnyRecipe, int], MemoryPlan],
    advice: Callable[[AnyRecipe, int, int], str],
) -> MemoryPlan:
    """The recipe's plan, made by its family. Raises ConfigError with the family's advice when it exceeds `applied_limit`."""
    plan, limit = plan_memory(recipe, processes), applied_limit(recipe, processes)
    if limit is not None and plan.total > limit[0]:
        size, source = limit
        raise ConfigError(
            f"the plan needs {gib(plan.total)} per process, and {_holding(recipe, source)} {gib(size)}. Most is needed for: "
            f"{plan.dearest} ({plan.clips_at(plan.dearest)}).{advice(recipe, processes, size)}"
        )
    return plan


def _holding(recipe: Recipe, source: str) -> str:
    return f"{source} leaves it" if on_cpu(recipe) else f"{source} holds"


def advised(found: Sequence[Proposal], hopeless: str) -> str:
    """The proposals, or `hopeless` where there are none, as text that goes on after a sentence."""
    return " What fits, by the same estimate:\n" + "\n".join(map(str, found)) if found else f" {hopeless}"


def apply(recipe: AnyRecipe, changes: Changes) -> AnyRecipe:
    """The recipe with other values, given as the schema holds them; nothing is checked."""
    sections: dict[str, Any] = {}
    for key, value in changes.items():
        section, _, leaf = key.partition(".")
        sections[section] = sections.get(section, getattr(recipe, section)).model_copy(update={leaf: value})
    return recipe.model_copy(update=sections)


def _typed(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, str):
        return value
    plain = [_plain(part) for part in value] if isinstance(value, tuple) else value
    return shlex.quote(json.dumps(plain))


def _plain(part: Any) -> Any:
    return part.model_dump(mode="json", exclude_defaults=True) if hasattr(part, "model_dump") else part
