"""From a recipe to the task that trains it."""

import math

from tinyworld.config.schema import FantasyRecipe, Recipe, TaehvRecipe
from tinyworld.core.console import LOGGER
from tinyworld.engine.task import Task
from tinyworld.tasks.memory_advice import applied_limit, apply, checked, memory_limit
from tinyworld.tasks.memory_plan import MemoryPlan

SMALL_MODEL, SMALL_WIDTH, MOST_PER_PIXEL = 2**30, 256, 2**14
"""Bytes of a small model's weights, gradients, optimizer and processes; the width up to which a TAEHV is small; bytes for a
pixel of a frame. The plans of such models state 0.35 GiB and 3 KiB at most."""


def build_task(recipe: Recipe) -> Task:
    """The task of a recipe, with its data scanned and its models built. Raises UserError kinds."""
    if isinstance(recipe, FantasyRecipe):
        from tinyworld.tasks.fantasy.task import FantasyTask

        return FantasyTask(recipe)
    from tinyworld.tasks.taehv import TaehvTask

    assert isinstance(recipe, TaehvRecipe)
    return TaehvTask(recipe)


def check_memory(recipe: Recipe, processes: int) -> None:
    """Raise ConfigError with changes that fit when the recipe's plan exceeds the GPU here, run.gpu_memory, or on a CPU the free
    main memory. There a plan is made where `surely_fits` says nothing: it can take longer than a small run's first steps."""
    if memory_limit(recipe) is None:
        recipe = apply(recipe, {"run.device": "cpu"})  # which "auto" comes to, without a GPU
        limit = applied_limit(recipe, processes)
        if limit is None or surely_fits(recipe, limit[0]):
            return
        LOGGER.info("planning memory …")
    checked_plan(recipe, processes)


def surely_fits(recipe: Recipe, size: int) -> bool:
    """Whether a small model's run needs at most `size` bytes without a doubt: SMALL_MODEL, and MOST_PER_PIXEL for each pixel of
    each frame of the largest micro-batch, of training or validation. False for other models."""
    if isinstance(recipe, FantasyRecipe):
        small = recipe.model.size == "demo"
        frames = recipe.data.num_frames
        measured = (recipe.data.height, recipe.data.width, frames)
    else:
        assert isinstance(recipe, TaehvRecipe)
        spec, data, own = recipe.spec(), recipe.data, recipe.validation
        small = not recipe.distils and max(spec.encoder_width, *spec.decoder_widths) <= SMALL_WIDTH
        measured = (
            own.validation_height or data.height,
            own.validation_width or data.width,
            own.validation_frames or data.n_frames,
        )
    trained = [stage.batch * math.prod(bucket) for stage in recipe.stages() for bucket in stage.buckets]
    pixels = max(*trained, recipe.validation.validation_batch_size * math.prod(measured))
    return small and SMALL_MODEL + MOST_PER_PIXEL * pixels <= size


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
