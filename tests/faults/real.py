"""The real task of a recipe, as a function that can be sent to another process."""

from functools import partial

from tests.faults.processes import MakeTask
from tinyworld.config.schema import Recipe
from tinyworld.engine.task import Task
from tinyworld.tasks.build import build_task


def make_task(recipe: Recipe) -> MakeTask:
    return partial(_made, recipe)


def _made(recipe: Recipe, rank: int) -> Task:
    return build_task(recipe)
