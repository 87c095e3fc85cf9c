"""Rules that join several keys of a recipe: every problem at once, each with the nearest valid values. No torch."""

from tinyworld.config import fantasy_rules, taehv_rules
from tinyworld.config.schema import FantasyRecipe, Recipe, TaehvRecipe
from tinyworld.config.size import parse_size
from tinyworld.core.frames import nearest_counts


def check_rules(recipe: Recipe) -> list[str]:
    """What keeps the recipe from running, each as one sentence or two; empty when it can run.

    Asks only the recipe: folders, files and devices are looked at when the run is prepared.
    """
    shared = [*_schedule(recipe), *_batch(recipe)]
    if isinstance(recipe, FantasyRecipe):
        return [*fantasy_rules.problems(recipe), *shared]
    assert isinstance(recipe, TaehvRecipe)
    return [*taehv_rules.problems(recipe), *shared]


def _batch(recipe: Recipe) -> list[str]:
    """What holds for any number of processes; `config.batch` asks the rest where that number is known."""
    memory = recipe.run.gpu_memory
    problems = []
    if memory is not None and parse_size(memory) == 0:
        problems.append(
            f"gpu_memory={memory} holds nothing. Give what the GPU has, such as 40GiB (key: run.gpu_memory)."
        )
    total, passes = recipe.parallel.global_batch_size, recipe.training.gradient_accumulation_steps
    if total is None:
        return problems
    for stage in recipe.stages():
        key = stage.batch_key
        if total % stage.batch:
            nearest = " or ".join(map(str, nearest_counts(total, stage.batch, 0)))
            problems.append(
                f"global_batch_size={total} is no multiple of {key}={stage.batch}. Use {nearest} (key: "
                "parallel.global_batch_size), or another train_batch_size."
            )
        elif total % (stage.batch * passes):
            problems.append(
                f"global_batch_size={total} and gradient_accumulation_steps={passes} contradict each other: with "
                f"{key}={stage.batch} no number of processes joins them. Leave gradient_accumulation_steps at 1: it then "
                "follows from global_batch_size."
            )
    return list(dict.fromkeys(problems))


def _schedule(recipe: Recipe) -> list[str]:
    warm_up, steps = recipe.optimizer.lr_warmup_steps, recipe.training.max_train_steps
    if warm_up <= steps:
        return []
    return [
        f"lr_warmup_steps={warm_up} is longer than the run: max_train_steps={steps}. Use at most {steps}, usually "
        f"{max(1, steps // 20)} (key: optimizer.lr_warmup_steps)."
    ]
