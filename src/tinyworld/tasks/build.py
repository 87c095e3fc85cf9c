"""From a recipe to the task that trains it."""

from tinyworld.config.schema import FantasyRecipe, Recipe, TaehvRecipe
from tinyworld.engine.task import Task
from tinyworld.tasks.memory_advice import checked, memory_limit
from tinyworld.tasks.memory_plan import MemoryPlan


def build_task(recipe: Recipe) -> Task:
    """The task of a recipe, with its data scanned and its models built. Raises UserError kinds."""
    if isinstance(recipe, FantasyRecipe):
        from tinyworld.tasks.fantasy.task import FantasyTask

        return FantasyTask(recipe)
    from tinyworld.tasks.taehv import TaehvTask

    assert isinstance(recipe, TaehvRecipe)
    return TaehvTask(recipe)


def check_memory(recipe: Recipe, processes: int) -> None:
    """Raise ConfigError with changes that fit when the recipe's plan exceeds the GPU here, or run.gpu_memory."""
    if memory_limit(recipe) is not None:
        checked_plan(recipe, processes)


def checked_plan(recipe: Recipe, processes: int) -> MemoryPlan:
    """The recipe's plan. Raises as `check_memory`."""
    if isinstance(recipe, FantasyRecipe):
        from tinyworld.tasks.fantasy import memory_proposals as fantasy
        from tinyworld.tasks.fantasy import plan_memory as fantasy_plan

        return checked(recipe, processes, fantasy_plan.plan_memory, fantasy.advice)
    from tinyworld.tasks.taehv import memory_proposals as taehv
    from tinyworld.tasks.taehv import plan_memory as taehv_plan

    assert isinstance(recipe, TaehvRecipe)
    return checked(recipe, processes, taehv_plan.plan_memory, taehv.advice)
