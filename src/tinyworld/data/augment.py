"""Colour changes of a training clip: one draw for all its frames, so that nothing flickers that did not before.

Every change is linear in a pixel's own R, G, B and asks nothing of other pixels or frames. So the first frames of a clip
look the same whether or not the rest is there, which the latents that were computed of them before rely on.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

HUE_SHARE = 0.1
"""Turns of hue per unit of jitter: colours change their name long before brightness makes a picture unreal."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Rec. 601 weights of R, G, B in the brightness that the eye sees."""
TO_YUV = np.stack([LUMA, 0.492 * (np.array([0.0, 0.0, 1.0]) - LUMA), 0.877 * (np.array([1.0, 0.0, 0.0]) - LUMA)])
"""R, G, B to luma and the two colour differences B - Y and R - Y, scaled as in analogue television (Rec. 470)."""
GREY = 127.5


@dataclass(frozen=True)
class Colour:
    """A colour change, applied in this order.

    brightness, contrast, saturation: factors on the value, its distance from mid-grey and its distance from the pixel's
    own luma; 1 changes nothing. hue: turns around the luma axis, 0 changes nothing.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """(3 x 3 matrix, offset) from R, G, B in [0, 255] to the changed ones, before clamping."""
        saturate = self.saturation * np.eye(3) + (1 - self.saturation) * np.outer(np.ones(3), LUMA)
        cos, sin = np.cos(2 * np.pi * self.hue), np.sin(2 * np.pi * self.hue)
        turn = np.linalg.inv(TO_YUV) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ TO_YUV
        mix = turn @ saturate
        return mix * (self.contrast * self.brightness), mix @ np.full(3, (1 - self.contrast) * GREY)


def draw_colour(jitter: float, rng: random.Random) -> Colour | None:
    """A change with factors drawn evenly from [1 - jitter, 1 + jitter]; None for jitter 0. Always takes four numbers."""
    brightness, contrast, saturation = (rng.uniform(1 - jitter, 1 + jitter) for _ in range(3))
    hue = rng.uniform(-jitter, jitter) * HUE_SHARE
    return Colour(brightness, contrast, saturation, hue) if jitter else None


def recolour(frames: Tensor, colour: Colour) -> Tensor:
    """uint8 T 3 H W to uint8 T 3 H W: in float, rounded and clamped to [0, 255]."""
    matrix, offset = colour.affine()
    red, green, blue = frames.float().unbind(1)
    changed = [
        row[0] * red + row[1] * green + row[2] * blue + start
        for row, start in zip(matrix.tolist(), offset.tolist(), strict=True)
    ]
    return torch.stack(changed, 1).round().clamp(0, 255).to(torch.uint8)
