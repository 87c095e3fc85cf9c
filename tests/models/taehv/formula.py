"""Weights by formula (../shared/golden/README.md), so that tests need no weight file."""

import zlib
from dataclasses import replace

import numpy as np
import torch

from tinyworld.core.variants import VARIANTS, TaehvSpec
from tinyworld.models.taehv import Taehv

GAIN = 0.9


def formula_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor of a public key; unlike initial weights it makes every block do something."""
    index = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float64)
    wave = np.sin(index * 12.9898 + zlib.crc32(name.encode()) % 997) * 43758.5453
    unit = wave - np.floor(wave)
    spread = 2 * GAIN * np.sqrt(3 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
    return torch.from_numpy((unit - 0.5) * spread).float().reshape(shape)


def formula_model(spec: TaehvSpec) -> Taehv:
    """A model of any architecture with formula weights; outputs spread over [0, 1] and somewhat beyond."""
    model = Taehv(spec)
    tensors = {name: formula_tensor(name, tuple(value.shape)) for name, value in model.state_dict().items()}
    tensors[f"encoder.{len(model.encoder) - 1}.weight"] *= 8
    tensors[f"decoder.{len(model.decoder) - 1}.weight"] *= 4
    tensors[f"decoder.{len(model.decoder) - 1}.bias"] += 0.5
    model.load_state_dict(tensors)
    return model.eval()


def small_spec(name: str) -> TaehvSpec:
    """A public variant with few channels."""
    return replace(VARIANTS[name], encoder_width=8, decoder_widths=(16, 8, 8, 8))


def clip(frames: int, height: int = 32, width: int = 32, clips: int = 1, seed: int = 0) -> torch.Tensor:
    """Random frames N T 3 H W in [0, 1]."""
    return torch.rand(clips, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))
