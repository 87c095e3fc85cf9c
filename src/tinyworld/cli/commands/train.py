"""`tinyworld train RECIPE`."""

import argparse
from typing import TYPE_CHECKING

from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe
from tinyworld.config.dump import to_yaml
from tinyworld.config.warnings import warnings
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import Interrupted

if TYPE_CHECKING:
    from pathlib import Path

    from tinyworld.config.schema import Recipe
    from tinyworld.engine.loop import Outcome


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add_recipe_parser(
        commands, "train", run, help="train as a recipe says; every key is also a flag", more=" [--print_config]"
    )


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


def train(recipe: "Recipe") -> "Outcome":
    """Train and write the report; shared by `train` and `demo`."""
    from tinyworld.core import dist
    from tinyworld.core.host_memory import keep_freed_memory
    from tinyworld.engine.accelerate_setup import processes, training_device
    from tinyworld.engine.loop import check_start, run_training
    from tinyworld.tasks.build import build_task, check_memory

    check_start(recipe)
    if training_device(recipe).type == "cpu":
        keep_freed_memory()
    with processes(recipe):
        check_memory(recipe, dist.world_size())
        try:
            outcome = run_training(build_task(recipe), recipe)
        except Interrupted as end:
            _report(end.folder)
            raise
        _report(outcome.folder)
    return outcome


def _report(folder: "Path") -> None:
    """Write the page of a run, once. A page that cannot be written does not change how the run ended."""
    from tinyworld.core import dist
    from tinyworld.report import build_report

    if not dist.is_main():
        return
    try:
        LOGGER.info("report: %s", build_report(folder))
    except Exception as error:  # noqa: BLE001 - told, and the run's own outcome counts
        LOGGER.warning("the report could not be written: %s: %s", type(error).__name__, error)
