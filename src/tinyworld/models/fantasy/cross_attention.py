"""Two-way cross-attention between the video's tokens and the geometry's, behind gates that start closed."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyworld.models.fantasy.attention import Table, rotated

EPSILON = 1e-6


class TwoWayCrossAttention(nn.Module):
    """Each side reads the other by the same scores: queries are the video's, keys the geometry's.

    Video tokens take softmax(Q Kᵀ) V_geometry, geometry tokens softmax(K Qᵀ) V_video; both through layer norms without weights,
    both added behind a gate per channel that starts at zero. Positions in time, row and column are those of the video grid on
    both sides.
    """

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = width
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value_video = nn.Linear(width, inner)
        self.value_geometry = nn.Linear(width, inner)
        self.out_video = nn.Linear(inner, width)
        self.out_geometry = nn.Linear(inner, width)
        self.gate_video = nn.Parameter(torch.zeros(width))
        self.gate_geometry = nn.Parameter(torch.zeros(width))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Starting weights: Xavier uniform, biases and gates 0."""
        for linear in self.children():
            assert isinstance(linear, nn.Linear)
            drawn = torch.empty(linear.weight.shape)
            nn.init.xavier_uniform_(drawn, generator=generator)
            linear.weight.copy_(drawn)
            linear.bias.zero_()
        self.gate_video.zero_()
        self.gate_geometry.zero_()

    def forward(
        self, video: Tensor, geometry: Tensor, tables: tuple[Table, Table], interact: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Video B N D and geometry B t Pg D, each with what it took from the other, in its own number type.

        tables: positions of the N video tokens and of the t·Pg geometry tokens. interact: B bool, which samples exchange at
        all (None: all); the others are returned bit for bit.
        """
        kind = self.gate_video.dtype
        seen = functional.layer_norm(video.to(kind), (self.width,), eps=EPSILON)
        made = functional.layer_norm(geometry.flatten(1, 2).to(kind), (self.width,), eps=EPSILON)
        values = self._heads(self.value_video(seen)), self._heads(self.value_geometry(made))
        query = rotated(self._heads(self.query(seen)), tables[0]).to(values[0].dtype)
        key = rotated(self._heads(self.key(made)), tables[1]).to(values[0].dtype)
        to_video = functional.scaled_dot_product_attention(query, key, values[1])
        to_geometry = functional.scaled_dot_product_attention(key, query, values[0])
        video_update = self.gate_video * self.out_video(to_video.transpose(1, 2).flatten(2))
        geometry_update = self.gate_geometry * self.out_geometry(to_geometry.transpose(1, 2).flatten(2))
        if interact is not None:
            video_update = video_update * interact[:, None, None]
            geometry_update = geometry_update * interact[:, None, None]
        return video + video_update.to(video.dtype), geometry + geometry_update.view_as(geometry).to(geometry.dtype)

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
