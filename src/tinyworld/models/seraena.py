"""Seraena's discriminator: a convolutional critic of pictures that also sees the latents they were decoded from.

Structure and state-dict keys are facts of the public code (github.com/madebyollin/seraena, e966f51, MIT).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 256, 512, 512, 512)
STRIDES = (1, 2, 2, 2, 1, 1)
SHRINK = 8
"""Pixels per side of one score: what the three strides of 2 make."""


class SeraenaDiscriminator(nn.Module):
    """Six scores for every 8 x 8 pixels of a group of frames: +1 says decoded, -1 says real.

    group: frames judged together, as 3·group channels. latent_channels: channels of the context. widths: channels of the
    six blocks; 7,491,456 parameters by default for groups of 3 and 16 latent channels. Each block is scored by a 1x1
    convolution of its own, so that grain and layout are judged alike.
    """

    def __init__(self, group: int, latent_channels: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if len(widths) != len(STRIDES):
            raise ValueError(f"the discriminator has {len(STRIDES)} blocks, got {len(widths)} widths")
        self.image_channels, self.latent_channels = 3 * group, latent_channels
        inputs = (self.image_channels + latent_channels, *widths)
        self.blocks = nn.Sequential(
            *(_block(before, after, stride) for before, after, stride in zip(inputs, widths, STRIDES, strict=False))
        )
        self.proj = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in widths)

    def forward(self, images: Tensor, context: Tensor) -> Tensor:
        """Scores N 6 H/8 W/8 of images N 3·group H W (RGB in [0, 1], H and W multiples of 8) and their context N c h w.

        The context may be smaller than the images by any factor. Raises ValueError for shapes that do not fit.
        """
        self._check(images, context)
        size = images.shape[-2:]
        features = torch.cat([images * 2 - 1, functional.interpolate(context, size=size, mode="nearest")], dim=1)
        scores, left = [], SHRINK
        for block, head, stride in zip(self.blocks, self.proj, STRIDES, strict=True):
            features, left = block(features), left // stride
            scores.append(functional.avg_pool2d(head(features), left))
        return torch.cat(scores, dim=1)

    def _check(self, images: Tensor, context: Tensor) -> None:
        shapes = f"got images {tuple(images.shape)} and context {tuple(context.shape)}"
        if images.ndim != 4 or images.shape[1] != self.image_channels:
            raise ValueError(f"the discriminator takes images N {self.image_channels} H W; {shapes}")
        if context.ndim != 4 or context.shape[1] != self.latent_channels or len(context) != len(images):
            raise ValueError(
                f"the discriminator takes one context of {self.latent_channels} channels an image; {shapes}"
            )
        if images.shape[-2] % SHRINK or images.shape[-1] % SHRINK:
            raise ValueError(f"the discriminator takes heights and widths that are multiples of {SHRINK}; {shapes}")


def _block(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 4 if stride == 2 else 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
