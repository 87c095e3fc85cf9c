"""Large pictures tile by tile, equal to the whole picture up to rounding.

A tile is computed with a border (halo) as wide as the network looks around a pixel, and cut out of the result: no blending,
because there is nothing to blend. The border is 18 latent cells for every public variant, so the work grows by
(1 + 36 / tile)²: large tiles cost little, small ones save memory. One tile after another runs over the whole clip; for clips
that do not fit into memory, `strips` runs strips of each latent in turn.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyworld.core.errors import ConfigError
from tinyworld.core.variants import STAGES, TaehvSpec
from tinyworld.models.taehv.layout import BLOCKS_PER_STAGE
from tinyworld.models.taehv.model import Taehv

_MEMORY_REACH = 3
"""Pixels to each side that a memory block sees: three 3×3 convolutions, or one of 7×7."""


@dataclass(frozen=True)
class _Span:
    """Along one side, in latent cells: what is computed and which part of it is kept."""

    start: int
    stop: int
    first: int
    last: int


def decoder_halo(spec: TaehvSpec) -> int:
    """Latent cells around a cell that its decoded pixels depend on."""
    reach, cells = (1.0 if spec.decoder_block == "base" else 0.0), 1.0
    for grows in spec.decoder_space_upscale:
        reach += BLOCKS_PER_STAGE * _MEMORY_REACH * cells
        if spec.decoder_block == "super":
            reach += cells
        cells /= 2 if grows else 1
        if spec.decoder_block == "base":
            reach += cells
    return math.ceil(reach + cells)


def encoder_halo() -> int:
    """Latent cells around a cell whose pixels it depends on; the same for every architecture."""
    reach, pixels = 1, 1
    for _ in range(STAGES):
        reach += pixels
        pixels *= 2
        reach += BLOCKS_PER_STAGE * _MEMORY_REACH * pixels
    return math.ceil((reach + pixels) / pixels)


@torch.no_grad()
def decode_tiled(model: Taehv, latents: Tensor, tile: int, num_frames: int | None = None, clamp: bool = True) -> Tensor:
    """`model.decode`, `tile` × `tile` latent cells at a time (N L c h w → N T C H W).

    Latents may lie on another device than the model; frames come back to theirs. Raises what `decode` raises, and ConfigError
    for a tile of less than one cell.
    """
    model.check_latents(latents)
    halo, scale = decoder_halo(model.spec), model.spec.spatial_upscale
    return _tiled(
        lambda part: model.decode(part, num_frames, "sequential", clamp), model, latents, (1, scale), tile, halo
    )


@torch.no_grad()
def encode_tiled(model: Taehv, frames: Tensor, tile: int) -> Tensor:
    """`model.encode`, `tile` × `tile` latent cells at a time (N T C H W → N L c h w). See `decode_tiled`."""
    model.check_frames(frames)
    scale = model.spec.size_multiple
    return _tiled(lambda part: model.encode(part, "sequential"), model, frames, (scale, 1), tile, encoder_halo())


def checked_tile(tile: int) -> int:
    """Raise ConfigError for a tile of less than one latent cell."""
    if tile < 1:
        raise ConfigError(f"tile={tile} must be at least 1 latent cell; 64 or more wastes little on borders.")
    return tile


def _tiled(
    run: Callable[[Tensor], Tensor], model: Taehv, whole: Tensor, scales: tuple[int, int], tile: int, halo: int
) -> Tensor:
    """`scales`: pixels per latent cell of what goes in and of what comes out."""
    checked_tile(tile)
    device = next(model.parameters()).device
    into, out = scales
    height, width = (side // into for side in whole.shape[-2:])
    result: Tensor | None = None
    for y in _spans(height, tile, halo):
        for x in _spans(width, tile, halo):
            part = whole[..., _outside(y, into), _outside(x, into)]
            made = run(part.to(device))
            if result is None:
                result = torch.empty(*made.shape[:3], height * out, width * out, dtype=made.dtype, device=whole.device)
            core = made[..., _inside(y, out), _inside(x, out)]
            result[..., y.first * out : y.last * out, x.first * out : x.last * out] = core
    assert result is not None  # pictures have at least one cell
    return result


def _spans(cells: int, tile: int, halo: int) -> Iterator[_Span]:
    for first in range(0, cells, tile):
        last = min(first + tile, cells)
        yield _Span(max(first - halo, 0), min(last + halo, cells), first, last)


def _outside(span: _Span, scale: int) -> slice:
    """What is computed: the tile with its border."""
    return slice(span.start * scale, span.stop * scale)


def _inside(span: _Span, scale: int) -> slice:
    return slice((span.first - span.start) * scale, (span.last - span.start) * scale)
