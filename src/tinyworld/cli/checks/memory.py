"""What `tinyworld check` says of a memory plan, for every family alike."""

from typing import TYPE_CHECKING

from tinyworld.config.schema import Recipe

if TYPE_CHECKING:
    from tinyworld.tasks.memory_plan import MemoryPlan


def print_plan(recipe: Recipe, plan: "MemoryPlan") -> None:
    """The plan, and what it leaves of the GPU's memory."""
    from tinyworld.engine.memory import gib
    from tinyworld.tasks.memory_advice import memory_limit

    for line in plan.lines():
        print(line)
    limit = memory_limit(recipe)
    if limit is None:
        print("no GPU here to compare with: --gpu_memory 40GiB says whether the plan fits one of that size")
        return
    size, source = limit
    fits = "what is counted fits" if plan.not_counted else "it fits"
    print(f"{fits}: {source} leaves {gib(size - plan.total)} ({(size - plan.total) / size:.0%})")
