"""The real task, as a function that can be sent to another process."""

from functools import partial

from tests.faults.processes import MakeTask
from tinyworld.config.schema import TaehvRecipe
from tinyworld.tasks.taehv import TaehvTask


def make_task(recipe: TaehvRecipe) -> MakeTask:
    return partial(_made, recipe)


def _made(recipe: TaehvRecipe, rank: int) -> TaehvTask:
    return TaehvTask(recipe)
