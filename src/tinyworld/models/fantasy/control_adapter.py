"""The Fun camera-control adapter: rays of all frames → features that are added to the patch embedding.

Layout, key names and channel order are those of Wan2.1-Fun-V1.1-*-Control-Camera (`control_adapter.conv`,
`control_adapter.residual_blocks.0.conv1`, `.conv2`; aigc-apps/VideoX-Fun, modelscope/DiffSynth-Studio). The public code keeps
only the first sample of a batch; here every sample has its own features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyworld.core.errors import DataError
from tinyworld.core.frames import wan_latent_count
from tinyworld.core.world_sizes import PATCH, SPACE_STEP, TIME_STEP

RAY_CHANNELS = 6
"""Plücker coordinates of a pixel's ray: moment (3), direction (3)."""


class ControlAdapter(nn.Module):
    """Rays B 6 F H W (F = 4(t - 1) + 1) → B D t H/16 W/16. 51,909,120 parameters at D = 1536.

    The rays of the first frame are taken four times, so that every latent frame has four; zero rays do not give zero features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = RAY_CHANNELS * TIME_STEP * SPACE_STEP**2
        self.conv = nn.Conv2d(channels, width, PATCH[1:], stride=PATCH[1:])
        self.residual_blocks = nn.Sequential(ResidualBlock(width))

    def forward(self, rays: Tensor) -> Tensor:
        """Raises FramePlanError for a frame count that is not 4k + 1, DataError for another shape or size."""
        _check(rays)
        stacked = stack_frames(rays)
        features = self.residual_blocks(self.conv(F.pixel_unshuffle(stacked.flatten(0, 1), SPACE_STEP)))
        return features.unflatten(0, stacked.shape[:2]).transpose(1, 2)


class ResidualBlock(nn.Module):
    """N D h w → N D h w: two 3 × 3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


def stack_frames(rays: Tensor) -> Tensor:
    """B C F H W → B t 4·C H W: the four frames of a latent side by side in the channels, channel c of frame k at 4·c + k."""
    led = torch.cat([rays[:, :, :1].expand(-1, -1, TIME_STEP - 1, -1, -1), rays], 2)
    return led.unflatten(2, (-1, TIME_STEP)).transpose(1, 2).flatten(2, 3)


def _check(rays: Tensor) -> None:
    if rays.ndim != 5 or rays.shape[1] != RAY_CHANNELS:
        raise DataError(f"rays are {'×'.join(map(str, rays.shape))}; they must be B {RAY_CHANNELS} F H W.")
    wan_latent_count(rays.shape[2])
    steps = [SPACE_STEP * step for step in PATCH[1:]]
    if any(size % step for size, step in zip(rays.shape[3:], steps, strict=True)):
        raise DataError(
            f"rays are {rays.shape[3]} × {rays.shape[4]} pixels: height and width must be multiples of {steps[0]} (keys: "
            "data.height, data.width)."
        )
