"""What `tinyworld check` says of a TAEHV recipe: frame plan, memory, data, weights."""

from tinyworld.cli.checks.memory import print_plan
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.frames import training_plan


def check(recipe: TaehvRecipe, processes: int) -> None:
    """Print it. Raises UserError kinds for what training would not start with."""
    _frames(recipe)
    _memory(recipe, processes)
    _start(recipe)


def _frames(recipe: TaehvRecipe) -> None:
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


def _start(recipe: TaehvRecipe) -> None:
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


def _memory(recipe: TaehvRecipe, processes: int) -> None:
    print_plan(recipe, processes)
    if recipe.seraena.use_seraena:
        kept, size_mb = recipe.checkpoint.checkpoints_total_limit, recipe.seraena.seraena_buffer_mb
        where = "main memory" if recipe.seraena.seraena_buffer_device == "cpu" else "the training device"
        print(
            f"Seraena's replay buffer: up to {size_mb} MiB per process in {where}, and in each checkpoint; "
            + (f"the newest {kept} are kept" if kept else "all are kept")
        )
    if recipe.distils:
        print(f"reference VAE: in {recipe.teacher.ref_vae_dtype}" + _when(recipe))


def _when(recipe: TaehvRecipe) -> str:
    if recipe.data.latent_cache is None or recipe.loss.decoder_loss_weight:
        return ", all the time"
    return ", only for the held-out clips before the first step (the rest comes from data.latent_cache)"
