"""`tinyworld train RECIPE`."""

import argparse
from typing import TYPE_CHECKING

from tinyworld.cli.flags import parse_overrides
from tinyworld.config.dump import describe_flags, to_yaml
from tinyworld.config.load import bundled_recipes, load_recipe
from tinyworld.config.rules import warnings
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import Interrupted

if TYPE_CHECKING:
    from tinyworld.config.schema import TaehvRecipe
    from tinyworld.engine.loop import Outcome


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train as a recipe says; every key is also a flag",
        usage="tinyworld train RECIPE [--KEY VALUE …] [--print_config]",
        description=f"RECIPE is a bundled name ({', '.join(bundled_recipes())}) or a YAML file.",
        epilog=describe_flags(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_recipe_arguments(parser)
    parser.set_defaults(run=run)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE and everything after it, which becomes overrides of the recipe's keys."""
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="--KEY VALUE")


def read_recipe(options: argparse.Namespace) -> "TaehvRecipe":
    """The recipe with the flags applied; raises ConfigError with every problem at once."""
    return load_recipe(options.recipe, parse_overrides(options.overrides))


def run(options: argparse.Namespace) -> int:
    wants_config = "--print_config" in options.overrides
    options.overrides = [flag for flag in options.overrides if flag != "--print_config"]
    recipe = read_recipe(options)
    if wants_config:
        print(to_yaml(recipe), end="")
        return 0
    for warning in warnings(recipe):
        LOGGER.warning("warning: %s", warning)
    train(recipe)
    return 0


def train(recipe: "TaehvRecipe") -> "Outcome":
    """Train and write the report; shared by `train` and `demo`."""
    from tinyworld.engine.loop import run_training
    from tinyworld.report import build_report
    from tinyworld.tasks.taehv import TaehvTask

    try:
        outcome = run_training(TaehvTask(recipe), recipe)
    except Interrupted as end:
        LOGGER.info("report: %s", build_report(end.folder))
        raise
    LOGGER.info("report: %s", build_report(outcome.folder))
    return outcome
