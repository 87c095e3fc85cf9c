"""Recipes that use a cache of conditions."""

from pathlib import Path
from typing import Any

from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe

SMALL = {"encoder_width": 8, "decoder_widths": [16, 8, 8, 8]}
CUTS, HELD_OUT, TRAINED = 2, 1, 3
CLIPS = CUTS * TRAINED + HELD_OUT


def recipe_of(flags: dict[str, Any], name: str = "fantasy_demo_base", **changes: Any) -> FantasyRecipe:
    recipe = load_recipe(name, {**flags, **changes})
    assert isinstance(recipe, FantasyRecipe)
    return recipe


def entries(recipe: FantasyRecipe, kind: str) -> list[Path]:
    return sorted((Path(recipe.data.condition_cache or "") / kind).rglob("*.safetensors"))


def published(flags: dict[str, Any], **changes: Any) -> FantasyRecipe:
    return recipe_of(flags, "fantasy_stage1", backbone_path="unused", **changes)
