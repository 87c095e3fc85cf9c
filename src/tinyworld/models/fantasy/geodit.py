"""A block of the geometry branch: attention inside each latent frame, attention over all frames, one MLP.

Modulated by the diffusion time through the frozen transformer's own six vectors (Wan: shift, scale, gate of self-attention;
shift, scale, gate of the MLP) plus a learned table of six vectors a block. Wan's shift and scale of self-attention go to both
attentions here, those of the MLP to the MLP, each with a row of its own in the table; Wan's gates are not used: LayerScale
plays their part. A normalised input x becomes x·(1 + scale) + shift, as in Wan, whose attention weights these blocks start with.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyworld.models.fantasy.attention import SelfAttention, Table
from tinyworld.models.fantasy.initial import init_layers

LAYER_SCALE = 0.01
SHIFT, SCALE, MLP_SHIFT, MLP_SCALE = 0, 1, 3, 4
"""Places in Wan's six vectors."""
ATTENTION_VECTORS = (SHIFT, SCALE, SHIFT, SCALE)
"""Which of Wan's vectors each row of an attention part's table is added to: frame shift, scale, global shift, scale."""
MLP_VECTORS = (MLP_SHIFT, MLP_SCALE)


class WanSelfAttention(Protocol):
    """What is read of the self-attention of a Wan block (diffusers' WanAttention)."""

    to_q: nn.Linear
    to_k: nn.Linear
    to_v: nn.Linear
    to_out: nn.ModuleList


class GeoAttention(nn.Module):
    """The first part of a block, up to its MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(len(ATTENTION_VECTORS), width))
        self.norm_frame = nn.LayerNorm(width, eps=1e-6)
        self.frame = SelfAttention(width, heads, norm=True)
        self.scale_frame = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.norm_all = nn.LayerNorm(width, eps=1e-6)
        self.all = SelfAttention(width, heads, norm=True)
        self.scale_all = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, hidden: Tensor, time: Tensor, tables: tuple[Table, Table]) -> tuple[Tensor, Tensor]:
        """Hidden B t Pg D after frame attention (what is collected), and after global attention.

        time: Wan's vectors B 6 D. tables: positions of the Pg tokens of a frame, and of all t·Pg.
        """
        vectors = _vectors(self.modulation, time, ATTENTION_VECTORS, hidden)
        inputs = _modulated(self.norm_frame(hidden), vectors[0], vectors[1])
        found = self.frame(inputs.flatten(0, 1), tables[0]).view_as(hidden)
        framed = hidden + self.scale_frame * found
        inputs = _modulated(self.norm_all(framed), vectors[2], vectors[3])
        found = self.all(inputs.flatten(1, 2), tables[1]).view_as(hidden)
        return framed, framed + self.scale_all * found


class GeoMlp(nn.Module):
    """The second part of a block."""

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(len(MLP_VECTORS), width))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)
        self.scale = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.activation = nn.GELU(approximate="tanh")

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """Hidden B t Pg D to the same; time: Wan's vectors B 6 D."""
        vectors = _vectors(self.modulation, time, MLP_VECTORS, hidden)
        inputs = _modulated(self.norm(hidden), vectors[0], vectors[1])
        # LayerScale in the layer's weights: no output of the layer is needed for a gradient, so none is kept or computed again.
        down, scale = self.down, self.scale
        found = functional.linear(self.activation(self.up(inputs)), scale[:, None] * down.weight, scale * down.bias)
        return hidden + found


class GeoBlock(nn.Module):
    """`attend` and `feed`, called one by one: between them the block may exchange with the video's."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.attend = GeoAttention(width, heads)
        self.feed = GeoMlp(width, ffn)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Starting weights: LayerScale 0.01, tables 0, layers truncated normal."""
        init_layers(self, generator)
        for scale in (self.attend.scale_frame, self.attend.scale_all, self.feed.scale):
            scale.fill_(LAYER_SCALE)
        self.attend.modulation.zero_()
        self.feed.modulation.zero_()

    @torch.no_grad()
    def take_modulation(self, table: Tensor) -> None:
        """Start with the time modulation of a Wan block, whose table is 1 6 D."""
        self.attend.modulation.copy_(table[0, list(ATTENTION_VECTORS)])
        self.feed.modulation.copy_(table[0, list(MLP_VECTORS)])

    @torch.no_grad()
    def take_attention(self, wan: WanSelfAttention) -> None:
        """Start both attentions with the projections of a Wan block's self-attention; its norms are of another kind."""
        projections = (wan.to_q, wan.to_k, wan.to_v)
        back = wan.to_out[0]
        assert isinstance(back, nn.Linear)
        for attention in (self.attend.frame, self.attend.all):
            attention.qkv.weight.copy_(torch.cat([linear.weight for linear in projections]))
            attention.qkv.bias.copy_(torch.cat([linear.bias for linear in projections]))
            attention.proj.weight.copy_(back.weight)
            attention.proj.bias.copy_(back.bias)


def _vectors(table: Tensor, time: Tensor, places: tuple[int, ...], like: Tensor) -> tuple[Tensor, ...]:
    """The rows of the table, each with its vector of the time, as B 1 1 D."""
    rows = table + time[:, list(places)].to(like.dtype)
    return rows[:, :, None, None].unbind(1)


def _modulated(normed: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return normed * (1 + scale) + shift
