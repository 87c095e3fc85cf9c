"""Large pictures tile by tile, equal to the whole picture up to rounding.

A tile is computed with a border (halo) as wide as the network looks around a pixel, and cut out of the result: no blending,
because there is nothing to blend. The border is 18 latent cells for every public variant, so the work grows by
(1 + 36 / tile)²: large tiles cost little, small ones save memory. `decode_tiled` and its kind run one tile after another over
the whole clip; `TiledEncoder` and `TiledDecoder` run all tiles over one latent after another, for `StreamingTaehv(…, tile=…)`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.variants import STAGES, TaehvSpec
from tinyworld.models.taehv.folded import FoldedDecoder, FoldedEncoder
from tinyworld.models.taehv.layout import BLOCKS_PER_STAGE
from tinyworld.models.taehv.model import Taehv, pad_to_multiple
from tinyworld.models.taehv.sequential import SequentialDecoder, SequentialEncoder

Net = TypeVar("Net")

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
def encode_tiled(model: Taehv, frames: Tensor, tile: int, round_trip: bool = False) -> Tensor:
    """`model.encode`, `tile` × `tile` latent cells at a time (N T C H W → N L c h w). See `decode_tiled`."""
    model.check_frames(frames)
    scale = model.spec.size_multiple
    return _tiled(
        lambda part: model.encode(part, "sequential", round_trip), model, frames, (scale, 1), tile, encoder_halo()
    )


@torch.no_grad()
def reconstruct_tiled(model: Taehv, frames: Tensor, tile: int) -> Tensor:
    """`model.reconstruct`, `tile` × `tile` latent cells at a time: any height and width. See `decode_tiled`."""
    model.check_frames(frames, any_size=True)
    height, width = frames.shape[-2:]
    latents = encode_tiled(model, pad_to_multiple(frames, model.spec.size_multiple), tile, round_trip=True)
    return decode_tiled(model, latents, tile, frames.shape[1])[..., :height, :width]


class TiledEncoder:
    """`SequentialEncoder` over pictures that are too large to compute at once: one for each tile, with its border.

    What a clip leaves behind between frames is kept for every tile with its border, so it grows as the work does; what one step
    needs beside it is that of one tile.
    """

    def __init__(self, blocks: nn.Sequential | FoldedEncoder, spec: TaehvSpec, tile: int) -> None:
        self.blocks, self.spec = blocks, spec
        self.tiles: _Tiles[SequentialEncoder] = _Tiles(tile, encoder_halo(), spec.size_multiple, 1)

    def reset(self) -> None:
        """Start a new clip."""
        self.tiles.parts.clear()

    def push(self, frames: Tensor) -> Tensor:
        """See `SequentialEncoder.push`."""
        return self.tiles.run(
            frames, lambda: SequentialEncoder(self.blocks, self.spec), lambda net, part: net.push(part)
        )

    def finish(self, round_trip: bool = False) -> Tensor:
        """See `SequentialEncoder.finish`."""
        if not self.tiles.parts:
            return SequentialEncoder(self.blocks, self.spec).finish(round_trip)  # which refuses a clip without frames
        latents = self.tiles.assemble(net.finish(round_trip) for net in self.tiles.parts)
        self.reset()
        return latents


class TiledDecoder:
    """`SequentialDecoder` likewise."""

    def __init__(
        self, blocks: nn.Sequential | FoldedDecoder, spec: TaehvSpec, num_latents: int | None, tile: int
    ) -> None:
        self.make = lambda: SequentialDecoder(blocks, spec, num_latents)
        self.make()  # refuses what every tile would refuse
        self.num_latents = num_latents
        self.tiles: _Tiles[SequentialDecoder] = _Tiles(tile, decoder_halo(spec), 1, spec.spatial_upscale)

    @property
    def latents_in(self) -> int:
        return self.tiles.parts[0].latents_in if self.tiles.parts else 0

    def reset(self) -> None:
        """Start a new clip of the same length."""
        self.tiles.parts.clear()

    def push(self, latents: Tensor) -> Tensor:
        """See `SequentialDecoder.push`."""
        return self.tiles.run(latents, self.make, lambda net, part: net.push(part))


class _Tiles(Generic[Net]):
    """A network for each tile of a clip's pictures. `into`, `out`: pixels per latent cell of what goes in and comes out."""

    def __init__(self, tile: int, halo: int, into: int, out: int) -> None:
        self.tile, self.halo, self.into, self.out = checked_tile(tile), halo, into, out
        self.parts: list[Net] = []
        self.sides = (0, 0)

    def run(self, whole: Tensor, make: Callable[[], Net], push: Callable[[Net, Tensor], Tensor]) -> Tensor:
        sides = whole.shape[-2] // self.into, whole.shape[-1] // self.into
        if self.parts and sides != self.sides:
            raise DataError(f"the picture size changes from {self.sides} to {sides} latent cells in the clip")
        self.sides = sides
        places = list(self._places())
        if not self.parts:
            self.parts = [make() for _ in places]
        cuts = (whole[..., _outside(y, self.into), _outside(x, self.into)] for y, x in places)
        return self.assemble(push(net, cut) for net, cut in zip(self.parts, cuts, strict=True))

    def assemble(self, made: Iterable[Tensor]) -> Tensor:
        """What the tiles made, each cut to its core, as one picture."""
        result: Tensor | None = None
        for (y, x), part in zip(self._places(), made, strict=True):
            if result is None:
                result = part.new_empty(*part.shape[:3], *(side * self.out for side in self.sides))
            core = part[..., _inside(y, self.out), _inside(x, self.out)]
            result[..., y.first * self.out : y.last * self.out, x.first * self.out : x.last * self.out] = core
        assert result is not None  # pictures have at least one cell
        return result

    def _places(self) -> Iterator[tuple[_Span, _Span]]:
        height, width = self.sides
        return product(_spans(height, self.tile, self.halo), _spans(width, self.tile, self.halo))


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
