"""What a recipe can run with but is rarely meant. No torch."""

from tinyworld.config import fantasy_rules, taehv_warnings
from tinyworld.config.schema import FantasyRecipe, Recipe, TaehvRecipe


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
    return [
        f"{key}={interval} is beyond max_train_steps={steps}: nothing is {what} before the end of the run."
        for key, (interval, what) in every.items()
        if interval > steps
    ]
