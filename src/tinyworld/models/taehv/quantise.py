"""Smaller weight files: half precision, or whole numbers of eight bits.

Both are about the file alone. Half-precision files hold the public keys and load wherever an fp32 file loads. The int8
form stores convolution weights as whole numbers from -127 to 127, and under `<key>.scale` one fp32 factor for each output
channel (symmetric, weight-only): a quarter of the bytes. Only tinyworld reads it; `weights.load` multiplies it out to
fp32, so that memory, arithmetic and speed are those of the fp32 model.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from tinyworld.core.errors import ConfigError, WeightsError

WeightType = Literal["fp16", "bf16", "int8"]

QUANTISATION = "int8 per output channel"
"""What the file's metadata and the JSON beside it say under "quantisation"."""
SCALE = ".scale"
LARGEST = 127
"""Largest magnitude stored; -128 stays unused, so that the range is symmetric."""
CONVOLUTION = 4
"""Dimensions of a convolution weight: outputs, inputs, height, width."""


def compress(tensors: Mapping[str, Tensor], kind: WeightType) -> dict[str, Tensor]:
    """The tensors of a state dict in a smaller number type, ready for `weights.write_folder`.

    fp16, bf16: every tensor, under its own key. int8: see `quantise`. Raises ConfigError for another kind, and
    WeightsError naming the tensors that hold values which the number type cannot (fp16 ends at 65504).
    """
    if kind not in get_args(WeightType):
        raise ConfigError(f"weights={kind!r} must be one of {', '.join(get_args(WeightType))}.")
    small = quantise(tensors) if kind == "int8" else _cast(tensors, kind)
    broken = [key for key, tensor in small.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{len(broken)} tensors are not finite as {kind} ({', '.join(broken[:5])}{', …' if broken[5:] else ''}): the "
            "model is broken, or its weights are too large for fp16. Use another checkpoint, or bf16."
        )
    return small


def _cast(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    dtype = torch.float16 if kind == "fp16" else torch.bfloat16
    return {key: tensor.detach().to(dtype) for key, tensor in tensors.items()}


def quantise(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with convolution weights (O I h w) as int8, each with an fp32 `<key>.scale` (O); the rest as fp32.

    The largest weight of an output channel becomes ±127; no weight moves by more than half of the channel's scale. The
    first and the last convolution of encoder and decoder stay fp32: less than one weight in fifty of a full-width model,
    but nearly all of the loss (0.48 dB against 0.003 dB on a narrow model of 24.3 dB).
    """
    ends = _ends(tensors)
    small: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        value = tensor.detach().float()
        if value.ndim != CONVOLUTION or key in ends:
            small[key] = value
            continue
        scale = value.abs().amax((1, 2, 3)) / LARGEST
        steps = value / _per_channel(scale.where(scale > 0, torch.ones_like(scale)))
        small[key] = steps.round().clamp(-LARGEST, LARGEST).to(torch.int8)
        small[key + SCALE] = scale
    return small


def _ends(tensors: Mapping[str, Tensor]) -> set[str]:
    """First and last convolution weight of each part, in the order of the state dict."""
    parts: dict[str, list[str]] = {}
    for key, tensor in tensors.items():
        if tensor.ndim == CONVOLUTION:
            parts.setdefault(key.partition(".")[0], []).append(key)
    return {key for keys in parts.values() for key in (keys[0], keys[-1])}


def dequantise(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`quantise` taken back, to fp32; tensors without a scale stay as they are.

    Raises WeightsError for scales without weights and those of another length than their weights have outputs.
    """
    whole = dict(tensors)
    for key in [key for key in tensors if key.endswith(SCALE)]:
        scale, weight = whole.pop(key), whole.get(key.removesuffix(SCALE))
        if weight is None or weight.dtype != torch.int8 or weight.ndim != CONVOLUTION:
            raise WeightsError(f"{key} has no int8 convolution weight {key.removesuffix(SCALE)} that it belongs to.")
        if scale.shape != weight.shape[:1] or not scale.is_floating_point():
            raise WeightsError(
                f"{key} is {'×'.join(map(str, scale.shape)) or 'a scalar'} of {scale.dtype}; it must hold "
                f"{weight.shape[0]} floating-point factors, one per output channel."
            )
        whole[key.removesuffix(SCALE)] = weight.float() * _per_channel(scale.float())
    return whole


def _per_channel(scale: Tensor) -> Tensor:
    return scale[:, None, None, None]
