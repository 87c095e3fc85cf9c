"""Structured pruning: a narrower model out of the most important channels of a wide one.

Between two convolutions lies a set of channels that some convolutions write and others read. A set may run through many
blocks: the memory blocks of a stage add to the channels that they read. Of every set the same share is kept, and all
convolutions that touch the set are cut alike, so the result is an ordinary TAEHV with smaller widths.

A few real clips decide. The importance of a channel is the energy that it brings into the convolutions that read it:
mean square of the channel × squared norm of the weights that it meets. The readers then make up for the channels that
are gone: each takes what can be predicted of them, linearly (least squares), from the channels that stay; as in He et
al. 2017, arXiv:1707.06168. Norms of weights alone, as in Li et al. 2017 (arXiv:1608.08710), leave nothing of a model.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.variants import TaehvSpec
from tinyworld.models.taehv.blocks import MemBlock, SuperMemBlock, TGrow, TPool
from tinyworld.models.taehv.layout import build_decoder, build_encoder, expected_shapes
from tinyworld.models.taehv.model import Taehv

WIDTH_MULTIPLE = 8
"""Widths are rounded up to multiples of this: fewer channels run no faster on any hardware that vectorises."""
RIDGE = 1e-3
"""Of the least squares, as a share of the mean square of the inputs."""


@dataclass(frozen=True)
class Axis:
    """How the input or output axis of a convolution weight is made of a set of channels.

    channels: the set, named after where it is made. copies: how often it comes: stacked frames, or a frame and its
    predecessor, whole sets one after another; with `adjacent` (before a PixelShuffle) the copies of a channel lie side by
    side.
    """

    channels: str
    copies: int = 1
    adjacent: bool = False

    def fold(self, values: Tensor) -> Tensor:
        """One value per position of the axis → their sum per channel."""
        return values.unflatten(0, (-1, self.copies)).sum(1) if self.adjacent else values.view(self.copies, -1).sum(0)

    def positions(self, kept: Tensor, length: int) -> Tensor:
        """Where the kept channels lie on an axis of this length."""
        copy = torch.arange(self.copies)
        if self.adjacent:
            return (kept[:, None] * self.copies + copy).flatten()
        return (copy[:, None] * (length // self.copies) + kept).flatten()


@dataclass(frozen=True)
class Connection:
    """A convolution and the sets it writes and reads; None for pixels and latents, and for a depthwise input axis."""

    key: str
    written: Axis | None
    read: Axis | None


def narrower(spec: TaehvSpec, keep: float) -> TaehvSpec:
    """The architecture with `keep` (0 to 1) of the channels, rounded up to multiples of 8. Raises ConfigError."""
    if not 0 < keep <= 1:
        raise ConfigError(f"keep={keep} is the share of the channels that stay: above 0, at most 1, such as 0.75.")
    first, second, third, last = (_narrower_width(width, keep) for width in spec.decoder_widths)
    return replace(
        spec, encoder_width=_narrower_width(spec.encoder_width, keep), decoder_widths=(first, second, third, last)
    )


def _narrower_width(width: int, keep: float) -> int:
    asked = round(width * keep, 6)  # 80 × 0.7 is a little more than 56 in floating point
    return min(width, math.ceil(asked / WIDTH_MULTIPLE) * WIDTH_MULTIPLE)


def prune(model: Taehv, keep: float, clips: Iterable[Tensor]) -> Taehv:
    """A model with `keep` (0 to 1) of the channels of every stage (see `narrower`), on tensors of its own, on the CPU.

    `clips` (each N T C H W in [0, 1], on the model's device, any size) are what the channels are chosen on: a dozen short
    ones, as varied as the later use. The result is worse than `model` until it has been trained again for a while; with
    keep=1 it is the same. Raises ConfigError, and DataError for wrong clips or none.
    """
    spec = narrower(model.spec, keep)
    tensors = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    moments = input_moments(model, clips)
    return Taehv.assembled(spec, cut(tensors, moments, model.spec, spec)).train(model.training)


@torch.no_grad()
def input_moments(model: Taehv, clips: Iterable[Tensor]) -> dict[str, Tensor]:
    """For every convolution, by key, the mean over pixels, frames and clips of x xᵀ, x its input channels (C C, float64).

    Raises DataError for wrong clips or none.
    """
    keys = {link.key for link in connections(model.spec)}
    moments: dict[str, Tensor] = {}

    def watch(key: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
            pixels = inputs[0].transpose(0, 1).flatten(1).float()
            moment = (pixels @ pixels.T / pixels.shape[1]).double().cpu()
            moments[key] = moments[key] + moment if key in moments else moment

        return add

    watched = [part.register_forward_pre_hook(watch(key)) for key, part in model.named_modules() if key in keys]
    count = 0
    try:
        for clip in clips:
            model.reconstruct(clip)
            count += 1
    finally:
        for hook in watched:
            hook.remove()
    if not count:
        raise DataError("Pruning chooses channels by what they do on clips, and no clip was given.")
    return {key: moment / count for key, moment in moments.items()}


def cut(
    tensors: Mapping[str, Tensor], moments: Mapping[str, Tensor], spec: TaehvSpec, smaller: TaehvSpec
) -> dict[str, Tensor]:
    """The tensors of `spec` cut to those of `smaller`, which differs in widths only. moments: see `input_moments`."""
    shapes, links = expected_shapes(smaller), connections(spec)
    scores = importance(tensors, moments, links)
    kept: dict[str, Tensor] = {}
    for link in links:
        if link.read is not None:
            length = shapes[f"{link.key}.weight"][1]
            kept.setdefault(link.read.channels, _largest(scores[link.read.channels], length // link.read.copies))
    small = {}
    for link in links:
        weight, bias = tensors[f"{link.key}.weight"], tensors.get(f"{link.key}.bias")
        if link.read is not None:
            weight = _made_up(weight, link.read.positions(kept[link.read.channels], weight.shape[1]), moments[link.key])
        small[f"{link.key}.weight"] = _kept_outputs(weight, link.written, kept)
        if bias is not None:
            small[f"{link.key}.bias"] = _kept_outputs(bias, link.written, kept)
    return small


def _kept_outputs(tensor: Tensor, written: Axis | None, kept: Mapping[str, Tensor]) -> Tensor:
    if written is None:
        return tensor.clone()
    return tensor[written.positions(kept[written.channels], tensor.shape[0])]


def _made_up(weight: Tensor, kept: Tensor, moment: Tensor) -> Tensor:
    """The weight (O I h w) for the kept inputs alone, which take over what they can predict of the others.

    The prediction minimises the mean square error on the clips; the ridge keeps it sane where inputs hardly differ.
    """
    gone = torch.ones(weight.shape[1], dtype=torch.bool)
    gone[kept] = False
    if not gone.any():
        return weight[:, kept]
    own = moment[kept][:, kept]
    ridge = (RIDGE * own.diagonal().mean()).clamp_min(torch.finfo(own.dtype).tiny)
    prediction = torch.linalg.solve(own + ridge * torch.eye(len(kept)), moment[kept][:, gone])
    taken_over = torch.einsum("oghw,kg->okhw", weight[:, gone].double(), prediction)
    return (weight[:, kept].double() + taken_over).to(weight.dtype)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, ascending; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def importance(
    tensors: Mapping[str, Tensor], moments: Mapping[str, Tensor], links: list[Connection]
) -> dict[str, Tensor]:
    """Energy that each channel of every set brings into its readers, by the set's name."""
    scores: dict[str, Tensor] = {}
    for link in links:
        if link.read is not None:
            energy = tensors[f"{link.key}.weight"].double().square().sum((0, 2, 3)) * moments[link.key].diagonal()
            found = link.read.fold(energy)
            scores[link.read.channels] = scores.get(link.read.channels, torch.zeros_like(found)) + found
    return scores


def connections(spec: TaehvSpec) -> list[Connection]:
    """Every convolution of an architecture with its sets of channels, in the order of the state dict."""
    with torch.device("meta"):
        parts = {"encoder": build_encoder(spec), "decoder": build_decoder(spec)}
    return [link for part, blocks in parts.items() for link in _chain(part, list(blocks))]


def _chain(part: str, blocks: list[nn.Module]) -> Iterator[Connection]:
    stream: Axis | None = None  # the channels of the frames between this block and the one before
    for index, block in enumerate(blocks):
        place = f"{part}.{index}"
        made = Axis(place) if index < len(blocks) - 1 else None
        if isinstance(block, MemBlock | SuperMemBlock):
            if stream is None:
                raise ValueError(f"{place} would remember pixels or latents; a convolution must come first")
            yield from _inside(place, block, stream)
        elif isinstance(block, TPool):
            yield Connection(f"{place}.conv", made, _copies(stream, block.stride))
            stream = made
        elif isinstance(block, TGrow):
            yield Connection(f"{place}.conv", _copies(made, block.stride), stream)
            stream = made
        elif isinstance(block, nn.Conv2d):
            after = blocks[index + 2] if index + 2 < len(blocks) else None
            shuffled = after.upscale_factor**2 if isinstance(after, nn.PixelShuffle) else 1
            yield Connection(place, Axis(place, shuffled, shuffled > 1) if made else None, stream)
            stream = made


def _inside(place: str, block: MemBlock | SuperMemBlock, stream: Axis) -> Iterator[Connection]:
    """A memory block reads frame and predecessor side by side and adds to the frame's own channels."""
    both = replace(stream, copies=2)
    if isinstance(block, MemBlock):
        first, second = Axis(f"{place}.conv.0"), Axis(f"{place}.conv.2")
        yield Connection(f"{place}.conv.0", first, both)
        yield Connection(f"{place}.conv.2", second, first)
        yield Connection(f"{place}.conv.4", stream, second)
    else:
        inner = Axis(f"{place}.conv.1")
        yield Connection(f"{place}.conv.0", both, None)
        yield Connection(f"{place}.conv.1", inner, both)
        yield Connection(f"{place}.conv.3", stream, inner)


def _copies(axis: Axis | None, copies: int) -> Axis | None:
    return None if axis is None else replace(axis, copies=copies)
