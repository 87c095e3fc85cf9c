"""The reference VAE of a recipe: opened, taken as given, or only identified."""

from pathlib import Path
from typing import Any

import torch

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.errors import ConfigError
from tinyworld.models.teachers import ReferenceVae, Teacher, open_teacher, read_facts, teacher_digest
from tinyworld.tasks.taehv.fit import check_fit

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def open_reference(recipe: TaehvRecipe, device: torch.device | str = "cpu") -> Teacher:
    """Load the reference VAE of a recipe in mode distil, frozen.

    Raises ConfigError when the recipe has none or its latents are not of the student's kind; MissingFileError,
    WeightsError and ConfigError as `open_teacher`.
    """
    path = _path(recipe)
    check_fit(read_facts(path), recipe.spec(), recipe.model.variant)
    return open_teacher(path, **_options(recipe), slicing=recipe.teacher.ref_vae_slicing, device=device)


def given_reference(recipe: TaehvRecipe, teacher: ReferenceVae, device: torch.device | str) -> ReferenceVae:
    """A reference VAE that was made in Python, frozen and on the device.

    Raises ConfigError when the recipe is not in mode distil or its student speaks latents of another kind.
    """
    if not recipe.distils:
        raise ConfigError(
            f"the task was given the reference VAE {teacher.facts.class_name}, but use_ref_vae=false learns no latents of "
            "one. Set teacher.use_ref_vae=true, or leave it out."
        )
    if recipe.data.latent_cache is not None:
        raise ConfigError(
            f"latent_cache={recipe.data.latent_cache} holds latents of a VAE that diffusers has, and the task was given a "
            f"{teacher.facts.class_name} of your own. Leave data.latent_cache unset: it runs while training."
        )
    check_fit(teacher.facts, recipe.spec(), recipe.model.variant)
    return teacher.to(device).requires_grad_(False).eval()


def reference_digest(recipe: TaehvRecipe) -> str:
    """`open_reference(recipe).digest`, worked out without loading the model. Raises as `open_reference`."""
    return teacher_digest(_path(recipe), **_options(recipe))


def _options(recipe: TaehvRecipe) -> dict[str, Any]:
    teacher = recipe.teacher
    return {
        "dtype": DTYPES[teacher.ref_vae_dtype],
        "convention": None if teacher.latent_convention == "auto" else teacher.latent_convention,
        "tiling": teacher.ref_vae_tiling,
    }


def _path(recipe: TaehvRecipe) -> Path | str:
    path = recipe.find_or_hub("teacher.ref_vae_path")
    if not recipe.distils or path is None:
        raise ConfigError(
            f"a reference VAE is needed, and the recipe has use_ref_vae={str(recipe.distils).lower()} and ref_vae_path="
            f"{'null' if path is None else path}. Set teacher.use_ref_vae=true and teacher.ref_vae_path to a folder in "
            "diffusers' format or a hub id."
        )
    return path
