"""From a recipe to the clips of one of its stages, their order, and the cache of their latents.

Training and `tinyworld data cache` take them from here, so that what one computes is what the other asks for.
"""

from collections.abc import Sequence
from pathlib import Path

from tinyworld.config.schema import Stage, TaehvRecipe
from tinyworld.core.frames import training_plan
from tinyworld.data.clips import ClipDataset
from tinyworld.data.cut import Cut
from tinyworld.data.latent_cache import LatentCache
from tinyworld.data.order import Order
from tinyworld.data.scan import ClipRef
from tinyworld.tasks.taehv.reference import reference_digest


def latent_cache(recipe: TaehvRecipe, teacher_digest: str | None = None) -> LatentCache | None:
    """The cache of the recipe's reference VAE; None when it has none.

    teacher_digest: of the VAE where it is open already. Else its files are read once, without loading it, which raises
    MissingFileError and WeightsError for one that is not there or cannot be one.
    """
    if not uses_cache(recipe):
        return None
    folder = Path(recipe.data.latent_cache or "").expanduser().absolute()
    return LatentCache(folder, teacher_digest or reference_digest(recipe))


def uses_cache(recipe: TaehvRecipe) -> bool:
    return recipe.distils and recipe.data.latent_cache is not None


def clip_dataset(
    recipe: TaehvRecipe, clips: Sequence[ClipRef], stage: Stage, cache: LatentCache | None = None
) -> ClipDataset:
    """The clips that a stage of the recipe cuts out of `clips`; with a cache their samples bring latents along."""
    data, spec = recipe.data, recipe.spec()
    plans = [training_plan(n_frames, spec, data.pad_frames) for _, _, n_frames in stage.buckets]
    return ClipDataset(
        clips,
        stage.buckets,
        frame_steps=data.frame_steps,
        crop_scale=data.crop_scale,
        flip=data.flip,
        short_clips=data.short_clips,
        cache_bytes=data.frame_cache_mb * 2**20,
        colour_jitter=data.colour_jitter,
        clip_ends=data.clip_ends,
        lookahead=[plan.n_frames - plan.target_frames for plan in plans],
        teacher_frames=[plan.decoded_frames for plan in plans],
        cache=cache,
    )


def order(recipe: TaehvRecipe, dataset: ClipDataset, batch: int) -> Order:
    """The order of a stage's samples. batch: clips per optimizer step, over all processes and micro-batches."""
    cuts = recipe.data.cached_crops if uses_cache(recipe) else 0
    return Order(dataset.bucket_of, batch, recipe.run.seed, cuts, [clip.id for clip in dataset.clips])


def cached_views(recipe: TaehvRecipe, dataset: ClipDataset) -> list[Cut]:
    """All that the reference VAE is ever shown of a stage's clips, with a cache; all of a clip together."""
    return [dataset.teacher_view(draw) for draw in order(recipe, dataset, 1).every_cut()]
