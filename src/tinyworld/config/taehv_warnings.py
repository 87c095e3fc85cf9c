"""What a TAEHV recipe can run with but is rarely meant. No torch."""

from tinyworld.config.schema import TaehvRecipe
from tinyworld.config.taehv_rules import clip_sizes
from tinyworld.core.frames import FramePlan, training_plan
from tinyworld.core.variants import TaehvSpec, variant

STEADY_LATENTS = {4: 9, 8: 7}
"""Time compression → latents that one decoded frame depends on, so the shortest clip that shows the steady state."""

LONG_RUN = 5_000
"""Steps from which a run is meant for use, and clips that never show the steady state are worth a warning."""


def warnings(recipe: TaehvRecipe) -> list[str]:
    """What can run but is rarely meant. Expects a recipe without problems."""
    spec = recipe.spec()
    plans = [training_plan(n, spec, recipe.data.pad_frames) for _, (_, _, n) in clip_sizes(recipe)]
    return [
        *_mode_warnings(recipe),
        *_weight_warnings(recipe, plans),
        *_seraena_warnings(recipe),
        *_window_warnings(recipe, plans, spec),
    ]


def _mode_warnings(recipe: TaehvRecipe) -> list[str]:
    """What the mode means for the latents, and keys that were set for the other mode."""
    loss, part = recipe.loss, recipe.model.train_part
    found = []
    if not recipe.distils and variant(recipe.model.variant).flavour == "cogvideox":
        found.append(
            "use_ref_vae=false: autoencode. The latents become this model's own: it gives clips back, but cannot decode "
            "what CogVideoX makes. For that set teacher.use_ref_vae=true and teacher.ref_vae_path."
        )
    unused = {
        "encoder_loss_weight": not recipe.distils or part == "decoder",
        "decoder_loss_weight": not recipe.distils or part == "encoder",
        "latent_loss_weight": recipe.distils or part == "decoder",
    }
    mode = "distil" if recipe.distils else "autoencode"
    for name, idle in unused.items():
        if idle and name in loss.model_fields_set and getattr(loss, name):
            found.append(f"{name} has no effect in mode {mode} with train_part={part}.")
    return found


def _weight_warnings(recipe: TaehvRecipe, plans: list[FramePlan]) -> list[str]:
    loss = recipe.loss
    others = {"flicker_loss_weight": loss.flicker_loss_weight}
    if recipe.distils:
        others["encoder_loss_weight"] = loss.encoder_loss_weight
    else:
        others["latent_loss_weight"] = loss.latent_loss_weight
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


def _seraena_warnings(recipe: TaehvRecipe) -> list[str]:
    config, steps = recipe.seraena, recipe.training.max_train_steps
    if not config.use_seraena:
        return []
    found = []
    if config.n_seraena_frames == 1:
        found.append(
            "n_seraena_frames=1: the discriminator judges single frames, so nothing in it watches flicker. Use 3 (key: "
            "seraena.n_seraena_frames); frames that do not fill a group are padded and none is lost."
        )
    if config.seraena_start_step >= steps:
        found.append(
            f"seraena_start_step={config.seraena_start_step} lies after the last step ({steps}): Seraena never starts."
        )
    elif config.seraena_loss_weight == 0:
        found.append("seraena_loss_weight=0: the discriminator learns, but the decoder hears nothing of it.")
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
