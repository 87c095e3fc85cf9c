"""The reference VAE of a recipe: opened, or only identified."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.errors import ConfigError
from tinyworld.tasks.taehv.fit import check_fit

if TYPE_CHECKING:
    from tinyworld.models.teachers import Teacher
    from tinyworld.models.teachers.latents import Convention

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def open_reference(recipe: TaehvRecipe, device: torch.device | str = "cpu") -> "Teacher":
    """Load the reference VAE of a recipe in mode distil, frozen.

    Raises ConfigError when the recipe has none; MissingFileError, WeightsError and ConfigError as `open_teacher`.
    """
    from tinyworld.models.teachers import open_teacher, read_facts

    teacher, path = recipe.teacher, _path(recipe)
    check_fit(read_facts(path), recipe.spec(), recipe.model.variant)
    return open_teacher(
        path,
        dtype=DTYPES[teacher.ref_vae_dtype],
        convention=_convention(recipe),
        tiling=teacher.ref_vae_tiling,
        slicing=teacher.ref_vae_slicing,
        device=device,
    )


def reference_digest(recipe: TaehvRecipe) -> str:
    """`open_reference(recipe).digest`, worked out from the files without loading the model. Raises as `open_reference`."""
    from tinyworld.models.teachers.facts import facts_of, read_config
    from tinyworld.models.teachers.place import locate
    from tinyworld.models.teachers.weights import digest, weight_files

    teacher, place = recipe.teacher, locate(_path(recipe))
    config = read_config(place.folder)
    facts = facts_of(place.folder, config, _convention(recipe))
    files = weight_files(place.with_weights())
    dtype = DTYPES[teacher.ref_vae_dtype]
    return digest(facts, config, files, dtype, teacher.ref_vae_tiling, teacher.ref_vae_slicing)


def _path(recipe: TaehvRecipe) -> Path | str:
    path = recipe.find_or_hub("teacher.ref_vae_path")
    if not recipe.distils or path is None:
        raise ConfigError(
            f"a reference VAE is needed, and the recipe has use_ref_vae={str(recipe.distils).lower()} and ref_vae_path="
            f"{'null' if path is None else path}. Set teacher.use_ref_vae=true and teacher.ref_vae_path to a folder in "
            "diffusers' format or a hub id."
        )
    return path


def _convention(recipe: TaehvRecipe) -> "Convention | None":
    convention = recipe.teacher.latent_convention
    return None if convention == "auto" else convention
