"""`tinyworld data cache` of a video world: text, image tokens and latents of every clip that a run will ask for.

First the prompts, by the text encoder; then the clips, by the codec and, where the transformer takes them, the image encoder.
The text encoder is gone before the codec is opened, and neither is opened when nothing of its kind is missing. Each entry is
computed by itself, so that it does not depend on what else was missing. Processes share a folder as in `tasks.cache_filling`.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tinyworld.config.schema import FantasyRecipe
from tinyworld.core import dist
from tinyworld.core.console import LOGGER, counting
from tinyworld.core.errors import UserError, WeightsError
from tinyworld.core.pixels import to_unit_range
from tinyworld.data.clips import ClipDataset
from tinyworld.data.cut import Cut
from tinyworld.data.loader import read_cuts
from tinyworld.data.worlds.condition_cache import ConditionCache, Makers, write_makers
from tinyworld.engine import accelerate_setup
from tinyworld.infer.codec import Codec, open_codec
from tinyworld.models.fantasy.encoders import ImageEncoder, open_image_encoder, open_text_encoder
from tinyworld.tasks.cache_filling import Filled, from_own_place, set_aside, share, tell_progress
from tinyworld.tasks.fantasy.conditions import PRECISION, filling_cache, takes_encoders
from tinyworld.tasks.fantasy.inputs import latents_of
from tinyworld.tasks.fantasy.sources import dataset_of, find_sources, wanted


@dataclass
class FilledWorlds:
    """What a process did with its share of the clips and of the prompts; removed entries and faults are the clips'."""

    clips: Filled = field(default_factory=Filled)
    prompts: Filled = field(default_factory=Filled)


def fill_cache(recipe: FantasyRecipe, prune: bool = False) -> FilledWorlds:
    """Compute what training by this recipe reads from its cache, as far as it is missing.

    prune: also remove every entry that this recipe does not need. Raises ConfigError for a recipe that names no codec,
    encoders or cache, DataError for a folder that others have filled and when more videos cannot be read than
    quarantine_budget allows, MissingFileError and WeightsError.
    """
    cache = filling_cache(recipe)
    sources = find_sources(recipe)
    cuts, prompts = wanted(recipe, sources)
    accelerate_setup.require(recipe)
    device, done = accelerate_setup.training_device(recipe), FilledWorlds()
    _fill_texts(recipe, cache, share(prompts) if takes_encoders(recipe.spec().backbone) else [], device, done.prompts)
    if done.prompts != Filled(there=done.prompts.there):  # a text encoder was opened
        _release(device)
    _fill_clips(recipe, cache, share(cuts), device, done.clips)
    write_makers(cache.root, cache.makers)
    dataset_of(recipe, sources.train).check_faults(done.clips.faults, recipe.data.quarantine_budget)
    if prune and dist.is_main():
        done.clips.removed, done.clips.removed_bytes = cache.sweep(cuts, prompts)
    return done


def _fill_texts(
    recipe: FantasyRecipe, cache: ConditionCache, prompts: Sequence[str], device: torch.device, done: Filled
) -> None:
    missing = from_own_place(cache.missing_texts(prompts, deep=True))
    done.there = len(prompts) - len(missing)
    path = recipe.find("model.encoders_path")
    if not missing or path is None:
        return
    LOGGER.info("%d of %d prompts are missing in %s", len(missing), len(prompts), cache.root)
    encoder, spec = open_text_encoder(path, device=device), recipe.spec().backbone
    with counting("encoding prompts") as on_progress:
        for seen, prompt in enumerate(missing, start=1):
            if cache.missing_texts([prompt]):
                text = encoder.encode([prompt])[0]
                _check_shape("text_encoder", text, (spec.text_tokens, spec.text_dim))
                done.bytes += cache.write_text(prompt, text)
                done.made += 1
                if done.made == 1:  # not before: an encoder that fails at once leaves the folder to the right one
                    write_makers(cache.root, Makers(text=cache.makers.text))
            else:
                done.by_others += 1
            tell_progress(on_progress, seen - 1, seen, len(missing), "prompts")


def _fill_clips(
    recipe: FantasyRecipe, cache: ConditionCache, cuts: Sequence[Cut], device: torch.device, done: Filled
) -> None:
    missing = from_own_place(cache.missing_cuts(cuts, deep=True))
    done.there = len(cuts) - len(missing)
    path, encoders = recipe.find("model.codec_path"), recipe.find("model.encoders_path")
    if not missing or path is None:
        return
    LOGGER.info("%d of %d clips are missing in %s", len(missing), len(cuts), cache.root)
    codec, images = open_codec(path, PRECISION, device), None
    if takes_encoders(recipe.spec().backbone) and encoders is not None:
        images = open_image_encoder(encoders, device=device)
    data = recipe.data
    reader = ClipDataset(
        [cut.clip for cut in missing], recipe.stages()[0].buckets, cache_bytes=data.frame_cache_mb * 2**20
    )
    pixels = read_cuts(reader, [[cut] for cut in missing], data.num_workers, data.prefetch_factor)
    with counting("encoding clips") as on_progress:
        for seen, (cut, (outcome,)) in enumerate(zip(missing, pixels, strict=True), start=1):
            if isinstance(outcome, UserError):
                set_aside(cut.clip.path, outcome, cache.videos, done)
            elif cache.missing_cuts([cut]):
                done.bytes += _encode(recipe, cache, codec, images, cut, outcome.to(device))
                done.made += 1
                if done.made == 1:
                    write_makers(cache.root, Makers(cache.makers.codec, image=cache.makers.image))
            else:
                done.by_others += 1
            tell_progress(on_progress, seen - 1, seen, len(missing), "clips")


def _encode(
    recipe: FantasyRecipe, cache: ConditionCache, codec: Codec, images: ImageEncoder | None, cut: Cut, pixels: Tensor
) -> int:
    """Encode one clip, uint8 T C H W; returns the bytes that were written."""
    frames, spec, clip = to_unit_range(pixels[None]), recipe.spec().backbone, None
    latents, first = latents_of(codec, frames)
    if images is not None:
        clip = images.encode(frames[:, 0])[0]
        _check_shape("image_encoder", clip, (spec.image_tokens, spec.image_dim))
    return cache.write_clip(cut, latents[0], first[0], clip)


def _check_shape(part: str, tokens: Tensor, expected: tuple[int, int | None]) -> None:
    if tuple(tokens.shape) != expected:
        raise WeightsError(
            f"The {part} makes {'x'.join(map(str, tokens.shape))} numbers of a clip, and the transformer takes "
            f"{'x'.join(map(str, expected))} (tokens x width): it is another model than umT5-xxl and CLIP ViT-H as in "
            "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers (key: model.encoders_path)."
        )


def _release(device: torch.device) -> None:
    """Give back what an encoder that is no longer named has held: models of transformers are full of circles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
