"""Activations of a teacher's encoder, for a perceptual loss in the teacher's own terms.

Source of the idea: Turbo-VAED (arXiv:2508.09136) distils a decoder with features of its teacher.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def encoder_features(vae: Any, frames: Tensor) -> list[Tensor]:
    """Outputs of the encoder's first convolution and of each of its down stages, each N t C h w.

    frames: N C T H W in [-1, 1]. Chunks that an encoder works through one after the other are joined in time.
    """
    stages = _stages(vae.encoder)
    chunks: list[list[Tensor]] = [[] for _ in stages]
    handles = [stage.register_forward_hook(_keep(kept)) for stage, kept in zip(stages, chunks, strict=True)]
    try:
        with _whole_clips(vae):
            vae.encode(frames)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(kept, dim=2).transpose(1, 2) for kept in chunks]


def _stages(encoder: nn.Module) -> list[nn.Module]:
    """conv_in, then the last layer of each down stage. Wan 2.1 lists single layers; a stage ends where it resamples."""
    blocks: list[nn.Module] = list(encoder.down_blocks)  # type: ignore[arg-type]
    ends = [block for block in blocks if hasattr(block, "resample")]
    return [encoder.conv_in, *([*ends, blocks[-1]] if ends else blocks)]  # type: ignore[list-item]


def _keep(kept: list[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)  # CogVideoX returns its convolution cache too

    return hook


@contextmanager
def _whole_clips(vae: Any) -> Iterator[None]:
    """Overlapping tiles, in space or time, would give the same place several activations: switched off meanwhile."""
    switches = [name for name in ("use_tiling", "use_framewise_encoding") if hasattr(vae, name)]
    before = {name: getattr(vae, name) for name in switches}
    for name in switches:
        setattr(vae, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
