"""What `tinyworld check` says of a memory plan, for every family alike."""

from tinyworld.config.schema import Recipe


def print_plan(recipe: Recipe, processes: int) -> None:
    """The plan, and what it leaves of the GPU's memory. Raises ConfigError when it exceeds that."""
    from tinyworld.engine.memory import gib
    from tinyworld.tasks.build import checked_plan
    from tinyworld.tasks.memory_advice import memory_limit

    plan = checked_plan(recipe, processes)
    for line in plan.lines():
        print(line)
    limit = memory_limit(recipe)
    if limit is None:
        print("no GPU here to compare with: --gpu_memory 40GiB says whether the plan fits one of that size")
        return
    size, source = limit
    fits = "what is counted fits" if plan.not_counted else "it fits"
    print(f"{fits}: {source} leaves {gib(size - plan.total)} ({(size - plan.total) / size:.0%})")
