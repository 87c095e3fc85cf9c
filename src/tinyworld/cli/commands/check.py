"""`tinyworld check RECIPE`: everything that can be known before step 1. Exit code 2 on any problem."""

import argparse
from typing import TYPE_CHECKING

from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe
from tinyworld.config.rules import warnings
from tinyworld.core.frames import training_plan

if TYPE_CHECKING:
    from tinyworld.config.schema import TaehvRecipe


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add_recipe_parser(commands, "check", run, help="rules, data, frame plan and memory of a recipe, without training")


def run(options: argparse.Namespace) -> int:
    recipe = read_recipe(options)
    print(f"recipe {recipe.name}: all rules hold")
    for warning in warnings(recipe):
        print(f"warning: {warning}")
    _frames(recipe)
    _start(recipe)
    _memory(recipe)
    return 0


def _frames(recipe: "TaehvRecipe") -> None:
    from tinyworld.tasks.taehv.sources import buckets

    for height, width, n_frames in buckets(recipe):
        spec = recipe.model.spec()
        plan = training_plan(n_frames, spec, recipe.data.pad_frames)
        side = spec.spatial_compression
        print(
            f"clip {height} x {width} x {n_frames}: {plan.latent_frames} latents of {height // side} x {width // side} x "
            f"{spec.latent_channels}, {plan.decoded_frames} frames decoded, {plan.target_frames} compared with the clip"
            + (f", {plan.padding} frames of padding" if plan.padding else "")
        )


def _start(recipe: "TaehvRecipe") -> None:
    """Everything that training does before its first step: device, tracker, checkpoint, data, weights."""
    from tinyworld.engine import accelerate_setup, run
    from tinyworld.tasks.taehv import TaehvTask

    accelerate_setup.require(recipe)
    resumed = recipe.checkpoint.resume_from_checkpoint
    if resumed is not None and not run.names_a_checkpoint(resumed):
        run.resumed_path(recipe)
    task = TaehvTask(recipe)
    report = task.sources.report
    print(
        f"data: {len(task.sources.train)} training videos, {len(task.windows)} windows of held-out videos; "
        f"{len(report.looped)} shorter than a clip and looped, {len(report.dropped)} left out, "
        f"{len(report.quarantined)} unreadable"
    )
    for path, reason in [*report.dropped, *report.quarantined]:
        print(f"  not used: {path}: {reason}")
    source = recipe.model.pretrained_model_path or "scratch"
    print(f"model: {sum(p.numel() for p in task.model.parameters()):,} parameters, from {source}")


def _memory(recipe: "TaehvRecipe") -> None:
    from tinyworld.tasks.taehv.plan_memory import largest_bucket

    bucket, estimate = largest_bucket(recipe)
    height, width, n_frames = bucket
    print(f"memory for {recipe.training.train_batch_size} clips of {height} x {width} x {n_frames}: {estimate}")
