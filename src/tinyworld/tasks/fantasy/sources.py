"""From a recipe to the samples that are trained on, those that are held out, and the cache of what encoders make of them.

Training and `tinyworld data cache` take them from here, so that what one computes is what the other asks for.
"""

from dataclasses import dataclass
from pathlib import Path

from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.console import counting
from tinyworld.data.cut import Cut
from tinyworld.data.order import Order
from tinyworld.data.worlds.condition_cache import ConditionCache
from tinyworld.data.worlds.cut import centre_cut
from tinyworld.data.worlds.dataset import WorldDataset
from tinyworld.data.worlds.layout import list_worlds
from tinyworld.data.worlds.scan import WorldRef, WorldReport, scan_worlds
from tinyworld.data.worlds.split import split_worlds

ROOMS_FOLDER = Path("datasets") / "worlds"
"""Where the embedded data set is rendered to, below the working directory."""
ROOMS_SCENES, ROOMS_FRAMES, ROOMS_HEIGHT, ROOMS_WIDTH = 64, 49, 64, 96
"""Its size: as many rooms as two cores render in a minute or so, small, since geometry is learned from many places."""


@dataclass(frozen=True)
class Sources:
    """The samples of a run. `report` is what the scan found."""

    train: list[WorldRef]
    held_out: list[WorldRef]
    report: WorldReport


def find_sources(recipe: FantasyRecipe) -> Sources:
    """List, scan and split the samples of a recipe; renders the embedded rooms when they are asked for and not there.

    Raises MissingFileError and DataError kinds: nothing found, too many unusable, too few scenes to hold one out.
    """
    data = recipe.data
    root, metadata = recipe.find("data.dataset_base_path"), recipe.find("data.dataset_metadata_path")
    if root is None:
        root = _rendered_rooms()
    entries = list_worlds(root, metadata)
    span = (data.num_frames - 1) * min(data.frame_steps) + 1
    with counting("looking at samples") as on_progress:
        report = scan_worlds(
            entries,
            span,
            on_progress,
            data.height,
            data.width,
            data.camera_convention,
            data.camera_intrinsics,
        )
    report.check(data.quarantine_budget)
    train, held_out = split_worlds(report.worlds, data.held_out_fraction, recipe.run.seed)
    return Sources(train, held_out, report)


def dataset_of(recipe: FantasyRecipe, worlds: list[WorldRef], cache: ConditionCache | None = None) -> WorldDataset:
    """Clips of the recipe's size, cut out of the samples; with a cache they bring along what encoders make of them."""
    data = recipe.data
    sizes = recipe.stages()[0].buckets
    return WorldDataset(worlds, sizes, data.frame_steps, data.max_depth, data.frame_cache_mb * 2**20, cache)


def order_of(recipe: FantasyRecipe, dataset: WorldDataset, batch: int) -> Order:
    """The order of samples. batch: clips per optimizer step, over all processes and micro-batches."""
    return Order(dataset.bucket_of, batch, recipe.run.seed, cached_cuts(recipe), [world.id for world in dataset.worlds])


def cached_cuts(recipe: FantasyRecipe) -> int:
    """Cuts of each sample that come back in turn; 0 without a cache, where every epoch cuts anew."""
    return 0 if recipe.data.condition_cache is None else recipe.data.cached_crops


def measured(recipe: FantasyRecipe, sources: Sources) -> list[WorldRef]:
    """The held-out samples that a validation looks at."""
    return sources.held_out[: recipe.validation.num_validation_samples]


def wanted(recipe: FantasyRecipe, sources: Sources) -> tuple[list[Cut], list[str]]:
    """All clips and prompts, the empty one included, whose encodings a run with a cache asks for: each once, all clips of a
    video together."""
    dataset, data = dataset_of(recipe, sources.train), recipe.data
    size = (data.height, data.width, data.num_frames)
    drawn = [dataset.plan(draw)[0] for draw in order_of(recipe, dataset, 1).every_cut()]
    looked_at = [centre_cut(world, size, data.frame_steps)[0] for world in measured(recipe, sources)]
    cuts = dict.fromkeys(cut.picture for cut in [*drawn, *looked_at])
    prompts = dict.fromkeys(["", *(cut.world.entry.caption for cut in [*drawn, *looked_at])])
    return sorted(cuts, key=lambda cut: str(cut.clip.path)), list(prompts)


def _rendered_rooms() -> Path:
    from tinyworld.data.rooms import make_rooms

    with counting("rendering rooms") as on_progress:
        return make_rooms(
            ROOMS_FOLDER,
            ROOMS_SCENES,
            ROOMS_FRAMES,
            ROOMS_HEIGHT,
            ROOMS_WIDTH,
            points=False,
            on_progress=on_progress,
        )
