"""What the commands that take a recipe share: RECIPE, a flag for each of its keys, and their help."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinyworld.cli.flags import parse_overrides
from tinyworld.config.dump import describe_flags
from tinyworld.config.load import bundled_recipes, family_of, load_recipe
from tinyworld.config.schema import RECIPE_OF_TASK, TaehvRecipe
from tinyworld.core.errors import UserError

if TYPE_CHECKING:
    from tinyworld.config.schema import Recipe


FIRST_STAGE = "fantasy_stage1"
"""What an unknown task of the family is told about by, with the tasks that there are."""
NO_PREFIX = "\0"
"""A first character of flags that no argument has: argparse then leaves all arguments to us, a flag in front included."""


class _Arguments(argparse.Action):
    """Everything after the command: the recipe, where the user names it, then flags, or a request for help."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = list(values or ())
        names_recipe = "recipe" not in namespace
        if "--help" in given or "-h" in given[: 1 + names_recipe]:
            named = namespace.recipe if not names_recipe else given[0]
            parser.epilog = describe_flags(_family(named), _values(named))
            parser.print_help()
            parser.exit()
        if names_recipe:
            namespace.recipe = _of_task(given) or (given.pop(0) if given and not given[0].startswith("-") else "")
            if not namespace.recipe:
                parser.error("RECIPE is needed first, before any flag")
        setattr(namespace, self.dest, given)


def _family(recipe: str) -> "type[Recipe]":
    """The class of recipes whose keys a request for help is about: TAEHV's where no recipe is named."""
    try:
        return family_of(recipe, {}) if not recipe.startswith("-") else TaehvRecipe
    except UserError:
        return TaehvRecipe


def _values(recipe: str) -> "Recipe | None":
    """The named recipe, whose values its help shows; None where none is named, or it is one that holds a mistake."""
    try:
        return load_recipe(recipe, complete=False) if not recipe.startswith("-") else None
    except UserError:
        return None


def _of_task(given: list[str]) -> str | None:
    """The recipe that is meant by a --task that stands in place of one, as in the guide's commands."""
    if not given or not given[0].startswith("--"):
        return None
    for argument, following in zip(given, [*given[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name == "--task":
            task = value if equals else following
            return RECIPE_OF_TASK.get(task, FIRST_STAGE if task.startswith("fantasy_world") else None)
    return None


def add_recipe_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    recipe: str | None = None,
    more: str = "",
) -> None:
    """A command over a recipe: the one called `recipe`, or without it the one that the user names. `more`: for usage."""
    named = "" if recipe else "RECIPE "
    which = f"RECIPE is a bundled name ({', '.join(bundled_recipes())}) or a YAML file."
    parser = commands.add_parser(
        name,
        help=help,
        description=f"The bundled recipe {recipe}; every key of it is a flag." if recipe else which,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prefix_chars=NO_PREFIX,
        add_help=False,
    )
    parser.usage = f"{parser.prog} {named}[--KEY VALUE …]{more} [--help]"
    parser.add_argument("overrides", nargs=argparse.REMAINDER, action=_Arguments, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, **({"recipe": recipe} if recipe else {}))


def read_recipe(options: argparse.Namespace) -> "Recipe":
    """The recipe with the flags applied; raises ConfigError with every problem at once."""
    return load_recipe(options.recipe, parse_overrides(options.overrides))
