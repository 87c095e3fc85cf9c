"""`tinyworld check RECIPE`: everything that can be known before step 1. Exit code 2 on any problem."""

import argparse
from collections.abc import Sequence

from tinyworld.cli.flags import parse_overrides
from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe
from tinyworld.config.batch import accumulations, clips_per_step, processes_here, processes_of
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe, Recipe, TaehvRecipe
from tinyworld.config.warnings import warnings
from tinyworld.core.errors import ConfigError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add_recipe_parser(
        commands,
        "check",
        run,
        help="rules, data, frame plan and memory of a recipe, without training",
        more=" [--processes N] [--parameters]",
    )


def run(options: argparse.Namespace) -> int:
    options.overrides, processes = _processes(options.overrides)
    if "--parameters" in options.overrides:
        return _parameters(options)
    recipe = read_recipe(options)
    totals = clips_per_step(recipe, processes)
    print(f"recipe {recipe.name}: all rules hold")
    for warning in warnings(recipe):
        print(f"warning: {warning}")
    _batches(recipe, processes, totals)
    if isinstance(recipe, FantasyRecipe):
        from tinyworld.cli.checks import fantasy

        fantasy.check(recipe, processes)
    elif isinstance(recipe, TaehvRecipe):
        from tinyworld.cli.checks import taehv

        taehv.check(recipe, processes)
    return 0


def _parameters(options: argparse.Namespace) -> int:
    """`--parameters`: what would be trained and what stays frozen. Asks for no data and no weights."""
    options.overrides = [flag for flag in options.overrides if flag != "--parameters"]
    recipe = load_recipe(options.recipe, parse_overrides(options.overrides), complete=False)
    if not isinstance(recipe, FantasyRecipe):
        raise ConfigError(
            f"--parameters is about FantasyWorld's parts; `tinyworld check {options.recipe}` prints a TAEHV's."
        )
    from tinyworld.cli.checks import fantasy

    fantasy.print_parameters(recipe)
    return 0


def _processes(arguments: Sequence[str]) -> tuple[list[str], int]:
    """The flags without --processes N, and N; without it what torchrun says, or 1."""
    left: list[str] = []
    given: list[str] = []
    rest = list(arguments)
    while rest:
        name, equals, text = (argument := rest.pop(0)).partition("=")
        if name != "--processes":
            left.append(argument)
        else:
            given.append(text if equals or not rest else rest.pop(0))
    if len(given) > 1:
        raise ConfigError(f"--processes is given {len(given)} times. Give it once.")
    return left, processes_of(given[0], "--processes") if given else processes_here()


def _batches(recipe: Recipe, processes: int, totals: list[int]) -> None:
    passes = accumulations(recipe, processes)
    for stage, count, total in zip(recipe.stages(), passes, totals, strict=True):
        start = f"from step {stage.from_step + 1} on: " if stage.from_step else ""
        print(
            f"{start}{total} clips per optimizer step: {stage.batch} (train_batch_size) x {count} "
            f"(gradient_accumulation_steps) x {processes} ({'process' if processes == 1 else 'processes'})"
        )
