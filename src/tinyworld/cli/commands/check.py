"""`tinyworld check RECIPE`: everything that can be known before step 1. Exit code 2 on any problem."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe
from tinyworld.config.batch import accumulations, clips_per_step, processes_here, processes_of
from tinyworld.config.warnings import warnings
from tinyworld.core.errors import ConfigError
from tinyworld.core.frames import training_plan

if TYPE_CHECKING:
    from tinyworld.config.schema import TaehvRecipe


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add_recipe_parser(
        commands,
        "check",
        run,
        help="rules, data, frame plan and memory of a recipe, without training",
        more=" [--processes N]",
    )


def run(options: argparse.Namespace) -> int:
    options.overrides, processes = _processes(options.overrides)
    recipe = read_recipe(options)
    totals = clips_per_step(recipe, processes)
    print(f"recipe {recipe.name}: all rules hold")
    for warning in warnings(recipe):
        print(f"warning: {warning}")
    _batches(recipe, processes, totals)
    _frames(recipe)
    _memory(recipe, processes)
    _start(recipe)
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


def _batches(recipe: "TaehvRecipe", processes: int, totals: list[int]) -> None:
    passes = accumulations(recipe, processes)
    for stage, count, total in zip(recipe.stages(), passes, totals, strict=True):
        start = f"from step {stage.from_step + 1} on: " if stage.from_step else ""
        print(
            f"{start}{total} clips per optimizer step: {stage.batch} (train_batch_size) x {count} "
            f"(gradient_accumulation_steps) x {processes} ({'process' if processes == 1 else 'processes'})"
        )


def _frames(recipe: "TaehvRecipe") -> None:
    spec = recipe.spec()
    side = spec.spatial_compression
    for stage in recipe.stages():
        if stage.from_step:
            print(f"from step {stage.from_step + 1} on ({stage.key}):")
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


def _memory(recipe: "TaehvRecipe", processes: int) -> None:
    from tinyworld.engine.memory import gib
    from tinyworld.tasks.taehv.fit_memory import check_memory, memory_limit

    plan = check_memory(recipe, processes)
    for line in plan.lines():
        print(line)
    limit = memory_limit(recipe)
    if limit is not None:
        size, source = limit
        fits = "what is counted fits" if plan.not_counted else "it fits"
        print(f"{fits}: {source} leaves {gib(size - plan.total)} ({(size - plan.total) / size:.0%})")
    else:
        print("no GPU here to compare with: --gpu_memory 40GiB says whether the plan fits one of that size")
    if recipe.seraena.use_seraena:
        kept, size_mb = recipe.checkpoint.checkpoints_total_limit, recipe.seraena.seraena_buffer_mb
        where = "main memory" if recipe.seraena.seraena_buffer_device == "cpu" else "the training device"
        print(
            f"Seraena's replay buffer: up to {size_mb} MiB per process in {where}, and in each checkpoint; "
            + (f"the newest {kept} are kept" if kept else "all are kept")
        )
    if recipe.distils:
        print(f"reference VAE: in {recipe.teacher.ref_vae_dtype}" + _when(recipe))


def _when(recipe: "TaehvRecipe") -> str:
    if recipe.data.latent_cache is None or recipe.loss.decoder_loss_weight:
        return ", all the time"
    return ", only for the held-out clips before the first step (the rest comes from data.latent_cache)"
