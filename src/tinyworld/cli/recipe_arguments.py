"""What the commands that take a recipe share: RECIPE, a flag for each of its keys, and their help."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinyworld.cli.flags import parse_overrides
from tinyworld.config.dump import describe_flags
from tinyworld.config.load import bundled_recipes, load_recipe

if TYPE_CHECKING:
    from tinyworld.config.schema import TaehvRecipe


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
            parser.print_help()
            parser.exit()
        if names_recipe:
            if not given or given[0].startswith("-"):
                parser.error("RECIPE is needed first, before any flag")
            namespace.recipe = given.pop(0)
        setattr(namespace, self.dest, given)


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
        epilog=describe_flags(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prefix_chars=NO_PREFIX,
        add_help=False,
    )
    parser.usage = f"{parser.prog} {named}[--KEY VALUE …]{more} [--help]"
    parser.add_argument("overrides", nargs=argparse.REMAINDER, action=_Arguments, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, **({"recipe": recipe} if recipe else {}))


def read_recipe(options: argparse.Namespace) -> "TaehvRecipe":
    """The recipe with the flags applied; raises ConfigError with every problem at once."""
    return load_recipe(options.recipe, parse_overrides(options.overrides))
