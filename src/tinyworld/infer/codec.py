"""Frames ⇄ latents for video worlds, by the Wan VAE or by a TAEHV that speaks its latents.

Latents are laid out as the transformer takes them, N 16 t h w, and normalised as Wan's pipelines do.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tinyworld.core.errors import DataError, FramePlanError, WeightsError
from tinyworld.core.files import find, sha256
from tinyworld.core.frames import wan_latent_count
from tinyworld.core.world_sizes import SPACE_STEP, TIME_STEP
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.weights import CONFIG_NAME, states_architecture, weight_file
from tinyworld.models.teachers import Teacher, open_teacher, read_facts

KEY = "model.codec_path"
CHANNELS = 16


class Codec(Protocol):
    """digest: SHA-256 over all that decides the latents, for the keys of a cache. Never trained; under no autocast."""

    digest: str

    def encode(self, frames: Tensor) -> Tensor:
        """N T 3 H W in [0, 1], T = 4k + 1, H and W multiples of 8 → N 16 t h w float32 on the same device.

        Raises FramePlanError and DataError with the nearest valid counts and sizes.
        """

    def decode(self, latents: Tensor, frames: int) -> Tensor:
        """N 16 t h w → N T 3 H W float32 in [0, 1] on the same device, T = frames, which must be 4(t - 1) + 1."""


class VaeCodec:
    """The Wan VAE: the mean of its posterior."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.digest = teacher.digest

    def encode(self, frames: Tensor) -> Tensor:
        return self.teacher.encode(frames.float()).mean.transpose(1, 2)

    def decode(self, latents: Tensor, frames: int) -> Tensor:
        _check_count(latents, frames)
        return self.teacher.decode(latents.transpose(1, 2)).clamp(0, 1)


class TaehvCodec:
    """A TAEHV. Its first latent is made of four frames, not of the first alone, and clips end with their last frame repeated:
    the latents of a first frame encoded alone and of the clip are about the same picture, not equal."""

    def __init__(self, model: Taehv, digest: str, dtype: torch.dtype, device: torch.device | str) -> None:
        self.model = model.to(device).requires_grad_(False).eval().optimize(dtype)
        self.digest, self.device = digest, torch.device(device)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        wan_latent_count(frames.shape[1])
        with torch.autocast(self.device.type, enabled=False):
            latents = self.model.encode(frames.to(self.device), mode="sequential")
        return latents.float().to(frames.device).transpose(1, 2)

    @torch.no_grad()
    def decode(self, latents: Tensor, frames: int) -> Tensor:
        _check_count(latents, frames)
        with torch.autocast(self.device.type, enabled=False):
            shown = self.model.decode(latents.transpose(1, 2).to(self.device), mode="sequential")
        return shown.float().to(latents.device)


def open_codec(
    path: str | Path, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> VaeCodec | TaehvCodec:
    """The codec at `path`: a folder of diffusers' AutoencoderKLWan (or one with it in `vae/`), or a TAEHV for Wan 2.1.

    Raises MissingFileError, and WeightsError for any other model.
    """
    place = find(path, what="codec", key=KEY)
    if "_class_name" in _config(place) | _config(place / "vae"):
        facts = read_facts(place)
        if (facts.kind, facts.latent_channels, facts.spatial_compression) != ("wan", CHANNELS, SPACE_STEP):
            raise WeightsError(_refused(place, f"a {facts.class_name} with {facts.latent_channels} latent channels"))
        return VaeCodec(open_teacher(place, dtype=dtype, convention="normalised", device=device))
    model = Taehv.from_pretrained(place, None if states_architecture(place) else "taew2_1")
    spec = model.spec
    law = (spec.latent_channels, spec.t_down, spec.t_up, spec.flavour, spec.size_multiple)
    if law != (CHANNELS, TIME_STEP, TIME_STEP, "plain", SPACE_STEP):
        raise WeightsError(_refused(place, f"a TAEHV with {spec.latent_channels} channels for {spec.flavour} latents"))
    digest = hashlib.sha256(f"taehv {sha256(weight_file(place))} {dtype}".encode()).hexdigest()
    return TaehvCodec(model, digest, dtype, device)


def _config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder, {} when there is none; who reads the model refuses a damaged one."""
    try:
        values = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _refused(place: Path, what: str) -> str:
    return (
        f"{place} holds {what}. A world's latents are those of Wan 2.1: {CHANNELS} channels, {TIME_STEP} frames and "
        f"{SPACE_STEP} × {SPACE_STEP} pixels each. Give its VAE in diffusers' format, or a TAEHV for it such as taew2_1 "
        f"(key: {KEY})."
    )


def _check_count(latents: Tensor, frames: int) -> None:
    if latents.ndim != 5 or latents.shape[1] != CHANNELS:
        raise DataError(f"latents are {'×'.join(map(str, latents.shape))}; they must be N {CHANNELS} t h w.")
    held = TIME_STEP * (latents.shape[2] - 1) + 1
    if frames != held:
        raise FramePlanError(f"{latents.shape[2]} latents hold {held} frames, not {frames}.", (held,))
