"""A row of pictures per sample: what depth and cameras make of a pair of its frames."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tinyworld.core.geometry import Cameras
from tinyworld.data.worlds.reprojection import Evidence, warp

HEIGHT = 160
MAX_WIDTH = 320
CAPTION = 14
GAIN = 4
"""Differences are shown this much larger."""
MOST_ROWS = 60
COLOURS = np.array([[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]], dtype=np.float64)
"""From near to far."""


def draw_row(evidence: Evidence, cameras: Cameras, title: str) -> np.ndarray:
    """uint8 h w 3 for the pair in the middle of the clip: frame i, frame j, j seen from i, their difference, depth of i."""
    i, j = evidence.pairs[len(evidence.pairs) // 2]
    first, second = evidence.frames[i], evidence.frames[j]
    warped, known = warp(evidence, cameras, i, j)
    difference = ((first.float() - warped).abs() * known * GAIN).clamp(0, 255)
    panels = [
        (_picture(first), f"{title}, frame {i}"),
        (_picture(second), f"frame {j}"),
        (_picture(warped), f"frame {j} seen from {i}"),
        (_picture(difference), f"difference x {GAIN}"),
        (colour_depth(evidence.depth[i].numpy()), f"depth of frame {i}"),
    ]
    return np.concatenate([_captioned(panel, words) for panel, words in panels], axis=1)


def stack_rows(rows: list[np.ndarray]) -> np.ndarray:
    """One picture of at most MOST_ROWS rows, which may have different widths."""
    shown = rows[:MOST_ROWS]
    width = max(row.shape[1] for row in shown)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in shown])


def colour_depth(depth: np.ndarray) -> np.ndarray:
    """Depth H W in metres → uint8 H W 3: yellow is near, violet far, black not measured; by hundredths of what is there."""
    valid = depth > 0
    low, high = np.quantile(depth[valid], [0.01, 0.99]) if valid.any() else (0.0, 1.0)
    place = np.clip((depth - low) / max(high - low, 1e-9), 0, 1) * (len(COLOURS) - 1)
    stops = np.arange(len(COLOURS))
    channels = [np.interp(place, stops, COLOURS[:, channel]) for channel in range(3)]
    return (np.stack(channels, axis=2) * valid[..., None]).astype(np.uint8)


def _picture(frame: Tensor) -> np.ndarray:
    return frame.float().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _captioned(panel: np.ndarray, words: str) -> np.ndarray:
    height, width = panel.shape[:2]
    factor = min(HEIGHT / height, MAX_WIDTH / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    sheet = Image.new("RGB", (size[0] + 2, HEIGHT + CAPTION))
    sheet.paste(Image.fromarray(panel).resize(size, Image.Resampling.BOX), (0, CAPTION))
    draw = ImageDraw.Draw(sheet)
    while len(words) > 4 and draw.textlength(words) > size[0]:
        words = words[:-2] + "…" if not words.endswith("…") else words[:-3] + "…"
    draw.text((1, 1), words, fill=(255, 255, 255))
    return np.asarray(sheet)
