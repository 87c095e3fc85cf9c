"""Causal upsampling in time: t latent frames become 4(t-1)+1 video frames, at once or in pieces with the same numbers.

Every causal convolution hands out the last frames it has seen; given back with the next piece they stand where the zeros
before a clip's first frame stand. A doubling makes two frames of each; of the clip's first pair only the later one stays, so
two doublings make 1 + 4(t-1) frames and frame f > 0 belongs to latent frame (f-1)//4 + 1.
Sizes: facts of the released FantasyWorld decoder heads (arXiv 2509.21657); the code and the boundary rule are our own.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LINEAR_STD = 0.02
RESIDUAL_SCALE = 0.1
"""Residual branches and output layers start this much smaller than what keeps the variance."""


@torch.no_grad()
def draw_normal(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    """Fills with N(0, std²) truncated at two deviations. The draw is made where the generator is: same numbers anywhere."""
    values = torch.empty(parameter.shape, device=generator.device)
    nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator)
    parameter.copy_(values)


def draw_kept_variance(module: nn.Module, generator: torch.Generator, scale: float = 1.0) -> None:
    """Weights of a convolution with std scale/sqrt(fan in), bias zero. A transposed one must have kernel = stride."""
    weight = module.get_parameter("weight")
    transposed = isinstance(module, nn.ConvTranspose2d)
    draw_normal(weight, scale * (weight.shape[0] if transposed else weight[0].numel()) ** -0.5, generator)
    if module.bias is not None:
        nn.init.zeros_(module.get_parameter("bias"))


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Where operations keep the precision of their inputs."""
    kind = x.device.type
    # The meta device, where shapes are worked out, has no autocast.
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class CausalConv(nn.Module):
    """3D convolution of B C T H W that sees no later frame; T, H and W stay. Kernel: (frames, pixels, pixels)."""

    def __init__(self, width_in: int, width_out: int, frames: int, pixels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width_in, width_out, (frames, pixels, pixels), padding=(0, pixels // 2, pixels // 2))
        self.past_frames = frames - 1

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The result, and the frames to give as `past` with the frames that follow (None: a clip starts)."""
        if past is None:
            past = x.new_zeros(*x.shape[:2], self.past_frames, *x.shape[3:])
        x = torch.cat((past, x), 2)
        # A view would keep the whole piece in memory for as long as the clip is under way.
        return self._convolved(x), x[:, :, -self.past_frames :].clone()

    def _convolved(self, x: Tensor) -> Tensor:
        """As `self.conv`, in 2D where torch has but a slow kernel: fp32 on a CPU, fewer than a million numbers."""
        conv = self.conv
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return conv(x)
        frames, series = x.shape[2] - self.past_frames, x.transpose(1, 2)
        beside = torch.cat([series[:, start : start + frames] for start in range(self.past_frames + 1)], 2)
        weight = conv.weight.transpose(1, 2).flatten(1, 2)
        found = F.conv2d(beside.flatten(0, 1), weight, conv.bias, padding=conv.padding[1:])
        return found.unflatten(0, (-1, frames)).transpose(1, 2)


class ChannelNorm(nn.Module):
    """Root mean square norm over the channels of B C T H W, the mean in fp32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        # vector_norm and not a mean of squares: autograd keeps x itself and no fp32 copy of it.
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        scale = (length.square() / x.shape[1] + 1e-6).rsqrt()
        return x * scale.to(x.dtype) * self.weight.to(x.dtype).view(-1, 1, 1, 1)


class DoublingPast(NamedTuple):
    """What a doubling needs of the frames before a piece."""

    spread: Tensor
    mix: Tensor


class Doubling(nn.Module):
    """Two frames out of each: a time convolution C → 2C split in two, then a residual causal 3×3×3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = CausalConv(width, 2 * width, frames=3, pixels=1)
        self.norm = ChannelNorm(width)
        self.mix = CausalConv(width, width, frames=3, pixels=3)

    def forward(self, x: Tensor, past: DoublingPast | None) -> tuple[Tensor, DoublingPast]:
        """B C T H W → B C 2T H W; 2T-1 frames at the start of a clip (`past` None)."""
        pairs, spread_past = self.spread(x, None if past is None else past.spread)
        x = pairs.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
        if past is None:
            x = x[:, :, 1:]
        change, mix_past = self.mix(F.silu(self.norm(x)), None if past is None else past.mix)
        return x + change, DoublingPast(spread_past, mix_past)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Starts near a repetition of each frame."""
        spread = self.spread.conv
        draw_normal(spread.weight, LINEAR_STD, generator)
        width = spread.in_channels
        spread.weight[:, :, -1, 0, 0] += torch.eye(width, device=spread.weight.device).repeat(2, 1)
        nn.init.zeros_(spread.get_parameter("bias"))
        nn.init.ones_(self.norm.weight)
        draw_kept_variance(self.mix.conv, generator, RESIDUAL_SCALE)


class UpsamplerPast(NamedTuple):
    """What the upsampler needs of the latent frames before a piece."""

    first: DoublingPast
    second: DoublingPast


class TemporalUpsampler(nn.Module):
    """B C t H W latent frames → B C 4(t-1)+1 H W at the start of a clip, B C 4t H W after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv3d(width, width, 1)
        self.first = Doubling(width)
        self.second = Doubling(width)

    def forward(self, x: Tensor, past: UpsamplerPast | None) -> tuple[Tensor, UpsamplerPast]:
        """The frames, and what to give as `past` with the next latent frames (None: a clip starts)."""
        x, first = self.first(self.enter(x), None if past is None else past.first)
        x, second = self.second(x, None if past is None else past.second)
        return x, UpsamplerPast(first, second)

    def init_weights(self, generator: torch.Generator) -> None:
        draw_kept_variance(self.enter, generator)
        self.first.init_weights(generator)
        self.second.init_weights(generator)
