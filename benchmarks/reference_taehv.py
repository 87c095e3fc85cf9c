"""TAEHV in its plain public form, to measure against: parallel with concatenation, and frame by frame through a queue.

Written from the published description of the architecture (base blocks only): no folding, no split, repeat before
TGrow, everything in the default memory layout. Reads the weights of a `Taehv`, so that results can be compared.
"""

from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.core.frames import kept_runs
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.blocks import MemBlock, TGrow, TPool, UpConv
from tinyworld.models.taehv.sequential import fold_pixels, unfold_pixels


class Memory(nn.Module):
    """Frame and predecessor, concatenated."""

    def __init__(self, block: MemBlock) -> None:
        super().__init__()
        self.conv = block.conv

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return F.relu(self.conv(torch.cat([x, past], 1)) + x)


class Repeat(nn.Module):
    """Every pixel twice along each side."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest")


class PlainConv(nn.Module):
    """A convolution that takes the weights of another, a trainable parameter for a training step."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias, self.stride, self.padding = conv.weight, conv.bias, conv.stride, conv.padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


def _chain(blocks: nn.Sequential) -> nn.ModuleList:
    """The public order: repeat, grow in time on the repeated pixels, convolve."""
    chain: list[nn.Module] = []
    for block in blocks:
        if isinstance(block, MemBlock):
            chain.append(Memory(block))
        elif isinstance(block, UpConv):
            grow = chain.pop()
            chain += [*([Repeat()] if block.scale == 2 else []), grow, PlainConv(block)]
        elif not isinstance(block, nn.Identity):
            chain.append(block)
    return nn.ModuleList(chain)


class ReferenceTaehv(nn.Module):
    """Shares the parameters of a model; the same `encode` and `decode` for flavour "plain"."""

    def __init__(self, model: Taehv) -> None:
        super().__init__()
        if model.spec.decoder_block != "base" or model.spec.flavour != "plain":
            raise SystemExit("the reference knows base decoders with the plain temporal law only")
        self.spec = model.spec
        self.encoder, self.decoder = _chain(model.encoder), _chain(model.decoder)

    def encode(self, frames: Tensor) -> Tensor:
        """N T C H W with whole latents → N L c h w."""
        return _parallel(self.encoder, fold_pixels(frames, self.spec.patch_size))

    def decode(self, latents: Tensor, clamp: bool = True) -> Tensor:
        """N L c h w → N T C H W."""
        return self._trimmed(_parallel(self.decoder, latents), latents.shape[1], clamp)

    def decode_queued(self, latents: Tensor) -> Tensor:
        """The same, one frame after another."""
        queue = Queue(self.decoder)
        made = [frame for latent in latents.unbind(1) for frame in queue.push(latent)]
        return self._trimmed(torch.stack(made, 1), latents.shape[1], clamp=True)

    def encode_queued(self, frames: Tensor) -> Tensor:
        queue = Queue(self.encoder)
        folded = fold_pixels(frames, self.spec.patch_size)
        return torch.stack([latent for frame in folded.unbind(1) for latent in queue.push(frame)], 1)

    def _trimmed(self, folded: Tensor, latents: int, clamp: bool) -> Tensor:
        run = kept_runs(latents, self.spec)[0]
        frames = unfold_pixels(folded[:, run.start : run.stop], self.spec.patch_size)
        return frames.clamp(0, 1) if clamp else frames


def _parallel(chain: nn.ModuleList, frames: Tensor) -> Tensor:
    clips = frames.shape[0]
    x = frames.flatten(0, 1)
    for block in chain:
        if isinstance(block, Memory):
            over_time = x.unflatten(0, (clips, -1))
            past = F.pad(over_time, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
            x = block(x, past.flatten(0, 1))
        else:
            x = block(x)
    return x.unflatten(0, (clips, -1))


class Queue:
    """Work waiting as (frame, place in the chain); the frame that is furthest along goes first."""

    def __init__(self, chain: nn.ModuleList) -> None:
        self.chain = chain
        self.past: list[Tensor | None] = [None] * len(chain)
        self.waiting: list[list[Tensor]] = [[] for _ in chain]

    def push(self, frame: Tensor) -> list[Tensor]:
        queue: deque[tuple[Tensor, int]] = deque([(frame, 0)])
        done = []
        while queue:
            x, place = queue.popleft()
            if place == len(self.chain):
                done.append(x)
                continue
            queue.extendleft(reversed([(y, place + 1) for y in self._step(x, place)]))
        return done

    def _step(self, x: Tensor, place: int) -> list[Tensor]:
        block = self.chain[place]
        if isinstance(block, Memory):
            past = self.past[place]
            self.past[place] = x
            return [block(x, torch.zeros_like(x) if past is None else past)]
        if isinstance(block, TPool):
            self.waiting[place].append(x)
            if len(self.waiting[place]) < block.stride:
                return []
            group = torch.stack(self.waiting[place], 1).flatten(0, 1)
            self.waiting[place] = []
            return [block(group)]
        if isinstance(block, TGrow):
            return list(block(x).unflatten(0, (x.shape[0], block.stride)).unbind(1))
        return [block(x)]
