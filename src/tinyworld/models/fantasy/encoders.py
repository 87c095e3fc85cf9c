"""Text and image encoders of the Wan models, which fill the cache of conditions; no training step runs them.

Both are read from a folder in diffusers' layout with `text_encoder/`, `tokenizer/` and `image_encoder/`, as in
Wan-AI/Wan2.1-I2V-14B-480P-Diffusers: umT5-xxl and CLIP ViT-H, the same as Wan2.1-Fun's.
"""

import hashlib
import html
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyworld.core.errors import DataError, MissingExtraError, MissingFileError, WeightsError
from tinyworld.core.files import find, sha256

KEY = "model.encoders_path"
TEXT_TOKENS = 512
IMAGE_SIZE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, red, green and blue."""


class TextEncoder:
    """umT5 and its tokenizer. digest: SHA-256 over their files, for the keys of a cache. Made by `open_text_encoder`."""

    def __init__(self, model: Any, tokenizer: Any, digest: str) -> None:
        self.model, self.tokenizer, self.digest = model, tokenizer, digest

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """N prompts → N 512 4096 on the CPU, zeros behind each prompt, in the model's number type.

        Prompts are cleaned; of longer ones the first 512 tokens count.
        """
        tokens = self.tokenizer(
            [cleaned(prompt) for prompt in prompts],
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = next(self.model.parameters()).device
        mask = tokens["attention_mask"].to(device)
        hidden = self.model(tokens["input_ids"].to(device), mask).last_hidden_state
        return hidden.masked_fill(~mask.bool()[..., None], 0).cpu()


class ImageEncoder:
    """CLIP's picture half. digest: SHA-256 over its files, for the keys of a cache. Made by `open_image_encoder`."""

    def __init__(self, model: Any, digest: str) -> None:
        self.model, self.digest = model, digest

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """N 3 H W in [0, 1] → N 257 1280 on the CPU, in the model's number type: tokens before CLIP's last layer."""
        first = next(self.model.parameters())
        hidden = self.model(prepared(pictures).to(first.device, first.dtype), output_hidden_states=True).hidden_states
        return hidden[-2].cpu()


def cleaned(prompt: str) -> str:
    """HTML entities resolved, twice as Wan does, and white space of any kind and length as one space. Broken encodings are
    not mended (Wan's own code does, with ftfy)."""
    return " ".join(html.unescape(html.unescape(prompt)).split())


def prepared(pictures: Tensor) -> Tensor:
    """N 3 H W in [0, 1] → N 3 224 224 float32, standardised. The whole picture, squeezed, as Wan and Wan-Fun do; diffusers'
    Wan pipeline cuts its sides off."""
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        raise DataError(
            f"pictures are {tuple(pictures.shape)} of {pictures.dtype}; they must be floats, N 3 H W in [0, 1]."
        )
    small = F.interpolate(pictures.float(), (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=False)
    mean, deviation = (small.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (small - mean) / deviation


def open_text_encoder(
    path: str | Path, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Raises MissingExtraError without transformers, MissingFileError, and WeightsError for weights that are incomplete."""
    transformers = _transformers()
    weights, words = _part(path, "text_encoder"), _part(path, "tokenizer")
    model = _load(transformers.UMT5EncoderModel, weights, dtype, tied=("encoder.embed_tokens.weight",))
    # Wan's config denies the tie, and transformers 5 then leaves the encoder's own table empty (huggingface/transformers#43992).
    model.encoder.embed_tokens = model.shared
    tokenizer = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
    return TextEncoder(model.to(device), tokenizer, _digest(weights, words))


def open_image_encoder(
    path: str | Path, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> ImageEncoder:
    """Raises MissingExtraError without transformers, MissingFileError, and WeightsError for weights that are incomplete."""
    transformers = _transformers()
    weights = _part(path, "image_encoder")
    return ImageEncoder(_load(transformers.CLIPVisionModel, weights, dtype).to(device), _digest(weights))


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError(
            "Text and image encoders need transformers, which is not installed: pip install 'tinyworld[fantasy]'. Training "
            "without text and CLIP tokens, or from a cache that is filled already, does not need it."
        ) from error


def _part(path: str | Path, name: str) -> Path:
    folder = find(path, what="folder of encoders", key=KEY)
    if (folder / name).is_dir():
        return folder / name
    there = ", ".join(sorted(item.name for item in folder.iterdir())) if folder.is_dir() else "a single file"
    raise MissingFileError(
        f"{folder} has no {name}/; it holds {there or 'nothing'}. Encoders are read in diffusers' layout (text_encoder/, "
        "tokenizer/, image_encoder/), as in the repository Wan-AI/Wan2.1-I2V-14B-480P-Diffusers; the original files "
        f"models_t5_umt5-xxl-enc-bf16.pth and models_clip_….pth are not. Download those three folders (key: {KEY})."
    )


def _load(cls: Any, folder: Path, dtype: torch.dtype, tied: Sequence[str] = ()) -> Any:
    """A frozen model of transformers, whose own loading only warns of weights that it makes up. `tied` are set afterwards."""
    try:
        model, loaded = cls.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{folder} cannot be loaded as {cls.__name__}: {error} Copy it again (key: {KEY})."
        ) from error
    absent = sorted({*map(str, loaded["missing_keys"]), *map(str, loaded["mismatched_keys"])} - set(tied))
    if absent:
        raise WeightsError(
            f"The weights in {folder} are not those of its {cls.__name__}: {len(absent)} tensors are missing or of another "
            f"shape ({', '.join(absent[:5])}). Copy it again (key: {KEY}); nothing is filled in."
        )
    return model.requires_grad_(False).eval()


def _digest(*folders: Path) -> str:
    """SHA-256 over the names and content of all files."""
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())
    lines = [f"{file.parent.name}/{file.name} {sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
