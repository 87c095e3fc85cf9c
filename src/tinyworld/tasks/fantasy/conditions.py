"""The cache of a recipe's conditions: opened for training, which loads no encoder for it, or for filling."""

import hashlib
from pathlib import Path
from typing import NoReturn

import torch

from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.errors import ConfigError, DataError, MissingFileError
from tinyworld.core.world_sizes import BackboneSpec
from tinyworld.data.video_digests import VideoDigests
from tinyworld.data.worlds.condition_cache import COMMAND, ConditionCache, Makers, read_makers
from tinyworld.infer.codec import open_codec
from tinyworld.models.teachers import teacher_digest

PRECISION = torch.float32
"""Of the codec that fills a cache, on every device: one folder never holds latents of two precisions."""
TEXT_PARTS, IMAGE_PARTS = ("text_encoder", "tokenizer"), ("image_encoder",)


def cache_folder(recipe: FantasyRecipe) -> Path | None:
    """None for a recipe without a cache."""
    folder = recipe.data.condition_cache
    return None if folder is None else Path(folder).expanduser().absolute()


def takes_encoders(spec: BackboneSpec) -> bool:
    """Whether a transformer is given umT5's text and CLIP's image tokens; the small one is not."""
    return spec.image_dim is not None


def condition_cache(recipe: FantasyRecipe) -> ConditionCache | None:
    """The cache that training reads; None for a recipe without one.

    Codec and encoders that the recipe names have to be those that filled it; what it does not name is not looked for.
    Raises DataError for a folder of others, or one that was never filled.
    """
    root, spec = cache_folder(recipe), recipe.spec().backbone
    if root is None:
        return None
    known = read_makers(root)
    if known is None or known.codec is None:
        _refuse(recipe, f"{root} was never filled")
    if takes_encoders(spec) and None in (known.text, known.image):
        _refuse(recipe, f"{root} holds no text and image tokens, which size={recipe.model.size} takes")
    check_makers(root, known, named_makers(recipe, root, Makers(known.codec)))
    makers = known if takes_encoders(spec) else Makers(known.codec)
    return ConditionCache(root, makers, spec.text_tokens)


def _refuse(recipe: FantasyRecipe, what: str) -> NoReturn:
    needed = (
        "model.codec_path and model.encoders_path" if takes_encoders(recipe.spec().backbone) else "model.codec_path"
    )
    raise DataError(
        f"{what}. Fill it with {COMMAND} and the same flags, which also needs {needed} (key: data.condition_cache)."
    )


def filling_cache(recipe: FantasyRecipe) -> ConditionCache:
    """The cache that the recipe's codec and encoders fill. Raises ConfigError for a recipe that does not name them, DataError
    for a folder that others have filled, MissingFileError and WeightsError."""
    spec = recipe.spec().backbone
    root = cache_folder(recipe)
    wanted = {"model.codec_path": recipe.model.codec_path, "data.condition_cache": root}
    if takes_encoders(spec):
        wanted["model.encoders_path"] = recipe.model.encoders_path
    absent = [key for key, value in wanted.items() if value is None]
    if absent or root is None:
        raise ConfigError(
            f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not set: a cache is filled by a codec (the Wan VAE's "
            "folder, or a TAEHV), and for the published transformer by its text and image encoders too, into the folder "
            "data.condition_cache."
        )
    makers = named_makers(recipe, root, Makers())
    known = read_makers(root)
    if known is not None:
        check_makers(root, known, makers)
    return ConditionCache(root, makers, spec.text_tokens)


def named_makers(recipe: FantasyRecipe, root: Path, otherwise: Makers) -> Makers:
    """Digests of the codec and encoders that the recipe names, worked out from their files; else those of `otherwise`."""
    codec, encoders = recipe.find("model.codec_path"), recipe.find("model.encoders_path")
    text, image = otherwise.text, otherwise.image
    if encoders is not None and takes_encoders(recipe.spec().backbone):
        files = VideoDigests(root / "encoders")  # remembered, as for videos: umT5 alone is 11 GB
        text, image = encoder_digest(encoders, TEXT_PARTS, files), encoder_digest(encoders, IMAGE_PARTS, files)
    return Makers(otherwise.codec if codec is None else codec_digest(codec), text, image)


def check_makers(root: Path, known: Makers, named: Makers) -> None:
    """Raise DataError when a folder was filled by others than the recipe names."""
    others = known.differing(named)
    if others:
        keys = {
            "codec": "model.codec_path",
            "text encoder": "model.encoders_path",
            "image encoder": "model.encoders_path",
        }
        named_by = " and ".join(dict.fromkeys(keys[name] for name in others))
        raise DataError(
            f"{root} was filled by another {' and another '.join(others)} than {named_by} names, and what two of them make "
            f"is never mixed. Fill another folder with {COMMAND} --condition_cache DIR and train with that, give the "
            f"weights that filled this one ({named_by}), or in training leave {named_by} out."
        )


def codec_digest(path: Path) -> str:
    """`open_codec(path, PRECISION).digest`; the VAE, which is large, is not loaded for it."""
    configs = [folder / "config.json" for folder in (path, path / "vae")]
    if any(file.is_file() and b'"_class_name"' in file.read_bytes() for file in configs):
        return teacher_digest(path, dtype=PRECISION, convention="normalised")
    return open_codec(path, PRECISION).digest


def encoder_digest(root: Path, parts: tuple[str, ...], remembered: VideoDigests) -> str:
    """SHA-256 over the names and content of all files of some folders, as an opened encoder states it."""
    absent = [part for part in parts if not (root / part).is_dir()]
    if absent:
        raise MissingFileError(
            f"{root} has no {'/ and no '.join(absent)}/. Encoders are read in diffusers' layout (text_encoder/, tokenizer/, "
            "image_encoder/), as in the repository Wan-AI/Wan2.1-I2V-14B-480P-Diffusers (key: model.encoders_path)."
        )
    files = sorted(file for part in parts for file in (root / part).rglob("*") if file.is_file())
    lines = [f"{file.parent.name}/{file.name} {remembered.digest(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
