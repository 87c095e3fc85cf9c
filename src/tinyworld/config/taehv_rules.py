"""Rules that join several keys of a TAEHV recipe. No torch."""

import itertools
from pathlib import Path
from typing import Any

from tinyworld.config.schema import EMBEDDED_ROOMS, TaehvRecipe
from tinyworld.core.errors import ConfigError, FramePlanError
from tinyworld.core.frames import nearest_counts, training_plan
from tinyworld.core.variants import TaehvSpec, variant

LEAST_MEASURED = 16
"""Pixels along each side of a measured clip: SSIM's window is 11 x 11 and has to fit into the picture."""


def problems(recipe: TaehvRecipe) -> list[str]:
    """What keeps the recipe from running, beside the rules that all families share."""
    found = [*_stages(recipe), *_sources(recipe), *_teacher(recipe), *_terms(recipe)]
    try:
        spec = recipe.spec()
    except ConfigError as error:
        return [*error.problems, *found]
    sizes = [*_clip_sizes(recipe, spec), *_measured_sizes(recipe, spec)]
    return [*sizes, *_parity(recipe, spec), *_buffer(recipe, spec), *_widths(recipe), *found]


def clip_sizes(recipe: TaehvRecipe) -> list[tuple[str, tuple[int, int, int]]]:
    """Clip sizes that are trained on, each behind the key that names it."""
    found = []
    for stage in recipe.stages():
        config: Any = recipe.data if stage.key == "data" else recipe.data.stages[int(stage.key[12:-1])]
        for number, bucket in enumerate(stage.buckets):
            found.append((f"{stage.key}.buckets[{number}]" if config.buckets else stage.key, bucket))
    return found


def _leaf(key: str, name: str) -> str:
    """The key of one number of a clip size: a bucket is a list and has one key for all three."""
    return key if ".buckets[" in key else f"{key}.{name}"


def _clip_sizes(recipe: TaehvRecipe, spec: TaehvSpec) -> list[str]:
    data = recipe.data
    problems: list[str] = []
    sizes = [("data", (data.height, data.width, data.n_frames)), *clip_sizes(recipe)]
    for key, (height, width, n_frames) in dict(sizes).items():
        for name, size in (("height", height), ("width", width)):
            problems += _size(name, size, _leaf(key, name), recipe.model.variant, spec)
        try:
            training_plan(n_frames, spec, data.pad_frames)
        except FramePlanError as error:
            problems.append(str(error).replace("data.n_frames", _leaf(key, "n_frames")))
    for stage in recipe.stages():
        repeated = {bucket for bucket in stage.buckets if stage.buckets.count(bucket) > 1}
        problems += [
            f"{stage.key}.buckets holds {list(bucket)} more than once; write it once." for bucket in sorted(repeated)
        ]
    return problems


def _stages(recipe: TaehvRecipe) -> list[str]:
    """Stages follow one another within the run."""
    starts = [stage.from_step for stage in recipe.stages()]
    steps = recipe.training.max_train_steps
    problems = [
        f"data.stages[{number}] starts at step {later}, not after the stage before it (step {earlier}). Write the stages in "
        "the order of their from_step."
        for number, (earlier, later) in enumerate(itertools.pairwise(starts))
        if later <= earlier
    ]
    return problems + [
        f"{stage.key} starts at step {stage.from_step}, but the run ends at {steps}. Use a from_step below {steps}, or more "
        "training.max_train_steps."
        for stage in recipe.stages()
        if stage.from_step >= steps
    ]


def _teacher(recipe: TaehvRecipe) -> list[str]:
    teacher, part = recipe.teacher, recipe.model.train_part
    problems = []
    if recipe.distils and teacher.ref_vae_path is None:
        problems.append(
            "use_ref_vae=true needs the reference VAE: give teacher.ref_vae_path, a folder in diffusers' format or a hub "
            "id such as THUDM/CogVideoX-2b. Without one, use_ref_vae=false trains an autoencoder with latents of its own."
        )
    if recipe.data.latent_cache is not None and not recipe.distils:
        problems.append(
            "latent_cache holds a reference VAE's latents, but use_ref_vae is false. Leave data.latent_cache out, or set "
            "teacher.use_ref_vae=true."
        )
    if part != "decoder" and recipe.distils and recipe.loss.encoder_loss_weight == 0:
        problems.append(
            f"encoder_loss_weight=0 leaves the encoder nothing to learn, but train_part={part} trains it. Raise "
            "loss.encoder_loss_weight, or set model.train_part=decoder."
        )
    if part == "encoder" and recipe.distils and recipe.seraena.use_seraena:
        problems.append(
            "use_seraena=true sharpens the decoder, but train_part=encoder leaves it out. Set seraena.use_seraena=false, or "
            "train both (key: model.train_part)."
        )
    if part != "both" and recipe.model.pretrained_model_path is None:
        problems.append(
            f"train_part={part} keeps the other part as it starts, which is at random without weights. Give "
            "model.pretrained_model_path, or train both (key: model.train_part)."
        )
    return problems


def _parity(recipe: TaehvRecipe, spec: TaehvSpec) -> list[str]:
    """CogVideoX's latents of an even count are about other frames than those of an odd one (core.frames)."""
    if spec.flavour != "cogvideox" or recipe.model.train_part == "decoder" or recipe.data.pad_frames:
        return []
    period, offset = 2 * spec.t_down, spec.t_down
    problems = []
    for key, (_, _, n_frames) in clip_sizes(recipe):
        if n_frames % spec.t_down == 0 and n_frames // spec.t_down % 2 == 0:
            nearest = " or ".join(map(str, nearest_counts(n_frames, period, offset)))
            problems.append(
                f"n_frames={n_frames} makes {n_frames // spec.t_down} latents. CogVideoX aligns an even number of latents "
                "three frames earlier than an odd one, and its own clips (49 frames, 13 latents) are odd: an encoder that "
                f"learns both learns neither. Use {nearest} (key: {_leaf(key, 'n_frames')}), or train_part=decoder, which "
                "either fits (key: model.train_part)."
            )
    return problems


def _terms(recipe: TaehvRecipe) -> list[str]:
    """Loss terms that need something else."""
    loss, problems = recipe.loss, []
    if loss.perceptual_loss_weight and loss.perceptual_kind == "lpips" and recipe.validation.lpips_backbone is None:
        problems.append(
            "perceptual_kind=lpips needs VGG16's weights: give validation.lpips_backbone, or use another perceptual_kind, "
            "which needs none (key: loss.perceptual_kind)."
        )
    if loss.decoder_loss_weight and recipe.distils and recipe.teacher.ref_vae_dtype == "fp16":
        problems.append(
            "decoder_loss_weight needs gradients through the reference VAE, and those of single pixels are below what fp16 "
            "can hold. Use bf16 or fp32 (key: teacher.ref_vae_dtype)."
        )
    for key, (height, width, _) in clip_sizes(recipe):
        if loss.perceptual_loss_weight and min(height, width) < LEAST_MEASURED:
            problems.append(
                f"{height} x {width} pixels are too few for the perceptual loss, which needs {LEAST_MEASURED} along each side "
                f"(key: {key}). Use larger clips, or loss.perceptual_loss_weight=0."
            )
    return problems


def _buffer(recipe: TaehvRecipe, spec: TaehvSpec) -> list[str]:
    """The replay buffer holds at least one group of the largest clip."""
    config = recipe.seraena
    if not config.use_seraena:
        return []
    side = spec.spatial_compression
    height, width = max(((h, w) for _, (h, w, _) in clip_sizes(recipe)), key=lambda size: size[0] * size[1])
    entry = 3 * config.n_seraena_frames * height * width + 2 * spec.latent_channels * (height // side) * (width // side)
    least = -(-entry // 2**20)
    if least <= config.seraena_buffer_mb:
        return []
    return [
        f"seraena_buffer_mb={config.seraena_buffer_mb} does not hold one group of {config.n_seraena_frames} frames of {height} "
        f"x {width}. Use at least {least}, usually a hundred times that (key: seraena.seraena_buffer_mb)."
    ]


def _size(name: str, size: int, key: str, variant_name: str, spec: TaehvSpec) -> list[str]:
    step = spec.size_multiple
    if size % step == 0:
        return []
    nearest = " or ".join(map(str, nearest_counts(size, step, 0)))
    return [f"{name}={size} is not a multiple of {step}, as {variant_name} needs. Use {nearest} (key: {key})."]


def _measured_sizes(recipe: TaehvRecipe, spec: TaehvSpec) -> list[str]:
    """Held-out clips take the data section's size unless the validation section has its own."""
    step = spec.size_multiple
    least = -(-LEAST_MEASURED // step) * step
    problems = []
    for name in ("height", "width"):
        own, size = getattr(recipe.validation, f"validation_{name}"), getattr(recipe.data, name)
        if own is None and size < LEAST_MEASURED:
            problems.append(
                f"{name}={size} is too small to be measured: SSIM looks at windows of 11 x 11 pixels, so held-out clips "
                f"need at least {LEAST_MEASURED}. Use {least} or more (key: data.{name}), or set "
                f"validation.validation_{name}={LEAST_MEASURED}."
            )
    return problems


def _widths(recipe: TaehvRecipe) -> list[str]:
    """A published .pth has its variant's own widths; files written by a run state theirs, which loading compares."""
    model, stock = recipe.model, variant(recipe.model.variant)
    if not (model.pretrained_model_path or "").endswith(".pth"):
        return []
    pairs = (("encoder_width", stock.encoder_width), ("decoder_widths", stock.decoder_widths))
    return [
        f"model.{key}={_plain(getattr(model, key))} does not fit {model.pretrained_model_path}: a published "
        f"{model.variant} has {_plain(own)}. Leave {key} out, or set model.pretrained_model_path=null to train from "
        "scratch."
        for key, own in pairs
        if getattr(model, key) not in (None, own)
    ]


def _sources(recipe: TaehvRecipe) -> list[str]:
    data, validation = recipe.data, recipe.validation
    problems = []
    if data.data_root == EMBEDDED_ROOMS and data.annotation_file is not None:
        problems.append(
            "data_root=rooms is the embedded data set, which takes no annotation_file. Leave data.annotation_file out, "
            "or give the folder of your videos as data.data_root."
        )
    if data.held_out_root is not None and Path(data.held_out_root) == Path(data.data_root):
        problems.append(
            f"held_out_root={data.held_out_root} is data_root itself: the model would be judged on what it was trained "
            "on. Give another folder, or leave data.held_out_root out to hold back held_out_fraction of the videos."
        )
    if validation.metric_for_best_model == "lpips" and validation.lpips_backbone is None:
        problems.append(
            "metric_for_best_model=lpips needs the weights that LPIPS is computed with: give "
            "validation.lpips_backbone, or use psnr, ssim or flicker (key: validation.metric_for_best_model)."
        )
    return problems


def _plain(value: int | tuple[int, ...] | None) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
