"""A recipe as YAML, as scalars for trackers, and its keys as a help text."""

import json
import textwrap
from typing import Any

from pydantic import BaseModel

from tinyworld.config.draft import NOT_GIVEN
from tinyworld.config.keys import Key, keys, sections
from tinyworld.config.schema import Recipe
from tinyworld.config.yaml_text import dump_yaml

WIDTH = 100
INDENT = 34
HOW = """Every key of a recipe is also a flag: --key VALUE, --key=VALUE, or --section.key VALUE. A switch is turned on
by --key alone and off by --key false. Lists are written 1,2 or [1,2]; null unsets a key. A key is given once."""


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included. Reading it back gives an equal recipe."""
    return dump_yaml(recipe.model_dump(mode="json"))


def flatten(recipe: Recipe) -> dict[str, int | float | str | bool]:
    """Dotted key → scalar or string, which every tracker takes; lists as JSON text, unset keys as "null"."""
    flat: dict[str, int | float | str | bool] = {}
    values = recipe.model_dump(mode="json")
    for key in keys(type(recipe)):
        value = values[key.section][key.leaf] if key.section else values[key.leaf]
        flat[key.dotted] = value if isinstance(value, int | float | str) else json.dumps(value)
    return flat


def describe_flags(recipe: type[Recipe], given: Recipe | None = None) -> str:
    """Every key as a flag with its meaning, valid values and default, by section, in 100 columns. given: a recipe whose own
    values are shown in place of the defaults."""
    lines = textwrap.wrap(HOW, WIDTH)
    groups = {"": "the recipe itself", **{name: section.__doc__ or "" for name, section in sections(recipe).items()}}
    for section, meaning in groups.items():
        lines += ["", f"{section or 'recipe'}: {meaning}"]
        for key in keys(recipe):
            if key.section == section:
                lines += _flag(key, given)
    return "\n".join(lines) + "\n"


def _flag(key: Key, given: Recipe | None) -> list[str]:
    left = f"  --{key.leaf} {key.metavar}"
    text = f"{key.field.description} {_default(key, given)}"
    right = textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False)
    if len(left) < INDENT:
        return [left.ljust(INDENT) + right[0], *(" " * INDENT + line for line in right[1:])]
    return [left, *(" " * INDENT + line for line in right)]


def _own(key: Key, given: Recipe) -> Any:
    """What a recipe sets a key to; None where it leaves it as it is."""
    value = getattr(getattr(given, key.section) if key.section else given, key.leaf)
    return None if value in (key.field.default, NOT_GIVEN) else value


def _shown(key: Key, value: Any) -> str:
    if key.is_list:
        return json.dumps([part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in value])
    return f"{value:g}" if isinstance(value, float) else str(value) if key.is_text else json.dumps(value)


def _default(key: Key, given: Recipe | None) -> str:
    limits = key.expects.partition(", ")[2] if not key.is_list and "expects" not in key.extra else ""
    limits = limits if any(word in limits for word in ("at least", "at most", "above", "below")) else ""
    if given is not None and (own := _own(key, given)) is not None:
        default = f"{given.name}: {_shown(key, own)}"
    elif "default" in key.extra:
        default = f"default {key.extra['default']}"
    elif key.field.is_required():
        default = "required"
    elif key.field.default is None:
        default = "default unset"
    else:
        default = f"default {_shown(key, key.field.default)}"
    return f"[{'; '.join(filter(None, [limits, default]))}]"
