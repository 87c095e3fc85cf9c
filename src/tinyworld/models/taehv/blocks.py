"""The blocks of TAEHV and the two ways of running a chain of them: all frames at once, or one frame after another.

Every block maps a batch of frames (B C H W) to a batch of frames. Only MemBlocks look at another frame than their own:
each concatenates the frame with what the same block was given one frame earlier (zeros before the first). So the whole
temporal state of a network is one tensor per MemBlock, and nothing is recurrent along a block's own output.

Layout, key names and order: madebyollin/taehv.
"""

from collections.abc import Iterable, Iterator
from functools import partial, reduce
from itertools import chain, groupby
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

State = list[list[Tensor]]
"""What a chain remembers between frames, one list per block: a memory block's last input (N C H W), a TPool's parts
of the frame that it is merging. Empty lists at the start of a clip; its size never grows."""


def conv3(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """3×3 convolution that keeps height and width at stride 1."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


class SoftClamp(nn.Module):
    """Bounds latents smoothly to (-3, 3): 3·tanh(x / 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """Residual block over a frame and its predecessor (both B C H W): three 3×3 convolutions with ReLUs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv3(2 * width, width),
            nn.ReLU(inplace=True),
            conv3(width, width),
            nn.ReLU(inplace=True),
            conv3(width, width),
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.conv(torch.cat([x, past], 1)) + x))


class SuperMemBlock(nn.Module):
    """The `super` decoder's block: 7×7 depthwise over frame and predecessor, then a pointwise bottleneck, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 7, padding=3, groups=2 * width, bias=False),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * width, width, 1, bias=False),
        )

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return cast(Tensor, self.conv(torch.cat([x, past], 1)) + x)


class TPool(nn.Module):
    """Merges each `stride` consecutive frames into one: 1×1 convolution over their stacked channels."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width * stride, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B·stride C H W, frames of one clip adjacent → B C H W."""
        return cast(Tensor, self.conv(x.reshape(-1, self.stride * x.shape[1], *x.shape[2:])))

    def part(self, x: Tensor, place: int) -> Tensor:
        """What the frame at this place of its group (B C H W) adds to the merged frame."""
        return F.conv2d(x, self.conv.weight.chunk(self.stride, 1)[place])


class TGrow(nn.Module):
    """Makes `stride` consecutive frames of each one: 1×1 convolution whose output channels are split into frames."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W → B·stride C H W."""
        return cast(Tensor, self.conv(x)).reshape(-1, *x.shape[1:])


class UpConv(nn.Conv2d):
    """Repeats every pixel `scale`× along each side, then convolves 3×3 without bias.

    The public order is repeat, TGrow, convolve. A 1×1 convolution gives the same on repeated pixels as before
    repeating, so TGrow runs first here, on a quarter of the pixels; the repeat sits with the convolution it feeds.
    """

    def __init__(self, inputs: int, outputs: int, scale: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=self.scale) if self.scale > 1 else x)


def has_memory(block: nn.Module) -> bool:
    """Whether a block also takes its previous input."""
    return isinstance(block, MemBlock | SuperMemBlock)


def run_parallel(blocks: nn.Sequential, frames: Tensor, checkpointing: bool = False) -> Tensor:
    """All frames of all clips through the chain, block by block. N T C H W → N T' C' H' W'.

    With `checkpointing` only the inputs of memory blocks, and of the runs of blocks between them, stay in memory for
    the backward pass; everything inside is computed again there.
    """
    clips = frames.shape[0]
    x = frames.flatten(0, 1)
    for segment in _segments(blocks):
        if checkpointing and torch.is_grad_enabled():
            x = cast(Tensor, checkpoint(_run_segment, segment, x, clips, use_reentrant=False, preserve_rng_state=False))
        else:
            x = _run_segment(segment, x, clips)
    return x.unflatten(0, (clips, -1))


def _segments(blocks: nn.Sequential) -> Iterator[list[nn.Module]]:
    """Each memory block alone, and the runs of other blocks between them."""
    for remembering, run in groupby(blocks, has_memory):
        if remembering:
            yield from ([block] for block in run)
        else:
            yield list(run)


def _run_segment(segment: list[nn.Module], x: Tensor, clips: int) -> Tensor:
    for block in segment:
        if has_memory(block):
            nothing = torch.zeros_like(x[:1])
            past = torch.cat([part for clip in x.chunk(clips) for part in (nothing, clip[:-1])])
            x = block(x, past)
        else:
            x = block(x)
    return x


def new_state(blocks: nn.Sequential) -> State:
    """The state of a chain before the first frame of a clip."""
    return [[] for _ in blocks]


def run_sequential(blocks: nn.Sequential, frames: Iterable[Tensor], state: State) -> Iterator[Tensor]:
    """Frames (N C H W) through the chain one after another, each as far as it gets before the next one starts.

    Yields output frames as they become ready and keeps in `state`, which it changes, what later frames need. Feeding a
    clip in pieces with one state gives the same as feeding it whole, and the same as `run_parallel` up to rounding.
    Activations of a few frames exist at a time, however long the clip.
    """
    for block, kept in zip(blocks, state, strict=True):
        # map, not generators with loop variables: those would keep every block's last input alive.
        if has_memory(block):
            frames = map(partial(_remembering, block, kept), frames)
        elif isinstance(block, TPool):
            frames = _pooled(block, kept, frames)
        elif isinstance(block, TGrow):
            frames = chain.from_iterable(map(partial(_grown, block), frames))
        else:
            frames = map(block, frames)
    yield from frames


def _remembering(block: nn.Module, kept: list[Tensor], x: Tensor) -> Tensor:
    past = kept.pop() if kept else torch.zeros_like(x)
    kept.append(x)
    return cast(Tensor, block(x, past))


def _pooled(block: TPool, kept: list[Tensor], frames: Iterable[Tensor]) -> Iterator[Tensor]:
    for x in frames:
        kept.append(block.part(x, len(kept)))
        del x
        if len(kept) == block.stride:
            yield reduce(torch.add, [kept.pop() for _ in range(block.stride)])


def _grown(block: TGrow, x: Tensor) -> tuple[Tensor, ...]:
    return block(x).unflatten(0, (x.shape[0], block.stride)).unbind(1)
