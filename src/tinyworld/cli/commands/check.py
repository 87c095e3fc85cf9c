"""`tinyworld check RECIPE`: everything that can be known before step 1. Exit code 2 on any problem."""

import argparse
from typing import TYPE_CHECKING

from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe
from tinyworld.config.warnings import warnings
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
    _memory(recipe)
    _start(recipe)
    return 0


def _frames(recipe: "TaehvRecipe") -> None:
    spec = recipe.spec()
    side = spec.spatial_compression
    for stage in recipe.stages():
        if stage.from_step:
            print(f"from step {stage.from_step + 1} on ({stage.key}), {stage.batch} clips per forward pass:")
        for height, width, n_frames in stage.buckets:
            plan = training_plan(n_frames, spec, recipe.data.pad_frames)
            print(
                f"clip {height} x {width} x {n_frames}: {plan.latent_frames} latents of {height // side} x {width // side} "
                f"x {spec.latent_channels}, {plan.decoded_frames} frames decoded, {plan.target_frames} compared with the "
                "clip" + (f", {plan.padding} frames of padding" if plan.padding else "")
            )


def _start(recipe: "TaehvRecipe") -> None:
    """Everything that training does before its first step: device, tracker, checkpoint, data, weights."""
    from tinyworld.engine.loop import check_start
    from tinyworld.tasks.taehv import TaehvTask

    check_start(recipe)
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
    if task.taught_by:
        print(f"reference VAE: {task.taught_by['teacher']}, {task.taught_by['latents']} latents")


def _memory(recipe: "TaehvRecipe") -> None:
    from tinyworld.tasks.taehv.plan_memory import largest_batch

    (batch, height, width, n_frames), estimate = largest_batch(recipe)
    print(f"memory for {batch} clips of {height} x {width} x {n_frames}: {estimate}")
    if recipe.seraena.use_seraena:
        where = "main memory" if recipe.seraena.seraena_buffer_device == "cpu" else "the training device"
        print(f"besides: Seraena's replay buffer, up to {recipe.seraena.seraena_buffer_mb} MiB per process in {where}")
    if recipe.distils:
        print(f"besides: the reference VAE in {recipe.teacher.ref_vae_dtype}" + _when(recipe))
    if recipe.seraena.use_seraena:
        kept = recipe.checkpoint.checkpoints_total_limit
        print(
            f"checkpoints: each holds the replay buffer of every process too, up to {recipe.seraena.seraena_buffer_mb} MiB; "
            + (f"the newest {kept} are kept" if kept else "all are kept")
        )


def _when(recipe: "TaehvRecipe") -> str:
    if recipe.data.latent_cache is None or recipe.loss.decoder_loss_weight:
        return ", all the time"
    return ", only for the held-out clips before the first step (the rest comes from data.latent_cache)"
