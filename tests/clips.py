"""Small real mp4 files for tests that need a folder of videos: smooth moving patterns, a different one per clip."""

from pathlib import Path

import numpy as np

from tinyworld.media.write import write_video


def moving_pattern(frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """uint8 T H W 3: sums of drifting waves."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None, None, None]
    y, x = np.mgrid[:height, :width]
    waves = np.zeros((frames, height, width, 3))
    for _ in range(4):
        frequency, speed, phase = rng.uniform(0.05, 0.4, (2, 3)), rng.uniform(-0.4, 0.4, 3), rng.uniform(0, 6, 3)
        waves += np.sin(y[None, ..., None] * frequency[0] + x[None, ..., None] * frequency[1] + speed * time + phase)
    return ((waves / 8 + 0.5).clip(0, 1) * 255).astype(np.uint8)


def make_clips(folder: Path, count: int = 5, frames: int = 13, height: int = 48, width: int = 64) -> Path:
    """`count` mp4 files in `folder`."""
    for seed in range(count):
        write_video(folder / f"clip{seed}.mp4", moving_pattern(frames, height, width, seed), 12)
    return folder
