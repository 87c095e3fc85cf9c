"""The way from video tokens into the geometry branch, and the special tokens that wait for them there."""

import torch
from torch import Tensor, nn

from tinyworld.models.fantasy.attention import SelfAttention
from tinyworld.models.fantasy.initial import init_layers, zero

EXPANSION = 4
"""Hidden width of the bridge's MLP over its width."""
SETS = 2
"""Special tokens of the first latent frame, which stands for one video frame, and of all others, which stand for four."""
TOKEN_STD = 1e-6


class LatentBridge(nn.Module):
    """Translates the video features of one layer for the geometry blocks: a narrow transformer block beside a skip.

    Layer norm, down to `bridge_width`, one pre-norm block (attention inside each latent frame, MLP), and up again to the
    full width; the up-projection starts at zero, so at first the features pass as they are.
    """

    def __init__(self, width: int, bridge_width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.down = nn.Linear(width, bridge_width)
        self.norm_attention = nn.LayerNorm(bridge_width, eps=1e-6)
        self.attention = SelfAttention(bridge_width, heads, norm=False)
        self.norm_mlp = nn.LayerNorm(bridge_width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(bridge_width, EXPANSION * bridge_width),
            nn.GELU(approximate="tanh"),
            nn.Linear(EXPANSION * bridge_width, bridge_width),
        )
        self.up = nn.Linear(bridge_width, width)

    def init_weights(self, generator: torch.Generator) -> None:
        """Starting weights."""
        init_layers(self, generator)
        zero(self.up)

    def forward(self, features: Tensor, frames: int) -> Tensor:
        """Video features B N D of `frames` latent frames to B t P D, N = t·P."""
        framed = features.unflatten(1, (frames, -1))
        narrow = self.down(self.norm(framed)).flatten(0, 1)
        narrow = narrow + self.attention(self.norm_attention(narrow))
        narrow = narrow + self.mlp(self.norm_mlp(narrow))
        return framed + self.up(narrow).unflatten(0, (-1, frames))


def special_tokens(registers: int, width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """token_camera 1 2 1 D and tokens_register 1 2 registers D, all zero (set 0: first latent frame; set 1: all others)."""
    return nn.Parameter(torch.zeros(1, SETS, 1, width)), nn.Parameter(torch.zeros(1, SETS, registers, width))


def with_specials(patches: Tensor, camera: Tensor, registers: Tensor) -> Tensor:
    """Patches B t P D with the special tokens of their frame in front: B t (1 + registers + P) D."""
    batch, frames = patches.shape[:2]
    sets = torch.cat([camera, registers], dim=2).to(patches.dtype)
    each = torch.cat([sets[:, :1], sets[:, 1:].expand(-1, frames - 1, -1, -1)], dim=1)
    return torch.cat([each.expand(batch, -1, -1, -1), patches], dim=2)
