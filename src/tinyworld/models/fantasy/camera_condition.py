"""What the camera's path says to the model: Plücker rays as tokens, and the adapters that add them to the video's blocks."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyworld.core.world_sizes import SPACE_STEP, TIME_STEP
from tinyworld.models.fantasy.initial import init_layers, zero

RAY_CHANNELS = 6


class PoseEncoder(nn.Module):
    """Rays of every pixel to one token for every video token.

    8 x 8 pixels are folded into channels, mixed, averaged over the frames of a latent, and joined two by two. The last layer
    starts at zero: a camera is nothing at first.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(RAY_CHANNELS * SPACE_STEP**2, channels, 1)
        self.join = nn.Conv2d(channels, width, 2, stride=2)

    def init_weights(self, generator: torch.Generator) -> None:
        """Starting weights."""
        init_layers(self, generator)
        zero(self.join)

    def forward(self, rays: Tensor) -> Tensor:
        """Plücker rays B 6 F H W, F = 4(t-1) + 1, H and W multiples of 16, to tokens B t H/16 W/16 D."""
        batch, _, frames = rays.shape[:3]
        pixels = rays.transpose(1, 2).flatten(0, 1)
        mixed = functional.silu(self.mix(functional.pixel_unshuffle(pixels, SPACE_STEP))).unflatten(0, (batch, frames))
        later = mixed[:, 1:].unflatten(1, (-1, TIME_STEP)).mean(2)
        latents = torch.cat([mixed[:, :1], later], dim=1)
        joined = self.join(latents.flatten(0, 1)).unflatten(0, (batch, -1))
        return joined.permute(0, 1, 3, 4, 2)


class CameraAdapter(nn.Module):
    """Makes the shift β of one video block from the camera tokens: SiLU and a linear layer that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def init_weights(self, generator: torch.Generator) -> None:
        """Starting weights: all zero, so `generator` is not asked."""
        zero(self.linear)

    def forward(self, camera: Tensor) -> Tensor:
        """Camera tokens B N D to shifts B N D."""
        return self.linear(functional.silu(camera))
