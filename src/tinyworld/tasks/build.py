"""From a recipe to the task that trains it."""

from tinyworld.config.schema import FantasyRecipe, Recipe, TaehvRecipe
from tinyworld.engine.task import Task


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
    from tinyworld.tasks.memory_advice import memory_limit

    if memory_limit(recipe) is None:
        return
    if isinstance(recipe, FantasyRecipe):
        from tinyworld.tasks.fantasy import fit_memory as fantasy

        fantasy.check_memory(recipe, processes)
    elif isinstance(recipe, TaehvRecipe):
        from tinyworld.tasks.taehv import fit_memory as taehv

        taehv.check_memory(recipe, processes)
