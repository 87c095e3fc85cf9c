"""Pictures that spell their frame number, so that a decoded frame says which one it is."""

import numpy as np

BITS = 10
HEIGHT, WIDTH = 48, 16 * BITS


def numbered_frame(number: int) -> np.ndarray:
    """uint8 H W 3: ten white or black columns spell the number in binary; the lower third drifts with it."""
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for bit in range(BITS):
        frame[:32, 16 * bit : 16 * bit + 16] = 255 * (number >> bit & 1)
    frame[32:] = (np.arange(WIDTH)[None, :, None] + 3 * number) % 256
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number spelled by a picture of `numbered_frame`, also after lossy coding."""
    return sum(int(frame[8:24, 16 * bit + 4 : 16 * bit + 12].mean() > 127) << bit for bit in range(BITS))
