"""TAEHV as its authors' code and ComfyUI lay it out: whole chains, public keys, loaded with strict=True. Base decoders.

Written from the description of the architecture; parallel over time, everything concatenated and repeated as described.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.core.variants import TaehvSpec
from tinyworld.models.taehv.layout import expected_shapes


class Bounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Memory(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        past = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:-1]
        return F.relu(self.conv(torch.cat([x, past], 1)) + x)


class InTime(nn.Module):
    """1×1 over stacked frames (ratio below 1), or into them."""

    def __init__(self, width: int, stacked: int, into: int) -> None:
        super().__init__()
        self.stacked, self.into = stacked, into
        self.conv = nn.Conv2d(width * stacked, width * into, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        frames, channels, *size = x.shape
        made = self.conv(x.reshape(frames // self.stacked, channels * self.stacked, *size))
        return made.reshape(-1, channels, *size)


class PublicTaehv(nn.Module):
    """One clip at a time: frames T 3 H W ⇄ latents L c h w, untrimmed frames out of `decode`."""

    def __init__(self, channels: int = 16, patch: int = 1, in_time: tuple[int, int, int] = (2, 2, 1)) -> None:
        super().__init__()
        self.patch = patch
        pixels = 3 * patch**2
        encoder: list[nn.Module] = [_conv(pixels, 64), nn.ReLU()]
        for stacked in in_time:
            encoder += [InTime(64, stacked, 1), _conv(64, 64, stride=2, bias=False), *(Memory(64) for _ in range(3))]
        self.encoder = nn.Sequential(*encoder, _conv(64, channels))
        decoder: list[nn.Module] = [Bounded(), _conv(channels, 256), nn.ReLU()]
        for width, after, into in zip((256, 128, 64), (128, 64, 64), in_time[::-1], strict=True):
            decoder += [*(Memory(width) for _ in range(3)), nn.Upsample(scale_factor=2)]
            decoder += [InTime(width, 1, into), _conv(width, after, bias=False)]
        self.decoder = nn.Sequential(*decoder, nn.ReLU(), _conv(64, pixels))

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        return self.encoder(F.pixel_unshuffle(frames, self.patch))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(self.decoder(latents), self.patch).clamp(0, 1)


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def blank(spec: TaehvSpec, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Zeros under the public keys, in the shapes of an architecture."""
    return {key: torch.zeros(shape, dtype=dtype) for key, shape in expected_shapes(spec).items()}
