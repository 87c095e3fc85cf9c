"""Starting weights for training from scratch: at step 0 the network is a linear map that already carries the colours.

A ReLU throws half of its input away, and a deep chain of them starts training with a long grey plateau. Here the
channels of every width form mirrored halves (a, -a): relu(a) - relu(-a) = a, so the next convolution, with weights
(A, -A), sees all of a, and the whole chain is linear until training makes it otherwise (Shang et al. 2016,
arXiv:1603.05201; Balduzzi et al. 2017, arXiv:1702.08591). Memory blocks start by passing their input on. Three channels
carry red, green and blue straight through, averaged where the chain shrinks and repeated where it grows; the other
channels start as random filters of the picture and of the differences between frames. So the first decoded frames are
a small version of the clip, and latents start near unit scale.
"""

import torch
from torch import Tensor, nn

from tinyworld.core.variants import IMAGE_CHANNELS
from tinyworld.models.taehv.blocks import MemBlock, SuperMemBlock, TGrow, TPool, UpConv

GREY = 0.5
"""Middle of the pixel range: subtracted by the encoder's first bias, added by the decoder's last."""
COLOUR_GAIN = 2.0
"""Scale of the colour channels inside the encoder."""
LATENT_GAIN = 4.0
"""Scale of the colours in the latents; pixels spread by about 1/4, latents shall by about 1."""
FILTER_GAIN = 8.0
"""Variance gain of the first random filters, which look at differences between neighbouring pixels."""
GROW_NOISE = 0.1
"""How much the frames that one latent grows into differ at the start."""
PICTURE_NOISE = 0.05
"""Share of the random channels in the first decoded frames."""


@torch.no_grad()
def initialise(encoder: nn.Sequential, decoder: nn.Sequential) -> None:
    """Set all weights, drawing from torch's global generator."""
    for module in [*encoder.modules(), *decoder.modules()]:
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(_random(*module.weight.shape, gain=2.0))  # He et al. 2015, arXiv:1502.01852
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in [*encoder, *decoder]:
        if isinstance(block, MemBlock | SuperMemBlock):
            nn.init.zeros_(_conv(block.conv[-1]).weight)
    _initialise_encoder(list(encoder))
    _initialise_decoder(list(decoder))


def _initialise_encoder(blocks: list[nn.Module]) -> None:
    first, last = _conv(blocks[0]), _conv(blocks[-1])
    half = first.out_channels // 2
    filters = _random(half, first.in_channels, 3, 3, gain=FILTER_GAIN)
    filters -= filters.mean((1, 2, 3), keepdim=True)
    subpixels = first.in_channels // IMAGE_CHANNELS
    filters[:IMAGE_CHANNELS] = 0
    for colour in range(min(IMAGE_CHANNELS, half)):
        filters[colour, colour * subpixels : (colour + 1) * subpixels, 1, 1] = COLOUR_GAIN / subpixels
    _assign(first, _mirror(filters, 0))
    centre = -GREY * filters.sum((1, 2, 3))
    _bias(first)[: 2 * half] = torch.cat([centre, -centre])

    average = torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]]) / 4  # of the 2×2 pixels that become one
    for block in blocks[1:-1]:
        if isinstance(block, TPool):
            _assign(block.conv, _mirror(_pooling(half, block.stride), 0))
        elif isinstance(block, nn.Conv2d):
            # The pooled halves come without a ReLU between, so their difference is 2a.
            _assign(block, _mirror(_mirror(_carrying(_random(half, half, 3, 3, gain=2.0), average), 0), 1) / 2)

    to_latents = _random(last.out_channels, half, 3, 3, gain=1.0)
    _assign(last, _mirror(_carrying(to_latents, _centre(LATENT_GAIN / COLOUR_GAIN)), 1))


def _pooling(half: int, frames: int) -> Tensor:
    """half × (frames · 2 · half): colours are averaged, other channels take a random combination of the frames."""
    mix = torch.randn(half, frames)
    mix /= mix.norm(dim=1, keepdim=True)
    mix[:IMAGE_CHANNELS] = 1 / frames
    per_frame = [torch.diag(mix[:, frame]) for frame in range(frames)]
    return torch.cat([_mirror(weights, 1) for weights in per_frame], 1)[:, :, None, None]


def _initialise_decoder(blocks: list[nn.Module]) -> None:
    convs = [block for block in blocks if isinstance(block, nn.Conv2d)]
    first, stages, last = convs[0], convs[1:-1], convs[-1]
    from_latents = _random(first.out_channels // 2, first.in_channels, *first.kernel_size, gain=1.0)
    _assign(first, _mirror(_carrying(from_latents, _centre(1.0, first.kernel_size[0])), 0))

    smooth = torch.tensor([1.0, 2, 1]) / 4
    for stage, conv in enumerate(stages):
        through = isinstance(conv, UpConv)
        copies = 1 if through else conv.out_channels // _conv(convs[stage + 2]).in_channels
        weights = _random(conv.out_channels // copies // 2, conv.in_channels // 2, 3, 3, gain=1.0)
        weights = _carrying(weights, torch.outer(smooth, smooth) if through else _centre(1.0))
        both = _mirror(_mirror(weights, 0), 1)
        # The super decoder has no ReLU before its first stage: the halves' difference is 2a there.
        _assign(conv, (both if through or stage else both / 2).repeat_interleave(copies, 0))
    for block in blocks:
        if isinstance(block, TGrow):
            _assign(block.conv, _growing(block.conv.in_channels, block.stride))

    to_pixels = _random(last.out_channels, last.in_channels // 2, 3, 3, gain=PICTURE_NOISE**2)
    to_pixels[:, :IMAGE_CHANNELS] = 0
    subpixels = last.out_channels // IMAGE_CHANNELS
    for colour in range(min(IMAGE_CHANNELS, last.in_channels // 2)):
        to_pixels[colour * subpixels : (colour + 1) * subpixels, colour, 1, 1] = 1 / LATENT_GAIN
    _assign(last, _mirror(to_pixels, 1))
    nn.init.constant_(_bias(last), GREY)


def _growing(width: int, frames: int) -> Tensor:
    """(frames · width) × width: every frame is the input; the channels that carry no colour vary between frames."""
    copies = torch.eye(width).repeat(frames, 1, 1)
    if frames > 1:
        noise = torch.randn(frames, width, width) * (GROW_NOISE / width**0.5)
        for sign in (0, width // 2):
            noise[:, sign : sign + IMAGE_CHANNELS] = 0
        copies += noise
    return copies.flatten(0, 1)[:, :, None, None]


def _random(*shape: int, gain: float) -> Tensor:
    """Normal weights that keep `gain` times the variance of their input."""
    return torch.randn(shape) * (gain / (shape[1] * shape[2] * shape[3])) ** 0.5


def _carrying(weights: Tensor, taps: Tensor) -> Tensor:
    """The weights with each colour channel reading only itself, through these taps."""
    weights[:IMAGE_CHANNELS] = 0
    for colour in range(min(IMAGE_CHANNELS, *weights.shape[:2])):
        weights[colour, colour] = taps
    return weights


def _centre(value: float, size: int = 3) -> Tensor:
    taps = torch.zeros(size, size)
    taps[size // 2, size // 2] = value
    return taps


def _mirror(weights: Tensor, dim: int) -> Tensor:
    return torch.cat([weights, -weights], dim)


def _assign(conv: nn.Conv2d, weights: Tensor) -> None:
    """Set the leading channels. What an odd width leaves over stays random and is not read by them yet."""
    conv.weight[: weights.shape[0]] = 0
    conv.weight[: weights.shape[0], : weights.shape[1]] = weights


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
