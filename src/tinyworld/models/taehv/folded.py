"""TAEHV for inference: fewer layers on smaller pictures, equal up to rounding, one static step per latent.

Made from the public blocks by the algebra in `fold`:

* Decoder: repeat + TGrow + 3×3 become one transposed convolution per frame (16 of 36 products); the last of them stays
  unrolled, so that nothing but the pixels themselves ever has the full size. Encoder: TPool + strided 3×3 become one strided
  convolution per frame.
* Memory blocks: the half that reads the past is a convolution of its own, left out where there is no past; nothing is
  concatenated.
* Frames that the temporal law throws away are not computed.

A step maps a latent (or the frames of one) and the state to the results and the next state: no queue, no shape that
changes, all Python control flow known before it runs, so it can be compiled or captured as one graph. Convolution weights are
held in channels-last order.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.models.taehv.blocks import MemBlock, SoftClamp, State, SuperMemBlock, TGrow, TPool, UpConv
from tinyworld.models.taehv.fold import after_pointwise, clear_outside, from_windows, repeat_then_conv, to_windows
from tinyworld.models.taehv.strips import Past, Strips

STRIP_BYTES = 28 << 20
"""Largest tensor that `UpHead` makes on a CPU. glibc keeps and reuses blocks of up to 32 MiB; larger ones are mapped anew each
time, and the page faults cost as much as the convolution (measured: 148 ms whole, 100 ms in strips for 480 × 832 in fp32)."""

DecoderStep = Callable[[Tensor, Past, Sequence[bool]], tuple[list[Tensor], Past]]
EncoderStep = Callable[[Sequence[Tensor], Past], tuple[Tensor, Past]]


class Conv(nn.Module):
    """A convolution with fixed weights; adds `plus` and applies a ReLU in place."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int | None = None, groups: int = 1
    ) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        self.padding = weight.shape[-1] // 2 if padding is None else padding
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last), persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor, plus: Tensor | None = None, relu: bool = False) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        if plus is not None:
            y += plus
        return y.relu_() if relu else y


def _conv(conv: nn.Module) -> Conv:
    """The convolution of a public block, in double precision until it is folded and rounded."""
    assert isinstance(conv, nn.Conv2d)
    return Conv(conv.weight, conv.bias, conv.stride[0], cast(int, conv.padding[0]), conv.groups)


class FoldedMemory(nn.Module):
    """MemBlock: the first convolution in two halves, for the frame and for its predecessor."""

    def __init__(self, block: MemBlock) -> None:
        super().__init__()
        first, second, third = (layer for layer in block.conv if isinstance(layer, nn.Conv2d))
        present, past = first.weight.chunk(2, 1)
        self.present, self.past = Conv(present, first.bias), Conv(past)
        self.second, self.third = _conv(second), _conv(third)

    def forward(self, x: Tensor, past: Tensor | None) -> Tensor:
        before = None if past is None else self.past(past)
        hidden = self.second(self.present(x, before, relu=True), relu=True)
        return cast(Tensor, self.third(hidden, x, relu=True))


class FoldedSuperMemory(nn.Module):
    """SuperMemBlock, likewise in two halves up to its ReLU."""

    def __init__(self, block: SuperMemBlock) -> None:
        super().__init__()
        spread, mix, back = (layer for layer in block.conv if isinstance(layer, nn.Conv2d))
        width = back.out_channels
        present, past = (Conv(part, groups=width) for part in spread.weight.chunk(2))
        mix_present, mix_past = mix.weight.chunk(2, 1)
        self.present, self.past = present, past
        self.mix_present, self.mix_past = Conv(mix_present, mix.bias), Conv(mix_past)
        self.back = _conv(back)

    def forward(self, x: Tensor, past: Tensor | None) -> Tensor:
        before = None if past is None else self.mix_past(self.past(past))
        return cast(Tensor, self.back(self.mix_present(self.present(x), before, relu=True), x))


class Up(nn.Module):
    """Repeat pixels 2× and convolve 3×3, as one transposed convolution."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        taps = repeat_then_conv(weight).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, stride=2, padding=1)


class UpHead(nn.Module):
    """Repeat pixels 2×, convolve 3×3, ReLU, convolve 3×3, where only the result (N C H W → N O 2H 2W) has the full size."""

    def __init__(self, up: Tensor, last: nn.Conv2d) -> None:
        super().__init__()
        assert last.bias is not None
        self.up = Conv(to_windows(up), padding=1)
        self.last = Conv(from_windows(last.weight), last.bias.repeat_interleave(4), padding=0)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[2]
        if x.device.type == "cpu":
            row_bytes = x.shape[0] * self.up.weight.shape[0] * (x.shape[3] + 1) * x.element_size()
            rows = max(min(rows, STRIP_BYTES // row_bytes), 1)
        strips = [self._strip(x, first, min(first + rows, x.shape[2])) for first in range(0, x.shape[2], rows)]
        return strips[0] if len(strips) == 1 else torch.cat(strips, 2)

    def _strip(self, x: Tensor, first: int, last: int) -> Tensor:
        """Of the rows first … last - 1 of x, for which windows first … last are needed."""
        top, bottom = first == 0, last == x.shape[2]
        part = x[:, :, max(first - 1, 0) : last + 1]
        windows = F.conv2d(part, self.up.weight, padding=(1 if top or bottom else 0, 1)).relu_()
        skipped = 0 if top or not bottom else 1
        windows = clear_outside(windows[:, :, skipped : skipped + last - first + 1], top, bottom)
        return F.pixel_shuffle(self.last(windows), 2)


class Head(nn.Module):
    """The same without repeating."""

    def __init__(self, conv: Tensor, last: nn.Conv2d) -> None:
        super().__init__()
        self.first, self.last = Conv(conv), _conv(last)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.last(self.first(x, relu=True)))


class Shuffled(nn.Module):
    """The super decoder's growth in space: convolve 3×3, ReLU, spread channels over pixels."""

    def __init__(self, conv: nn.Module, shuffle: nn.Module) -> None:
        super().__init__()
        self.conv, self.shuffle = _conv(conv), shuffle

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.shuffle(self.conv(x, relu=True)))


def _memories(blocks: Sequence[nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(
        FoldedMemory(block) if isinstance(block, MemBlock) else FoldedSuperMemory(block)
        for block in blocks
        if isinstance(block, MemBlock | SuperMemBlock)
    )


class DecoderStage(nn.Module):
    """Memory blocks, then of each frame several larger ones, each made by a layer of its own after a shared one."""

    def __init__(self, memories: nn.ModuleList, shared: nn.Module, frames: Sequence[nn.Module]) -> None:
        super().__init__()
        self.memories, self.shared, self.frames = memories, shared, nn.ModuleList(frames)

    def forward(self, frames: list[Tensor], past: Past, keep: Sequence[bool]) -> tuple[list[Tensor], Past]:
        """Consecutive frames, and the memories' past → those larger frames that `keep` asks for, and the new past."""
        each = len(self.frames)
        flags = [keep[start : start + each] for start in range(0, len(keep), each)]
        after: Past = []
        for place, memory in enumerate(self.memories):
            inputs: Past = [past[place], *frames]
            after.append(frames[-1])
            pairs = list(pairwise(inputs))
            if place + 1 == len(
                self.memories
            ):  # the last one's results are nobody's memory: only those are made that show
                shown = [any(flag) for flag in flags]
                pairs = [pair for pair, wanted in zip(pairs, shown, strict=True) if wanted]
                flags = [flag for flag, wanted in zip(flags, shown, strict=True) if wanted]
            frames = [memory(x, before) for before, x in pairs]
        larger: list[Tensor] = []
        for x, flag in zip(map(self.shared, frames), flags, strict=True):
            larger += [make(x) for make, wanted in zip(self.frames, flag, strict=True) if wanted]
        return larger, after


class FoldedDecoder(nn.Module):
    """A decoder as a static step. Weights are copies, folded in double precision and rounded to `dtype`."""

    def __init__(self, blocks: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        exact = _exact(blocks)
        grows = [place for place, block in enumerate(exact) if isinstance(block, TGrow)]
        base = isinstance(exact[0], SoftClamp)
        self.clamp = exact[0] if base else nn.Identity()
        self.stem = _conv(exact[1 if base else 0])
        self.relu_first = base
        make = _base_stages if base else _super_stages
        self.stages = nn.ModuleList(make(exact, grows))
        self.memory_blocks = sum(len(cast(DecoderStage, stage).memories) for stage in self.stages)
        self.compiled: DecoderStep | None = None
        """What a backend has made of `step`, used wherever there is a past and every frame is kept."""
        self.to(dtype)

    def step(self, latent: Tensor, past: Past, keep: Sequence[bool]) -> tuple[list[Tensor], Past]:
        """One latent (N c h w) → those of its raw output frames (N C·p² H W) that `keep` has a True for; the new past."""
        x = latent.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        frames = [self.stem(self.clamp(x), relu=self.relu_first)]
        after: Past = []
        for place, stage in enumerate(self.stages):
            here = past[len(after) : len(after) + len(cast(DecoderStage, stage).memories)]
            each = len(cast(DecoderStage, stage).frames)
            wanted = keep if place + 1 == len(self.stages) else [True] * (each * len(frames))
            frames, kept = stage(frames, here, wanted)
            after += kept
        return frames, after

    def new_state(self) -> State:
        """The state before the first latent of a clip, for `run`."""
        return [[] for _ in range(self.memory_blocks)]

    @torch.no_grad()
    def run(self, latent: Tensor, state: State, keep: Sequence[bool], strips: Strips | None = None) -> list[Tensor]:
        """`step` with the state of sequential execution, which is changed; frames come in the latent's number type."""
        step = self.compiled if self.compiled is not None and all(keep) and all(state) else self.step
        past: Past = [kept[0] if kept else None for kept in state]
        if strips is None:
            frames, after = step(latent, past, keep)
        else:
            frames, after = strips.run(
                lambda part, before: step(part[0], before, keep), [latent], past, latent.shape[-2]
            )
        state[:] = [[cast(Tensor, x)] for x in after]
        return [frame.to(latent.dtype) for frame in frames]


def _exact(blocks: nn.Sequential) -> list[nn.Module]:
    """Copies of the blocks in double precision, in which folding loses nothing."""
    return list(copy.deepcopy(blocks).double().requires_grad_(False))


def _base_stages(blocks: list[nn.Module], grows: list[int]) -> list[DecoderStage]:
    stages, start = [], 0
    for place in grows:
        grow, up = cast(TGrow, blocks[place]), cast(UpConv, blocks[place + 1])
        weights = [after_pointwise(up.weight, part) for part in grow.conv.weight.chunk(grow.stride)]
        if place == grows[-1]:
            last = cast(nn.Conv2d, blocks[-1])
            frames: list[nn.Module] = [UpHead(w, last) if up.scale > 1 else Head(w, last) for w in weights]
        else:
            frames = [Up(w) if up.scale > 1 else Conv(w) for w in weights]
        stages.append(DecoderStage(_memories(blocks[start:place]), nn.Identity(), frames))
        start = place
    return stages


def _super_stages(blocks: list[nn.Module], grows: list[int]) -> list[DecoderStage]:
    """Convolution, ReLU, PixelShuffle, TGrow; behind the last TGrow the convolution to pixels, folded with it."""
    stages, start = [], 0
    for place in grows:
        grow = cast(TGrow, blocks[place])
        parts = grow.conv.weight.chunk(grow.stride)
        if place == grows[-1]:
            last = cast(nn.Conv2d, blocks[-1])
            frames = [Conv(after_pointwise(last.weight, part), last.bias) for part in parts]
        else:
            frames = [Conv(part) for part in parts]
        shared = Shuffled(blocks[place - 3], blocks[place - 1])
        stages.append(DecoderStage(_memories(blocks[start:place]), shared, frames))
        start = place
    return stages


class EncoderStage(nn.Module):
    """Frames merged into one of half the size by a strided convolution each, then memory blocks."""

    def __init__(self, pool: TPool, strided: nn.Conv2d, memories: nn.ModuleList) -> None:
        super().__init__()
        parts = pool.conv.weight.chunk(pool.stride, 1)
        self.merge = nn.ModuleList(Conv(after_pointwise(strided.weight, part), None, 2, 1) for part in parts)
        self.memories = memories

    def forward(self, frames: list[Tensor], past: Past) -> tuple[list[Tensor], Past]:
        """Consecutive frames of whole groups, and the memories' past → merged frames, and the new past."""
        merged = []
        for start in range(0, len(frames), len(self.merge)):
            x = self.merge[0](frames[start])
            for layer, frame in zip(list(self.merge)[1:], frames[start + 1 :], strict=False):
                x = layer(frame, x)
            merged.append(x)
        after: Past = []
        for place, memory in enumerate(self.memories):
            inputs: Past = [past[place], *merged]
            after.append(merged[-1])
            merged = [memory(x, before) for before, x in pairwise(inputs)]
        return merged, after


class FoldedEncoder(nn.Module):
    """An encoder as a static step. Weights are copies, folded in double precision and rounded to `dtype`."""

    def __init__(self, blocks: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        exact = _exact(blocks)
        pools = [place for place, block in enumerate(exact) if isinstance(block, TPool)]
        self.stem, self.head = _conv(exact[0]), _conv(exact[-1])
        self.stages = nn.ModuleList(
            EncoderStage(cast(TPool, exact[place]), cast(nn.Conv2d, exact[place + 1]), _memories(exact[place:end]))
            for place, end in pairwise([*pools, len(exact) - 1])
        )
        self.memory_blocks = sum(len(cast(EncoderStage, stage).memories) for stage in self.stages)
        self.group = math.prod(len(cast(EncoderStage, stage).merge) for stage in self.stages)
        """Frames per latent."""
        self.compiled: EncoderStep | None = None
        """What a backend has made of `step`, used wherever there is a past."""
        self.to(dtype)

    def step(self, frames: Sequence[Tensor], past: Past) -> tuple[Tensor, Past]:
        """The frames of one latent (each N C·p² H/p W/p) → the latent (N c h w) and the new past."""
        dtype = self.stem.weight.dtype
        ready = (x.to(dtype).contiguous(memory_format=torch.channels_last) for x in frames)
        made = [self.stem(x, relu=True) for x in ready]
        after: Past = []
        for stage in self.stages:
            here = past[len(after) : len(after) + len(cast(EncoderStage, stage).memories)]
            made, kept = stage(made, here)
            after += kept
        return self.head(made[0]), after

    def new_state(self) -> State:
        """The state before the first frame of a clip, for `run`: one entry per memory block, and the frames that wait."""
        return [[] for _ in range(self.memory_blocks + 1)]

    @torch.no_grad()
    def run(self, frames: Iterable[Tensor], state: State, strips: Strips | None = None) -> Iterator[Tensor]:
        """Frames one after another with the state of sequential execution, which is changed → latents that are complete,
        in the frames' number type."""
        waiting = state[-1]
        for frame in frames:
            waiting.append(frame)
            if len(waiting) < self.group:
                continue
            step = self.compiled if self.compiled is not None and all(state) else self.step
            past: Past = [kept[0] if kept else None for kept in state[:-1]]
            if strips is None:
                latent, after = step(list(waiting), past)
            else:
                latent, after = self._in_strips(strips, step, list(waiting), past)
            state[:-1] = [[cast(Tensor, x)] for x in after]
            waiting.clear()
            yield latent.to(frame.dtype)

    def _in_strips(self, strips: Strips, step: EncoderStep, frames: list[Tensor], past: Past) -> tuple[Tensor, Past]:
        def one(part: list[Tensor], before: Past) -> tuple[list[Tensor], Past]:
            latent, after = step(part, before)
            return [latent], after

        (latent,), after = strips.run(one, frames, past, frames[0].shape[-2] // 2 ** len(self.stages))
        return latent, after
