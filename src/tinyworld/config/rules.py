"""Rules that join several keys of a recipe: every problem at once, each with the nearest valid values. No torch."""

from pathlib import Path

from tinyworld.config.schema import EMBEDDED_ROOMS, TaehvRecipe
from tinyworld.core.errors import ConfigError, FramePlanError
from tinyworld.core.frames import FramePlan, nearest_counts, training_plan
from tinyworld.core.variants import TaehvSpec, variant

STEADY_LATENTS = {4: 9, 8: 7}
"""Time compression → latents that one decoded frame depends on, so the shortest clip that shows the steady state."""

LEAST_MEASURED = 16
"""Pixels along each side of a measured clip: SSIM's window is 11 x 11 and has to fit into the picture."""

LONG_RUN = 5_000
"""Steps from which a run is meant for use, and clips that never show the steady state are worth a warning."""


def check_rules(recipe: TaehvRecipe) -> list[str]:
    """What keeps the recipe from running, each as one sentence or two; empty when it can run.

    Asks only the recipe: folders, files and devices are looked at when the run is prepared.
    """
    problems = [*_schedule(recipe), *_sources(recipe)]
    try:
        spec = recipe.model.spec()
    except ConfigError as error:
        return [*error.problems, *problems]
    return [*_clip_sizes(recipe, spec), *_measured_sizes(recipe, spec), *_widths(recipe), *problems]


def warnings(recipe: TaehvRecipe) -> list[str]:
    """What can run but is rarely meant. Expects a recipe without problems."""
    spec = recipe.model.spec()
    plans = [training_plan(n, spec, recipe.data.pad_frames) for _, _, n in _clips(recipe).values()]
    return [*_weight_warnings(recipe, plans), *_window_warnings(recipe, plans, spec), *_step_warnings(recipe)]


def _clips(recipe: TaehvRecipe) -> dict[str, tuple[int, int, int]]:
    """Clip sizes that are trained on, by the key that names them."""
    data = recipe.data
    buckets = {f"data.buckets[{i}]": bucket for i, bucket in enumerate(data.buckets)}
    return buckets or {"": (data.height, data.width, data.n_frames)}


def _clip_sizes(recipe: TaehvRecipe, spec: TaehvSpec) -> list[str]:
    data = recipe.data
    problems = []
    base = {"": (data.height, data.width, data.n_frames)}
    for key, (height, width, n_frames) in {**base, **_clips(recipe)}.items():
        for name, size in (("height", height), ("width", width)):
            problems += _size(name, size, key or f"data.{name}", recipe.model.variant, spec)
        try:
            training_plan(n_frames, spec, data.pad_frames)
        except FramePlanError as error:
            problems.append(str(error).replace("data.n_frames", key) if key else str(error))
    repeated = {bucket for bucket in data.buckets if data.buckets.count(bucket) > 1}
    return problems + [
        f"data.buckets holds {list(bucket)} more than once; write it once." for bucket in sorted(repeated)
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


def _schedule(recipe: TaehvRecipe) -> list[str]:
    warm_up, steps = recipe.optimizer.lr_warmup_steps, recipe.training.max_train_steps
    if warm_up <= steps:
        return []
    return [
        f"lr_warmup_steps={warm_up} is longer than the run: max_train_steps={steps}. Use at most {steps}, usually "
        f"{max(1, steps // 20)} (key: optimizer.lr_warmup_steps)."
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


def _weight_warnings(recipe: TaehvRecipe, plans: list[FramePlan]) -> list[str]:
    loss = recipe.loss
    others = {"flicker_loss_weight": loss.flicker_loss_weight, "latent_loss_weight": loss.latent_loss_weight}
    name, largest = max(others.items(), key=lambda item: item[1])
    found = []
    if loss.reconstruction_loss_weight < largest:
        found.append(
            f"reconstruction_loss_weight={loss.reconstruction_loss_weight:g} is below {name}={largest:g}: the other "
            "terms then lead and pictures stay dark or blurred (runs with 0.1 against 1 ended near 4 dB). Usual: 10."
        )
    if loss.flicker_loss_weight > 0 and max(plan.target_frames for plan in plans) < 2:
        found.append(
            "flicker_loss_weight has no effect: one decoded frame per clip has no change to compare. Use more n_frames."
        )
    return found


def _window_warnings(recipe: TaehvRecipe, plans: list[FramePlan], spec: TaehvSpec) -> list[str]:
    longest = max(plans, key=lambda plan: plan.latent_frames)
    steady = STEADY_LATENTS[spec.t_down]
    if longest.latent_frames >= steady or recipe.training.max_train_steps < LONG_RUN:
        return []
    return [
        f"n_frames={longest.n_frames} makes {longest.latent_frames} latents, but a decoded frame depends on {steady}: "
        f"the steady state of long videos is never trained. Where memory allows, n_frames={steady * spec.t_down} "
        "covers it."
    ]


def _step_warnings(recipe: TaehvRecipe) -> list[str]:
    steps = recipe.training.max_train_steps
    every = {
        "validation.validation_steps": (recipe.validation.validation_steps, "validated"),
        "checkpoint.checkpointing_steps": (recipe.checkpoint.checkpointing_steps, "saved"),
    }
    return [
        f"{key}={interval} is beyond max_train_steps={steps}: nothing is {what} before the end of the run."
        for key, (interval, what) in every.items()
        if interval > steps
    ]


def _plain(value: int | tuple[int, ...] | None) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
