"""What `tinyworld check` says of a memory plan, for every family alike."""

from tinyworld.config.schema import Recipe


def print_plan(recipe: Recipe, processes: int) -> None:
    """The plan, and what it leaves of the memory there is. Raises ConfigError when it exceeds that."""
    from tinyworld.engine.memory import gib
    from tinyworld.tasks.build import checked_plan
    from tinyworld.tasks.memory_advice import applied_limit, host_limit

    plan = checked_plan(recipe, processes)
    for line in plan.lines():
        print(line)
    limit = applied_limit(recipe, processes)
    if limit is None:
        print("no GPU here to compare with: --gpu_memory 40GiB says whether the plan fits one of that size")
        here, need = host_limit(processes), plan.total - plan.allowance
        if here is not None and need > here[0]:
            print(
                f"warning: this machine's CPU cannot train it: {gib(need)} are needed, and {here[1]} leaves it "
                f"{gib(here[0])}; --device cpu lists what fits"
            )
        return
    size, source = limit
    fits = "what is counted fits" if plan.not_counted else "it fits"
    print(f"{fits}: {source} leaves {gib(size - plan.total)} ({(size - plan.total) / size:.0%})")
