"""Dense prediction head: features of four geometry blocks → one map per video frame, a piece of the clip at a time.

DPT (arXiv 2103.13413) as in VGGT (arXiv 2503.11651), with causal upsampling in time on each level (FantasyWorld, arXiv
2509.21657). Each level is brought to its resolution (×4, ×2, ×1, /2 of the token grid, deepest block first) and to `dpt_fused`
channels, then upsampled in time, then the levels are fused from the coarsest to the finest for each video frame.
Under autocast the last convolution and the activations stay in fp32.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyworld.core.world_sizes import PATCH, SPACE_STEP, BranchSpec
from tinyworld.models.fantasy.temporal import (
    LINEAR_STD,
    RESIDUAL_SCALE,
    TemporalUpsampler,
    UpsamplerPast,
    draw_kept_variance,
    draw_normal,
    without_autocast,
)

TOKEN_ROWS, TOKEN_COLUMNS = PATCH[1] * SPACE_STEP, PATCH[2] * SPACE_STEP
"""Pixels of one token."""
POSITION_SCALE = 0.1
POSITION_PERIODS = (4.0, 1 / 8)
"""Longest and shortest wave of the positional term, in diagonals of the picture."""

Pasts = tuple[UpsamplerPast | None, ...]


def depth_of(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Depth exp(a) and confidence 1 + exp(b), each fp32 B F H W, from the head's B 2 F H W.

    Not clamped: a clamp would give no gradient just where the value must come back. Beyond a = 88 it is infinite.
    """
    value, confidence = raw.float().unbind(1)
    return value.exp(), 1 + confidence.exp()


def points_of(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Points sign(a)(exp|a| - 1), fp32 B F H W 3, and confidence 1 + exp(b), fp32 B F H W, from the head's B 4 F H W."""
    raw = raw.float()
    value = raw[:, :3].movedim(1, -1)
    # With sign() the gradient at exactly zero would be zero instead of one. The branch not taken never overflows.
    return torch.where(value >= 0, value.expm1(), -(-value).expm1()), 1 + raw[:, 3].exp()


def position_term(width: int, rows: int, cols: int, device: torch.device) -> Tensor:
    """Sines and cosines of where a cell's centre is: width rows cols, fp32, within ±POSITION_SCALE; width divisible by 4.

    Positions are measured from the picture's centre in units of its diagonal: the same place has the same term at every
    resolution, and a square stays a square whatever the aspect ratio.
    """
    diagonal = (rows**2 + cols**2) ** 0.5
    longest, shortest = POSITION_PERIODS
    steps = torch.linspace(0, 1, width // 4, device=device)
    waves = 2 * torch.pi / longest * (longest / shortest) ** steps
    down = (torch.arange(rows, device=device) + 0.5 - rows / 2) / diagonal
    along = (torch.arange(cols, device=device) + 0.5 - cols / 2) / diagonal
    down = waves[:, None, None] * down[:, None].expand(rows, cols)
    along = waves[:, None, None] * along.expand(rows, cols)
    return POSITION_SCALE * torch.cat((along.sin(), along.cos(), down.sin(), down.cos()))


def with_position(x: Tensor) -> Tensor:
    """Adds the positional term to N C H W, in place: what made x needs no x for its gradient."""
    return x.add_(position_term(x.shape[1], x.shape[2], x.shape[3], x.device).to(x.dtype))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """x plus two 3×3 convolutions, each behind a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x)), inplace=True))

    def init_weights(self, generator: torch.Generator) -> None:
        draw_kept_variance(self.first, generator)
        draw_kept_variance(self.second, generator, RESIDUAL_SCALE)


class Fusion(nn.Module):
    """One step of the refinement path: takes in a level (`joins`), refines and enlarges to the next level's size."""

    def __init__(self, width: int, joins: bool) -> None:
        super().__init__()
        self.join = ResidualUnit(width) if joins else None
        self.refine = ResidualUnit(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, level: Tensor | None, size: tuple[int, int]) -> Tensor:
        if self.join is not None and level is not None:
            x = x + self.join(level)
        # The 1×1 convolution and the interpolation commute: before it costs a quarter.
        return resized(self.out(self.refine(x)), size)

    def init_weights(self, generator: torch.Generator) -> None:
        if self.join is not None:
            self.join.init_weights(generator)
        self.refine.init_weights(generator)
        draw_kept_variance(self.out, generator)


class DptHead(nn.Module):
    """Features of four blocks → `outputs` raw channels per pixel of every video frame (2 for depth, 4 for points).

    in_width: channels of the features. chunk: latent frames worked on at a time, bounds memory and changes no result.
    checkpointing: keep only each piece's inputs and compute it again in the backward pass, clip by clip.
    """

    def __init__(
        self, in_width: int, spec: BranchSpec, outputs: int, chunk: int = 2, checkpointing: bool = False
    ) -> None:
        super().__init__()
        widths, fused = spec.dpt_channels, spec.dpt_fused
        self.chunk = chunk
        self.checkpointing = checkpointing
        self.norm = nn.LayerNorm(in_width)
        self.project = nn.ModuleList(nn.Linear(in_width, width) for width in widths)
        self.resize = nn.ModuleList(
            (
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            )
        )
        self.reduce = nn.ModuleList(nn.Conv2d(width, fused, 3, padding=1, bias=False) for width in widths)
        self.upsample = nn.ModuleList(TemporalUpsampler(fused) for _ in widths)
        self.fuse = nn.ModuleList(Fusion(fused, joins=k < 3) for k in range(len(widths)))
        self.out1 = nn.Conv2d(fused, fused // 2, 3, padding=1)
        self.out2 = nn.Conv2d(fused // 2, fused // 4, 3, padding=1)
        self.out3 = nn.Conv2d(fused // 4, outputs, 1)

    def forward(self, levels: Sequence[Tensor], grid: tuple[int, int, int]) -> Tensor:
        """Raw values fp32 B outputs F H W, F = 4(t-1)+1, H = 16 rows, W = 16 columns; see `depth_of` and `points_of`.

        levels: B t P in_width of four blocks, deepest first, P = rows·columns patch tokens (no special tokens).
        grid: t, rows, columns. Raises ValueError when they do not fit.
        """
        frames, rows, cols = grid
        if len(levels) != 4 or any(level.shape[1:3] != (frames, rows * cols) for level in levels):
            shapes = [tuple(level.shape) for level in levels]
            raise ValueError(f"the head needs 4 levels of B {frames} {rows * cols} C for the grid {grid}, got {shapes}")
        if not self.checkpointing:
            return self._clips(levels, grid)
        clips = range(len(levels[0]))  # one at a time: a piece's memory is then that of one clip
        return torch.cat([self._clips([level[i : i + 1] for level in levels], grid) for i in clips])

    def _clips(self, levels: Sequence[Tensor], grid: tuple[int, int, int]) -> Tensor:
        frames, rows, cols = grid
        pasts: Pasts = (None, None, None, None)
        raw = []
        for start in range(0, frames, self.chunk):
            pieces = tuple(level[:, start : start + self.chunk] for level in levels)
            part, pasts = self._run(pieces, rows, cols, pasts)
            raw.append(part)
        return torch.cat(raw, 2)

    def _run(self, pieces: Sequence[Tensor], rows: int, cols: int, pasts: Pasts) -> tuple[Tensor, Pasts]:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return self._piece(pieces, rows, cols, pasts)
        again = checkpoint(self._piece, pieces, rows, cols, pasts, use_reentrant=False, preserve_rng_state=False)
        return cast(tuple[Tensor, Pasts], again)

    def _piece(self, pieces: Sequence[Tensor], rows: int, cols: int, pasts: Pasts) -> tuple[Tensor, Pasts]:
        """Raw values of some latent frames, and what the next ones need of them."""
        levels: list[Tensor] = []
        seen: list[UpsamplerPast | None] = []
        for k, (piece, past) in enumerate(zip(pieces, pasts, strict=True)):
            maps = self._level(k, piece, rows, cols)
            maps = maps.unflatten(0, piece.shape[:2]).transpose(1, 2)
            maps, after = self.upsample[k](maps, past)
            seen.append(after)
            levels.append(maps.transpose(1, 2).flatten(0, 1))
        raw = self._tail(levels, rows, cols)
        return raw.unflatten(0, (pieces[0].shape[0], -1)).transpose(1, 2), tuple(seen)

    def _level(self, k: int, tokens: Tensor, rows: int, cols: int) -> Tensor:
        """B t P in_width → B·t fused h w at the level's resolution."""
        x = self.project[k](self.norm(tokens)).flatten(0, 1)
        x = x.transpose(1, 2).unflatten(2, (rows, cols))
        return self.reduce[k](self.resize[k](with_position(x)))

    def _tail(self, levels: Sequence[Tensor], rows: int, cols: int) -> Tensor:
        """N fused h w of the four levels → N outputs H W in fp32."""
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        x = self.fuse[3](levels[3], None, sizes[2])
        x = self.fuse[2](x, levels[2], sizes[1])
        x = self.fuse[1](x, levels[1], sizes[0])
        x = self.fuse[0](x, levels[0], (2 * sizes[0][0], 2 * sizes[0][1]))
        x = resized(self.out1(x), (TOKEN_ROWS * rows, TOKEN_COLUMNS * cols))
        x = F.relu(self.out2(with_position(x)), inplace=True)
        with without_autocast(x):
            return F.conv2d(x.float(), self.out3.weight.float(), self.out3.get_parameter("bias").float())

    def init_weights(self, generator: torch.Generator) -> None:
        """Sets every parameter; the raw values start near zero: depth near 1, points near 0, confidence near 2."""
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)
        for project in self.project:
            draw_normal(project.get_parameter("weight"), LINEAR_STD, generator)
            nn.init.zeros_(project.get_parameter("bias"))
        for conv in (self.resize[0], self.resize[1], self.resize[3], *self.reduce, self.out1, self.out2):
            draw_kept_variance(conv, generator)
        for part in (*self.upsample, *self.fuse):
            cast(TemporalUpsampler | Fusion, part).init_weights(generator)
        draw_kept_variance(self.out3, generator, RESIDUAL_SCALE)
