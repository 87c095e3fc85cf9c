"""TAEHV over clips that arrive piece by piece: frames in, latents out; latents in, frames out.

Both classes hold the whole state of a clip in the open (`state` and counters); its size does not depend on the length
of the clip. They are what sequential execution and streaming are made of, for the public blocks (gradients flow if they are
enabled) and for the folded networks of `folded`.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.core.errors import FramePlanError
from tinyworld.core.frames import (
    H3_CHUNK,
    H3_LAST_LATENTS,
    H3_LEAD,
    encoded_count,
    is_kept,
    round_trip_plan,
)
from tinyworld.core.variants import IMAGE_CHANNELS, TaehvSpec
from tinyworld.models.taehv.blocks import State, new_state, run_sequential
from tinyworld.models.taehv.folded import FoldedDecoder, FoldedEncoder
from tinyworld.models.taehv.strips import Strips


def fold_pixels(frames: Tensor, patch: int) -> Tensor:
    """… C H W → … C·p² H/p W/p."""
    return F.pixel_unshuffle(frames, patch) if patch > 1 else frames


def unfold_pixels(folded: Tensor, patch: int) -> Tensor:
    """… C·p² h w → … C h·p w·p."""
    return F.pixel_shuffle(folded, patch) if patch > 1 else folded


class SequentialEncoder:
    """Encodes one clip (or N clips side by side) that arrives in pieces; folded blocks in `strips`, if they are given."""

    def __init__(self, blocks: nn.Sequential | FoldedEncoder, spec: TaehvSpec, strips: Strips | None = None) -> None:
        self.blocks, self.spec, self.strips = blocks, spec, strips
        self.reset()

    def reset(self) -> None:
        """Start a new clip."""
        self.state: State = _new_state(self.blocks)
        self.frames_in = 0
        self.last_frame: Tensor | None = None
        self.held: list[Tensor] = []
        """H3: latents that belong to the clip only if another chunk follows."""

    def push(self, frames: Tensor) -> Tensor:
        """N t C H W, any t → the latents that are complete now, N l c h w with l ≥ 0."""
        latents = [latent for frame in frames.unbind(1) for latent in self._feed(frame)]
        if latents:
            return torch.stack(latents, 1)
        cells = (size // self.spec.spatial_compression for size in frames.shape[-2:])
        return frames.new_empty(frames.shape[0], 0, self.spec.latent_channels, *cells)

    def finish(self, round_trip: bool = False) -> Tensor:
        """End the clip: its last frame is repeated until the last latent is full. N l c h w; then `reset`.

        With `round_trip` it is repeated further, until decoding gives every frame back.
        Raises FramePlanError when no frame was given.
        """
        wanted = (
            round_trip_plan(self.frames_in, self.spec).encoded_frames
            if round_trip
            else encoded_count(self.frames_in, self.spec)
        )
        assert self.last_frame is not None  # frames_in ≥ 1, or the count above was refused
        missing = max(wanted - self.frames_in, 0)
        latents = self.push(self.last_frame[:, None].expand(-1, missing, -1, -1, -1))
        self.reset()
        return latents

    def _feed(self, frame: Tensor) -> list[Tensor]:
        """One frame N C H W in; the latents N c h w that certainly belong to the clip and were not given out yet."""
        inputs, ready = [frame], []
        place = self.frames_in % H3_CHUNK
        if self.spec.flavour == "h3" and place == 0:
            self.state = _new_state(self.blocks)
            inputs = [torch.zeros_like(frame)] * H3_LEAD + inputs
            ready, self.held = self.held, []
        self.frames_in += 1
        self.last_frame = frame
        folded = (fold_pixels(x, self.spec.patch_size) for x in inputs)
        for latent in self._run(folded):
            uncertain = self.spec.flavour == "h3" and (H3_LEAD + place + 1) // self.spec.t_down > H3_LAST_LATENTS
            (self.held if uncertain else ready).append(latent)
        return ready

    def _run(self, frames: Iterable[Tensor]) -> Iterable[Tensor]:
        if isinstance(self.blocks, FoldedEncoder):
            return self.blocks.run(frames, self.state, self.strips)
        return run_sequential(self.blocks, frames, self.state)


class SequentialDecoder:
    """Decodes one clip (or N clips side by side) whose latents arrive in pieces.

    `num_latents` is how many will come in all. CogVideoX's law needs it, because it drops the first frames only when
    that number is odd; the others do not. Raises FramePlanError where it is missing, or when more latents arrive.
    """

    def __init__(
        self,
        blocks: nn.Sequential | FoldedDecoder,
        spec: TaehvSpec,
        num_latents: int | None = None,
        strips: Strips | None = None,
    ) -> None:
        if spec.flavour == "cogvideox" and num_latents is None:
            raise FramePlanError(
                "Decoding CogVideoX latents piece by piece needs num_latents, the number that will come in all: the "
                f"first {spec.t_up - 1} frames are dropped when it is odd and kept when it is even."
            )
        self.blocks, self.spec, self.num_latents, self.strips = blocks, spec, num_latents, strips
        self.reset()

    def reset(self) -> None:
        """Start a new clip of the same length."""
        self.state: State = _new_state(self.blocks)
        self.latents_in = 0
        self.outputs = 0
        """Raw output frames so far, dropped ones included."""

    def push(self, latents: Tensor) -> Tensor:
        """N l c h w, any l → the frames that are complete now, N t C H W with t ≥ 0, not clamped."""
        self.latents_in += latents.shape[1]
        if self.num_latents is not None and self.latents_in > self.num_latents:
            raise FramePlanError(f"{self.latents_in} latents came where num_latents={self.num_latents} were announced.")
        frames = [
            unfold_pixels(folded, self.spec.patch_size) for latent in latents.unbind(1) for folded in self._run(latent)
        ]
        if frames:
            return torch.stack(frames, 1)
        pixels = (size * self.spec.spatial_upscale for size in latents.shape[-2:])
        return latents.new_empty(latents.shape[0], 0, IMAGE_CHANNELS, *pixels)

    def _run(self, latent: Tensor) -> list[Tensor]:
        """The frames of one latent that are kept."""
        keep = [is_kept(self.outputs + at, self.num_latents, self.spec) for at in range(self.spec.t_up)]
        self.outputs += len(keep)
        if isinstance(self.blocks, FoldedDecoder):
            return self.blocks.run(latent, self.state, keep, self.strips)
        made = run_sequential(self.blocks, [latent], self.state)
        return [frame for frame, wanted in zip(made, keep, strict=True) if wanted]


def _new_state(blocks: nn.Sequential | FoldedEncoder | FoldedDecoder) -> State:
    return new_state(blocks) if isinstance(blocks, nn.Sequential) else blocks.new_state()
