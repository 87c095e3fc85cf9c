"""Self-attention with rotary positions, and the tables of positions that the geometry branch uses.

A table is a pair (cosine, sine) of shape tokens x head_dim/2 in fp32; channel j of a head turns with channel j + head_dim/2
(Su et al. 2021, arXiv:2104.09864, with one share of the channels for each axis). Angle zero leaves a token as it is: that is
what special tokens get.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

Table = tuple[Tensor, Tensor]

PLANE_BASE = 100.0
"""Base of the wavelengths over rows and columns (VGGT, arXiv:2503.11651)."""
SPACE_TIME_BASE = 10000.0
"""Base over frames, rows and columns, as in Wan."""


def plane_table(rows: int, columns: int, specials: int, head_dim: int, device: torch.device) -> Table:
    """Positions inside a frame: `specials` tokens at 0, then patches (row by row) at their row and column plus one.

    head_dim must be a multiple of 4: half of the channels turn with the row, half with the column.
    """
    row, column = _places(rows, columns, device=device)
    places = [functional.pad(place + 1, (specials, 0)) for place in (row, column)]
    return _table(places, [head_dim // 4, head_dim // 4], PLANE_BASE)


def space_time_tables(
    grid: tuple[int, int, int], specials: int, head_dim: int, device: torch.device
) -> tuple[Table, Table]:
    """Positions of video tokens (t·rows·columns), and of geometry tokens (t·(specials + rows·columns)) on the same grid.

    grid: latent frames, rows, columns. Channels are shared out as Wan does: a third, rounded down to even, for rows and for
    columns each, the rest for frames. head_dim must be even.
    """
    plane = head_dim // 6
    shares = [head_dim // 2 - 2 * plane, plane, plane]
    cosine, sine = _table(_places(*grid, device=device), shares, SPACE_TIME_BASE)
    # cosine 1 and sine 0: special tokens are not turned
    with_specials = (
        _before_each_frame(cosine, grid[0], specials, 1.0),
        _before_each_frame(sine, grid[0], specials, 0.0),
    )
    return (cosine, sine), with_specials


def repeated(table: Table, frames: int) -> Table:
    """The table of a frame for the tokens of several frames."""
    cosine, sine = table
    return cosine.repeat(frames, 1), sine.repeat(frames, 1)


def rotated(tokens: Tensor, table: Table) -> Tensor:
    """Tokens ... tokens head_dim turned by their positions, in fp32."""
    cosine, sine = table
    first, second = tokens.float().chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _places(*sizes: int, device: torch.device) -> list[Tensor]:
    """For every axis of a grid the place of each of its tokens, flattened."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in sizes]
    return [place.flatten() for place in torch.meshgrid(*axes, indexing="ij")]


def _table(places: list[Tensor], shares: list[int], base: float) -> Table:
    angles = []
    for place, share in zip(places, shares, strict=True):
        frequencies = base ** (-torch.arange(share, device=place.device, dtype=torch.float32) / max(share, 1))
        angles.append(place[:, None] * frequencies)
    joined = torch.cat(angles, dim=1)
    return joined.cos(), joined.sin()


def _before_each_frame(values: Tensor, frames: int, specials: int, value: float) -> Tensor:
    return functional.pad(values.unflatten(0, (frames, -1)), (0, 0, specials, 0), value=value).flatten(0, 1)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself: one projection to queries, keys and values, one back; with biases.

    norm: layer norm over each head of queries and keys, which keeps the scores bounded.
    """

    def __init__(self, width: int, heads: int, norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm_q = nn.LayerNorm(width // heads, eps=1e-6) if norm else nn.Identity()
        self.norm_k = nn.LayerNorm(width // heads, eps=1e-6) if norm else nn.Identity()

    def forward(self, tokens: Tensor, table: Table | None = None) -> Tensor:
        """Tokens M L D to M L D; `table` holds the positions of the L tokens."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = self.norm_q(query), self.norm_k(key)
        if table is not None:
            query, key = rotated(query, table), rotated(key, table)
        out = functional.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value)
        return self.proj(out.transpose(1, 2).flatten(2))
