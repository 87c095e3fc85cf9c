"""A picture of what several models make of the same frames: original first, then each model's round trip.

    python benchmarks/compare_models.py VIDEO… --model NAME=PATH --model NAME=PATH --output picture.png [--size 96 --zoom 3]

One row per video: one frame from its middle, a centre crop of `size` pixels, enlarged `zoom` times without smoothing so
that sharpness can be judged. Windows of 9 frames, so that the frame has a past.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from tinyworld import Taehv
from tinyworld.media.read import iter_frames

FRAMES, MARGIN, LINE = 9, 4, 16


def middle(video: Path, size: int) -> np.ndarray:
    """uint8 T H W C: the centre of the middle frames."""
    frames = np.stack(list(iter_frames(video)))
    start = (len(frames) - FRAMES) // 2
    top, left = (frames.shape[1] - size) // 2, (frames.shape[2] - size) // 2
    return frames[start : start + FRAMES, top : top + size, left : left + size]


def round_trip(model: Taehv, frames: np.ndarray) -> np.ndarray:
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float().div(255)
    with torch.no_grad():
        made = model.reconstruct(clip).clamp(0, 1)
    return made[0].mul(255).round().byte().permute(0, 2, 3, 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--zoom", type=int, default=3)
    options = parser.parse_args()
    models = {name: Taehv.from_pretrained(path) for name, _, path in (entry.partition("=") for entry in options.model)}
    side = options.size * options.zoom
    columns = ["original", *models]
    sheet = Image.new(
        "RGB", (len(columns) * (side + MARGIN), LINE + len(options.videos) * (side + MARGIN)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(columns):
        draw.text((place * (side + MARGIN) + 2, 2), name, fill=(0, 0, 0))
    for row, video in enumerate(options.videos):
        frames = middle(video, options.size)
        made = [frames, *(round_trip(model, frames) for model in models.values())]
        for place, pictures in enumerate(made):
            picture = Image.fromarray(pictures[FRAMES // 2]).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (place * (side + MARGIN), LINE + row * (side + MARGIN)))
    sheet.save(options.output)
    print(f"{options.output}: {len(options.videos)} videos, {', '.join(columns)}")


if __name__ == "__main__":
    main()
