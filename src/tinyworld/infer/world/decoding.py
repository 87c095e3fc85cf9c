"""Latents of a clip to frames, as they come where the codec can."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tinyworld.infer.codec import TaehvCodec, VaeCodec
from tinyworld.models.taehv import StreamingTaehv


@torch.no_grad()
def decode_stream(codec: VaeCodec | TaehvCodec, latents: Tensor) -> Iterator[Tensor]:
    """N 16 t h w → pieces N n 3 H W, float32 in [0, 1], 4(t - 1) + 1 frames in all.

    A TAEHV gives the first frame for the first latent and four for each other one, in the memory of one latent; the VAE, whose
    own decoding keeps what it needs between latents, gives the clip as one piece.
    """
    if isinstance(codec, VaeCodec):
        yield codec.decode(latents, 4 * (latents.shape[2] - 1) + 1)
        return
    stream = StreamingTaehv(codec.model)
    with torch.autocast(codec.device.type, enabled=False):
        for latent in latents.to(codec.device).split(1, dim=2):
            frames = stream.decode(latent.transpose(1, 2))
            if frames.shape[1]:
                yield frames.float().to(latents.device)
