"""What `tinyworld check` says of a FantasyWorld recipe: parts and parameters, frame plan, data, weights."""

from tinyworld.cli.checks.memory import print_plan
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.world_sizes import PATCH, SPACE_STEP, TIME_STEP


def check(recipe: FantasyRecipe, processes: int) -> None:
    """Print it. Raises UserError kinds for what training would not start with."""
    _frames(recipe)
    print_parameters(recipe)
    print_plan(recipe, processes)
    _start(recipe)


def _frames(recipe: FantasyRecipe) -> None:
    data = recipe.data
    frames = (data.num_frames - 1) // TIME_STEP + 1
    rows, columns = data.height // SPACE_STEP // PATCH[1], data.width // SPACE_STEP // PATCH[2]
    print(
        f"clip {data.height} x {data.width} x {data.num_frames}: {frames} latent frames of {rows} x {columns} tokens, "
        f"{frames * rows * columns} in all"
    )


def print_parameters(recipe: FantasyRecipe) -> None:
    """The table of what is trained and what stays frozen."""
    from tinyworld.tasks.fantasy.parameters import count_parameters

    found = count_parameters(recipe)
    print(f"{recipe.task} at size {recipe.model.size}")
    for title, parts in (("trained", found.trained), ("frozen", found.frozen)):
        for name, count in parts.items():
            print(f"  {name:<20}{count:>15,}  {title}")
    total, frozen = sum(found.trained.values()), sum(found.frozen.values())
    print(f"{total:,} trained / {frozen:,} frozen")


def _start(recipe: FantasyRecipe) -> None:
    """Everything that training does before its first step: device, tracker, checkpoint, data, weights."""
    from tinyworld.engine.loop import check_start
    from tinyworld.tasks.fantasy.task import FantasyTask

    check_start(recipe)
    task = FantasyTask(recipe)
    report = task.sources.report
    print(
        f"data: {len(task.sources.train)} training samples, {len(task.windows)} held-out clips of "
        f"{len({world.scene for world in task.sources.held_out})} scenes; {len(report.dropped)} left out, "
        f"{len(report.refused)} refused"
    )
    for name, reason in [*report.dropped, *report.refused]:
        print(f"  not used: {name}: {reason}")
    if task.networks.base_digest:
        print(f"transformer: {recipe.model.backbone_path}, digest {task.networks.base_digest[:12]}")
