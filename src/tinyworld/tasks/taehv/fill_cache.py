"""`tinyworld data cache`: everything that the reference VAE will be asked in a run, computed and kept beforehand.

How processes share the work is said in `tasks.cache_filling`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core import dist
from tinyworld.core.console import LOGGER, counting
from tinyworld.core.errors import ConfigError, UserError
from tinyworld.core.pixels import to_unit_range
from tinyworld.data.clips import ClipDataset
from tinyworld.data.cut import Cut
from tinyworld.data.latent_cache import LatentCache
from tinyworld.data.loader import read_cuts
from tinyworld.data.scan import ClipRef
from tinyworld.engine import accelerate_setup
from tinyworld.models.teachers import Teacher
from tinyworld.tasks.cache_filling import Filled, from_own_place, set_aside, share, tell_progress
from tinyworld.tasks.taehv.clips import cached_views, clip_dataset, latent_cache
from tinyworld.tasks.taehv.reference import open_reference
from tinyworld.tasks.taehv.sources import find_sources


def fill_cache(recipe: TaehvRecipe, prune: bool = False) -> Filled:
    """Compute the latents that training by this recipe reads from its cache, as far as they are missing.

    prune: also remove every entry that this recipe does not need. Raises ConfigError for a recipe without reference VAE
    or cache, DataError when more videos cannot be read than quarantine_budget allows.
    """
    check_recipe(recipe)
    cache = latent_cache(recipe)
    assert cache is not None  # check_recipe
    clips = find_sources(recipe).train
    dataset, views = wanted(recipe, clips)
    done = Filled()
    own = share(views)
    missing = cache.missing(own, deep=True)
    done.there = len(own) - len(missing)
    if missing:
        LOGGER.info("%d of %d latents are missing in %s", len(missing), len(own), cache.root)
        accelerate_setup.require(recipe)
        device = accelerate_setup.training_device(recipe)
        compute(recipe, dataset, cache, open_reference(recipe, device), from_own_place(missing), device, done)
    dataset.check_faults(done.faults, recipe.data.quarantine_budget)
    if prune and dist.is_main():
        done.removed, done.removed_bytes = cache.sweep(_keys(cache, views))
    return done


def check_recipe(recipe: TaehvRecipe) -> None:
    """Raises ConfigError unless the recipe trains on cached latents of a reference VAE."""
    problems = []
    if not recipe.distils:
        problems.append(
            "use_ref_vae=false: an autoencoder learns its own latents, there is none to compute beforehand. Set "
            "teacher.use_ref_vae=true and teacher.ref_vae_path."
        )
    if recipe.data.latent_cache is None:
        problems.append("latent_cache is not set: give the folder that latents are kept in (key: data.latent_cache).")
    if problems:
        raise ConfigError(problems)


def wanted(recipe: TaehvRecipe, clips: Sequence[ClipRef]) -> tuple[ClipDataset, list[Cut]]:
    """All that the reference VAE is shown in any stage, each once, all of a video together; and a data set to read it."""
    datasets = [clip_dataset(recipe, clips, stage) for stage in recipe.stages()]
    views = dict.fromkeys(view for dataset in datasets for view in cached_views(recipe, dataset))
    return datasets[0], sorted(views, key=lambda view: str(view.clip.path))


def compute(
    recipe: TaehvRecipe,
    dataset: ClipDataset,
    cache: LatentCache,
    teacher: Teacher,
    views: Sequence[Cut],
    device: torch.device,
    done: Filled,
) -> None:
    """Encode views in batches of one shape and store what comes out; `done` counts on."""
    groups = list(batches(views, recipe.training.train_batch_size))
    pixels = read_cuts(dataset, groups, recipe.data.num_workers, recipe.data.prefetch_factor)
    seen = 0
    with counting("computing latents") as on_progress:
        for group, outcomes in zip(groups, pixels, strict=True):
            good = list(_readable(cache, group, outcomes, done))
            if good:
                _encode(cache, teacher, good, device, done)
            before, seen = seen, seen + len(group)
            tell_progress(on_progress, before, seen, len(views), "latents")


def batches(views: Sequence[Cut], size: int) -> Iterator[list[Cut]]:
    """Groups of up to `size` views of one shape, in the order of their first."""
    waiting: dict[tuple[int, int, int], list[Cut]] = {}
    for view in views:
        group = waiting.setdefault(view.shape, [])
        group.append(view)
        if len(group) == size:
            yield waiting.pop(view.shape)
    yield from waiting.values()


def _readable(
    cache: LatentCache, group: Sequence[Cut], outcomes: Sequence[Tensor | UserError], done: Filled
) -> Iterator[tuple[Cut, Tensor]]:
    """Views with their pixels; leaves out what another process has made by now and what cannot be read."""
    for view, outcome in zip(group, outcomes, strict=True):
        if isinstance(outcome, UserError):
            set_aside(view.clip.path, outcome, cache.videos, done)
        elif not cache.missing([view]):
            done.by_others += 1
        else:
            yield view, outcome


def _encode(
    cache: LatentCache, teacher: Teacher, good: Sequence[tuple[Cut, Tensor]], device: torch.device, done: Filled
) -> None:
    frames = to_unit_range(torch.stack([pixels for _, pixels in good]).to(device))
    posterior = teacher.encode(frames)
    for (view, _), mean, logvar in zip(good, posterior.mean, posterior.logvar, strict=True):
        done.bytes += cache.write(view, mean, logvar)
        done.made += 1


def _keys(cache: LatentCache, views: Sequence[Cut]) -> set[str]:
    """Of the views whose videos are still there."""
    return {cache.key(view) for view in views if view.clip.path.is_file()}
