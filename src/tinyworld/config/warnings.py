"""What a recipe can run with but is rarely meant. No torch."""

from tinyworld.config import fantasy_rules, taehv_warnings
from tinyworld.config.schema import FantasyRecipe, Recipe, TaehvRecipe

LEAST_PARTS = 3
"""A warm-up that is longer than one in so many steps is told about."""


def warnings(recipe: Recipe) -> list[str]:
    """What can run but is rarely meant. Expects a recipe without problems."""
    if isinstance(recipe, FantasyRecipe):
        return [*fantasy_rules.warnings(recipe), *_step_warnings(recipe)]
    assert isinstance(recipe, TaehvRecipe)
    return [*taehv_warnings.warnings(recipe), *_step_warnings(recipe)]


def _step_warnings(recipe: Recipe) -> list[str]:
    steps = recipe.training.max_train_steps
    every = {
        "validation.validation_steps": (recipe.validation.validation_steps, "validated"),
        "checkpoint.checkpointing_steps": (recipe.checkpoint.checkpointing_steps, "saved"),
    }
    found = [
        f"{key}={interval} is beyond max_train_steps={steps}: nothing is {what} before the end of the run."
        for key, (interval, what) in every.items()
        if interval > steps
    ]
    warm_up = recipe.optimizer.lr_warmup_steps
    if warm_up * LEAST_PARTS > steps:
        found.append(
            f"optimizer.lr_warmup_steps={warm_up} of max_train_steps={steps} are warm-up: the learning rate is high for a moment "
            f"only. For a short trial use about {max(steps // 20, 1)}, and perhaps a lower optimizer.learning_rate."
        )
    return found
