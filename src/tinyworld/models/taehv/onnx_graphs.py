"""What is written as ONNX: folded networks as modules of tensors alone, over whole clips or one latent at a time.

Shapes N (clips), T, H, W and the number of latents stay free: which frames are kept is computed by the graph itself, from the
lengths that it is given. `core.frames` has the same laws over integers; tests hold the two together.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.core.frames import H3_CHUNK, H3_CHUNK_LATENTS, H3_LAST_LATENTS, H3_LEAD
from tinyworld.core.variants import TaehvSpec
from tinyworld.models.taehv.folded import DecoderStage, EncoderStage, FoldedDecoder, FoldedEncoder, UpHead
from tinyworld.models.taehv.sequential import fold_pixels, unfold_pixels


class PhasedUpHead(nn.Module):
    """`UpHead` without strips and without writing into parts of a tensor, which graphs have no good form for.

    Each of the four pixels that a pixel becomes is a picture of its own: made by one 2×2 convolution, read by another; what lies
    outside is the padding of these. In ONNX Runtime 1.4 times as fast as windows with cleared borders, and 2.3 times as fast as a
    transposed convolution (21, 29 and 49 ms on one core for 64 channels of 120 × 208).
    """

    def __init__(self, head: UpHead) -> None:
        super().__init__()
        assert head.last.bias is not None
        self.ups, self.lasts = head.up.weight.chunk(4), head.last.weight.chunk(4, 1)
        self.bias = head.last.bias

    def forward(self, x: Tensor) -> Tensor:
        out = None
        for place, (up, last) in enumerate(zip(self.ups, self.lasts, strict=True)):
            down, right = divmod(place, 2)
            pixels = F.conv2d(F.pad(x, (1 - right, right, 1 - down, down)), up).relu()
            padded = F.pad(pixels, (right, 1 - right, down, 1 - down))
            part = F.conv2d(padded, last, self.bias if out is None else None)
            out = part if out is None else out + part
        return F.pixel_shuffle(cast(Tensor, out), 2)


def exportable(decoder: FoldedDecoder) -> FoldedDecoder:
    """A copy on the CPU whose every part has a good form in a graph."""
    made = FoldedDecoder.__new__(FoldedDecoder)
    nn.Module.__init__(made)
    made.__dict__.update({key: value for key, value in decoder.__dict__.items() if not key.startswith("_")})
    for name, child in decoder.named_children():
        made.add_module(name, copy.deepcopy(child).cpu())
    made.compiled = None
    for stage in made.stages:
        frames = cast(DecoderStage, stage).frames
        for place, make in enumerate(frames):
            if isinstance(make, UpHead):
                frames[place] = PhasedUpHead(make)
    return made


class DecodeStep(nn.Module):
    """One latent N c h w and the state → its frames N t C H W, those that the law drops included, and the next state."""

    def __init__(self, decoder: FoldedDecoder, patch: int, clamp: bool) -> None:
        super().__init__()
        self.decoder, self.patch, self.clamp = decoder, patch, clamp
        self.keep = [True] * frames_per_latent(decoder)

    def forward(self, latent: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        made, after = self.decoder.step(latent, list(past), self.keep)
        frames = unfold_pixels(torch.stack(made, 1), self.patch)
        return frames.clamp(0, 1) if self.clamp else frames, cast(list[Tensor], after)


class EncodeStep(nn.Module):
    """The frames of one latent N t C H W and the state → the latent N c h w, and the next state."""

    def __init__(self, encoder: FoldedEncoder, patch: int) -> None:
        super().__init__()
        self.encoder, self.patch = encoder, patch

    def forward(self, frames: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        parts = [fold_pixels(frame, self.patch) for frame in frames.unbind(1)]
        latent, after = self.encoder.step(parts, list(past))
        return latent, cast(list[Tensor], after)


class DecodeClip(nn.Module):
    """`Taehv.decode`: N L c h w → N T C H W in [0, 1]. All frames at once, block by block."""

    def __init__(self, decoder: FoldedDecoder, spec: TaehvSpec) -> None:
        super().__init__()
        self.decoder, self.spec = decoder, spec

    def forward(self, latents: Tensor) -> Tensor:
        clips, count = latents.shape[:2]
        net, length = self.decoder, count
        x = net.stem(net.clamp(latents.flatten(0, 1)), relu=net.relu_first)
        for stage in (cast(DecoderStage, each) for each in net.stages):
            x = stage.shared(_remembering(stage.memories, x, clips, length))
            x = torch.stack([make(x) for make in stage.frames], 1).flatten(0, 1)
            length = length * len(stage.frames)
        frames = unfold_pixels(x, self.spec.patch_size).unflatten(0, (clips, length))
        return frames.index_select(1, kept_outputs(count, self.spec)).clamp(0, 1)


class EncodeClip(nn.Module):
    """`Taehv.encode`: N T C H W → N L c h w. All frames at once, block by block."""

    def __init__(self, encoder: FoldedEncoder, spec: TaehvSpec) -> None:
        super().__init__()
        self.encoder, self.spec = encoder, spec

    def forward(self, frames: Tensor) -> Tensor:
        clips, count = frames.shape[:2]
        h3 = self.spec.flavour == "h3"
        group = H3_CHUNK if h3 else self.spec.t_down
        groups = (count + group - 1) // group
        filled = frames.index_select(1, torch.arange(groups * group).clamp(max=count - 1))
        if not h3:
            return self._encode(filled, clips, groups)
        led = F.pad(filled.unflatten(1, (groups, group)), (0, 0, 0, 0, 0, 0, H3_LEAD, 0)).flatten(0, 1)
        latents = (
            self._encode(led, clips * groups, H3_CHUNK_LATENTS)
            .flatten(0, 1)
            .unflatten(0, (clips, groups * H3_CHUNK_LATENTS))
        )
        # What follows the last chunk's first frames is computed too, and left out: nothing looks ahead.
        return latents[:, : (groups - 1) * H3_CHUNK_LATENTS + H3_LAST_LATENTS]

    def _encode(self, frames: Tensor, clips: int, latents: int) -> Tensor:
        net, length = self.encoder, latents * self.spec.t_down
        x = net.stem(fold_pixels(frames.flatten(0, 1), self.spec.patch_size), relu=True)
        for stage in (cast(EncoderStage, each) for each in net.stages):
            length = length // len(stage.merge)
            grouped = x.unflatten(0, (clips * length, len(stage.merge)))
            x = stage.merge[0](grouped[:, 0])
            for place, layer in enumerate(list(stage.merge)[1:], 1):
                x = layer(grouped[:, place], x)
            x = _remembering(stage.memories, x, clips, length)
        return cast(Tensor, net.head(x)).unflatten(0, (clips, latents))


def frames_per_latent(decoder: FoldedDecoder) -> int:
    """Raw output frames of one step."""
    count = 1
    for stage in decoder.stages:
        count *= len(cast(DecoderStage, stage).frames)
    return count


def kept_outputs(latents: int, spec: TaehvSpec) -> Tensor:
    """Indices of the raw output frames that belong to the clip, as in `core.frames.kept_runs`; `latents` may be symbolic."""
    each, late = spec.t_up, spec.t_up - 1
    if spec.flavour == "h3":
        chunk = H3_CHUNK_LATENTS * each
        chunks = (latents + H3_CHUNK_LATENTS - 1) // H3_CHUNK_LATENTS
        shown = torch.arange(latents * each - chunks * late)
        return shown // (chunk - late) * chunk + shown % (chunk - late) + late
    dropped = late * (latents % 2) if spec.flavour == "cogvideox" else late
    return torch.arange(latents * each - dropped) + dropped


def _remembering(memories: nn.ModuleList, x: Tensor, clips: int, count: int) -> Tensor:
    """Memory blocks over all frames of all clips (N·T C H W): each sees what it was given one frame earlier.

    Lengths are told, not derived from x: symbolic quotients make the export ten times as slow.
    """
    for memory in memories:
        clip = x.unflatten(0, (clips, count))
        past = torch.cat([torch.zeros_like(clip[:, :1]), clip], 1)[:, :count]
        x = memory(x, past.flatten(0, 1))
    return x
