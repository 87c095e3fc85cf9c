"""Streaming: frames in → latents out, latents in → frames out, while the clip is still coming."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, DataError, FramePlanError
from tinyworld.models.taehv.model import Taehv, pad_to_multiple
from tinyworld.models.taehv.sequential import SequentialDecoder, SequentialEncoder
from tinyworld.models.taehv.strips import Strips
from tinyworld.models.taehv.tiling import checked_tile, decoder_halo, encoder_halo


class StreamingTaehv:
    """A TAEHV model, best an optimised one, fed piece by piece; memory does not grow with the clip. No gradients.

    The pieces together equal `model.encode` and `model.decode` of the whole up to rounding. Encoder and decoder run
    independently, so either can be used alone. For CogVideoX models `num_latents` (how many latents the decoder will
    be given in all) is needed before the first frame can leave; other models do not look at it. Raises FramePlanError
    where it is missing. `tile` (latent cells) computes large pictures in strips of that height, equal to the whole up to
    rounding (see `strips`). Raises ConfigError for one of less than one cell, and for a model that is not optimised.

        stream = StreamingTaehv(model)
        for frame in frames:                       # each N 1 C H W
            show(stream.decode(stream.encode(frame)))
        show(stream.decode(stream.flush_encoder(round_trip=True)))
    """

    def __init__(self, model: Taehv, num_latents: int | None = None, tile: int | None = None) -> None:
        self.model = model
        if tile is not None and isinstance(model.chains[0], nn.Sequential):
            raise ConfigError(f"tile={tile} is for the folded form of a model; give StreamingTaehv model.optimize().")
        encoder, decoder = model.chains
        above, below = (
            None if tile is None else Strips(checked_tile(tile), halo)
            for halo in (encoder_halo(), decoder_halo(model.spec))
        )
        self.encoder = SequentialEncoder(encoder, model.spec, above)
        self.decoder = SequentialDecoder(decoder, model.spec, num_latents, below)

    def reset(self) -> None:
        """Forget the clip; the next piece starts a new one."""
        self.encoder.reset()
        self.decoder.reset()

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """N t C H W in [0, 1], any t → the latents that are complete now, N l c h w with l ≥ 0. Raises DataError."""
        self.model.check_frames(frames)
        return self.encoder.push(frames)

    @torch.no_grad()
    def flush_encoder(self, round_trip: bool = False) -> Tensor:
        """End the clip: the latents that were still open, N l c h w; the encoder then waits for a new clip.

        The last frame fills the last latent; with `round_trip` it is repeated until decoding gives every frame back
        (the decoder then makes more frames than came in; cut them). Raises FramePlanError when no frame was given.
        """
        return self.encoder.finish(round_trip)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """N l c h w, any l → the frames that are complete now, N t C H W in [0, 1] with t ≥ 0. Raises DataError."""
        self.model.check_latents(latents)
        return self.decoder.push(latents).clamp(0, 1)

    @torch.no_grad()
    def reconstruct(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Round trip of one clip in pieces (N t C H W, any t ≥ 1, any height and width).

        Yields pieces as soon as they are decoded; together they are as many frames as came in. CogVideoX models need
        `num_latents` of `core.frames.round_trip_plan`. Raises DataError (also when the picture size changes), and
        FramePlanError when another number of latents was announced than came.
        """
        self.reset()
        taken = given = 0
        height = width = 0
        for piece in pieces:
            self.model.check_frames(piece, any_size=True)
            if taken and piece.shape[-2:] != (height, width):
                raise DataError(f"the picture size changes from {height} × {width} to {_size(piece)} in the clip")
            height, width = piece.shape[-2:]
            taken += piece.shape[1]
            decoded = self.decode(self.encode(pad_to_multiple(piece, self.model.spec.size_multiple)))
            given += decoded.shape[1]
            if decoded.shape[1]:
                yield decoded[..., :height, :width]
        rest = self.decode(self.flush_encoder(round_trip=True))[:, : taken - given]
        announced, came = self.decoder.num_latents, self.decoder.latents_in
        if announced not in (None, came):
            raise FramePlanError(
                f"{taken} frames make {came} latents, but num_latents={announced} were announced, on which the frames "
                f"that are kept depend. Use num_latents={came}, round_trip_plan(n_frames).latent_frames.",
                (came,),
            )
        if rest.shape[1]:
            yield rest[..., :height, :width]


def _size(frames: Tensor) -> str:
    return f"{frames.shape[-2]} × {frames.shape[-1]}"
