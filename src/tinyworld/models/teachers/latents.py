"""Latents in the convention that a diffusion model sees, from the latents that a VAE's own encode returns.

Every convention is affine per channel, y = (z - shift) · scale. Constants and formulas as in the pipelines of diffusers
(0.42), which undo them before decoding:

| class | convention | shift | scale |
|---|---|---|---|
| any | raw | 0 | 1 |
| CogVideoX, HunyuanVideo, HunyuanVideo 1.5 | scaled | shift_factor, or 0 when the config has none | scaling_factor |
| Wan 2.1, 2.2 | normalised | latents_mean | 1 / latents_std |
| LTX-Video, LTX-2 | normalised | latents_mean | scaling_factor / latents_std |

Wan's constants stand in the config, LTX's in the weight file. CogVideoX's default is raw, although its pipelines scale:
the public taecvx weights speak raw CogVideoX latents, and factors differ between CogVideoX 1.0 and 1.5 (0.7).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tinyworld.core.errors import WeightsError

Convention = Literal["raw", "scaled", "normalised"]


@dataclass(frozen=True)
class Posterior:
    """Diagonal normal distribution over latents in the teacher's stated convention.

    mean, logvar: N L c h w, float32.
    """

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A draw, N L c h w float32, from standard normal noise of that shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise


def constants(vae: Any, kind: str, channels: int, convention: Convention) -> tuple[Tensor, Tensor]:
    """shift and scale, each float32 of `channels` values. Raises WeightsError for constants that describe no convention."""
    config = vae.config
    ltx = kind in ("ltx", "ltx2")
    shift: Any = 0.0
    scale: Any = 1.0
    if convention == "scaled":
        shift = getattr(config, "shift_factor", None) or 0.0
        scale = config.scaling_factor
    elif convention == "normalised":
        source = vae if ltx else config
        shift = source.latents_mean
        scale = (config.scaling_factor if ltx else 1.0) / torch.as_tensor(source.latents_std, dtype=torch.float64)
    tensors = [torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in (shift, scale)]
    if any(value.numel() not in (1, channels) for value in tensors):
        sizes = " and ".join(str(value.numel()) for value in tensors)
        raise WeightsError(
            f"The teacher's latents_mean and latents_std have {sizes} values, but its latents have {channels} channels."
        )
    shift, scale = (value.reshape(-1).expand(channels).float().contiguous() for value in tensors)
    if not (shift.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
        raise WeightsError(
            f"The teacher's constants for {convention} latents are not usable: scaling_factor and every latents_std must "
            "be positive, latents_mean and shift_factor finite. Its config or weight file is damaged."
        )
    return shift, scale
