"""The parallel chain for training with the folds of `fold`: gradients reach the public weights through the folded ones.

Frames are kept in channels-last order, repeat + TGrow + 3×3 run as one transposed convolution, TPool + strided 3×3 as one
strided convolution, and where the first frames are thrown away the last memory block and what follows leave them out. The folded
weights are made anew in each pass, in fp32, by operations that autograd sees; they cost less than one convolution.

Folding reads the weights of blocks without calling them, so it needs them whole: not under ZeRO-3.
"""

from collections.abc import Callable
from functools import partial, reduce
from itertools import groupby, pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyworld.models.taehv.blocks import TGrow, TPool, UpConv, has_memory
from tinyworld.models.taehv.fold import after_pointwise, repeat_then_conv

Piece = Callable[[Tensor], Tensor]


def run_fused(blocks: nn.Sequential, frames: Tensor, drop: int = 0, checkpointing: bool = False) -> Tensor:
    """`run_parallel` of the public blocks without the first `drop` frames of its result. N T C H W → N T' C' H' W'.

    With `checkpointing` only the inputs of memory blocks, and of what lies between them, stay in memory for the backward pass.
    """
    clips = frames.shape[0]
    x = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    each = next((block.stride for block in reversed(blocks) if isinstance(block, TGrow)), 1)
    pieces = _pieces(list(blocks), clips, drop // each)
    for piece in _segments(pieces) if checkpointing else pieces:
        if checkpointing and torch.is_grad_enabled():
            x = cast(Tensor, checkpoint(piece, x, use_reentrant=False, preserve_rng_state=False))
        else:
            x = piece(x)
    return x.unflatten(0, (clips, -1))[:, drop % each :]


def _pieces(blocks: list[nn.Module], clips: int, drop: int) -> list[Piece]:
    """`drop`: frames that the last memory block need not answer."""
    last = max((place for place, block in enumerate(blocks) if has_memory(block)), default=-1)
    pieces: list[Piece] = []
    for place, (block, following) in enumerate(pairwise([*blocks, nn.Identity()])):
        if has_memory(block):
            pieces.append(partial(_remember, block, clips, drop if place == last else 0))
        elif isinstance(block, TPool):
            pieces.append(partial(_pool, block, cast(nn.Conv2d, following)))
        elif isinstance(block, TGrow):
            pieces.append(partial(_grow, block, following if isinstance(following, UpConv) else None))
        elif not (isinstance(block, UpConv) or (place and isinstance(blocks[place - 1], TPool))):
            pieces.append(block)
    return pieces


def _segments(pieces: list[Piece]) -> list[Piece]:
    """Memory blocks alone and the others between them together: what follows in a segment may write into its input."""
    alone = groupby(pieces, lambda piece: isinstance(piece, partial) and piece.func is _remember)
    segments: list[Piece] = []
    for remembers, run in alone:
        segments += run if remembers else [partial(_one_after_another, list(run))]
    return segments


def _one_after_another(pieces: list[Piece], x: Tensor) -> Tensor:
    return reduce(lambda value, piece: piece(value), pieces, x)


def _remember(block: nn.Module, clips: int, drop: int, x: Tensor) -> Tensor:
    clip = x.permute(0, 2, 3, 1).unflatten(0, (clips, -1))
    if drop:
        past, present = clip[:, drop - 1 : -1], clip[:, drop:]
    else:
        past, present = torch.cat([torch.zeros_like(clip[:, :1]), clip[:, :-1]], 1), clip
    return cast(Tensor, block(_frames(present), _frames(past)))


def _pool(pool: TPool, strided: nn.Conv2d, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        weights = [after_pointwise(strided.weight, part) for part in pool.conv.weight.chunk(pool.stride, 1)]
    grouped = x.permute(0, 2, 3, 1).unflatten(0, (-1, pool.stride)).permute(0, 2, 3, 1, 4).flatten(3)
    return F.conv2d(grouped.permute(0, 3, 1, 2), torch.cat(weights, 1), stride=2, padding=1)


def _grow(grow: TGrow, up: UpConv | None, x: Tensor) -> Tensor:
    parts = grow.conv.weight.chunk(grow.stride)
    with torch.autocast(x.device.type, enabled=False):
        weights = list(parts) if up is None else [after_pointwise(up.weight, part) for part in parts]
        if up is not None and up.scale > 1:
            weights = [repeat_then_conv(weight) for weight in weights]
    if up is not None and up.scale > 1:
        grown = F.conv_transpose2d(x, torch.cat(weights, 1), stride=2, padding=1)
    else:
        grown = F.conv2d(x, torch.cat(weights), padding=0 if up is None else 1)
    return _frames(grown.permute(0, 2, 3, 1).unflatten(3, (grow.stride, -1)).permute(0, 3, 1, 2, 4))


def _frames(clip: Tensor) -> Tensor:
    """N T H W C → NT C H W in channels-last order."""
    return clip.flatten(0, 1).permute(0, 3, 1, 2)
