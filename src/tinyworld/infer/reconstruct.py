"""A video through the autoencoder and back, a few frames at a time: memory does not grow with the video's length."""

import itertools
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinyworld.core.frames import round_trip_plan
from tinyworld.infer.compare import side_by_side
from tinyworld.media.read import iter_frames, probe
from tinyworld.media.write import VideoWriter
from tinyworld.metrics.baseline import MeanColourMeter
from tinyworld.metrics.meter import ClipMeter
from tinyworld.models.taehv import StreamingTaehv, Taehv


@dataclass(frozen=True)
class Reconstruction:
    """Result for one video. psnr and baseline_psnr (the video's mean colour) in dB; flicker is NaN for one frame,
    ssim for a picture smaller than its window;
    seconds: of the model alone (encode and decode), without reading, measuring and writing."""

    video: Path
    written: Path | None
    frames: int
    height: int
    width: int
    psnr: float
    ssim: float
    flicker: float
    baseline_psnr: float
    seconds: float

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds


def reconstruct_video(
    model: Taehv,
    video: Path,
    output: Path | None = None,
    plain: bool = False,
    max_frames: int | None = None,
    tile: int | None = None,
) -> Reconstruction:
    """Encode and decode one video on the model's device, in the model's number type.

    Writes an H.264 mp4 without sound to `output` (original | reconstruction | difference, or with `plain` the
    reconstruction alone), complete or not at all. `tile` (latent cells) computes large pictures in
    parts. Raises DataError for a video that cannot be read to its end.
    """
    info = probe(video)
    count = min(info.frames, max_frames or info.frames)
    plan = round_trip_plan(count, model.spec)
    source = _Source(model, video, count)
    meter, baseline = ClipMeter(), MeanColourMeter()
    width = info.width if plain else 3 * info.width
    writer = nullcontext() if output is None else VideoWriter(output, width, info.height, info.fps or 24)
    with writer as file:
        stream = StreamingTaehv(model, plan.latent_frames, tile)
        for piece in source.timed(stream.reconstruct(source.pieces())):
            made = piece[0].float().cpu()
            originals = [source.shown.popleft() for _ in range(len(made))]
            wanted = _to_float(np.stack(originals))
            meter.add(made, wanted)
            baseline.add(wanted)
            if file is not None:
                for original, frame in zip(originals, _to_pictures(made), strict=True):
                    file.write(frame if plain else side_by_side(original, frame))
    return Reconstruction(
        video,
        output,
        meter.frames,
        info.height,
        info.width,
        **meter.result(),
        baseline_psnr=baseline.psnr(),
        seconds=source.working,
    )


def means(rows: Sequence[Reconstruction]) -> dict[str, float]:
    """Mean over videos of psnr, ssim, flicker and baseline_psnr; NaN for what no video has.

    Videos that have no SSIM (too small) or no flicker (one frame) are left out of that mean, but a PSNR that is NaN
    makes the mean NaN: only a broken model gives one.
    """
    columns = {name: [getattr(row, name) for row in rows] for name in ("psnr", "ssim", "flicker", "baseline_psnr")}
    for name in ("ssim", "flicker"):
        columns[name] = [value for value in columns[name] if not math.isnan(value)]
    return {name: sum(values) / len(values) if values else math.nan for name, values in columns.items()}


class _Source:
    """Frames of a video for the model, one latent's worth at a time; keeps those that are not decoded yet.

    working: seconds that the model took, without the reading.
    """

    def __init__(self, model: Taehv, video: Path, count: int) -> None:
        self.frames = itertools.islice(iter_frames(video), count)
        self.model, self.step = model, model.spec.t_down
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.shown: deque[np.ndarray] = deque()
        self.reading = self.working = 0.0

    def pieces(self) -> Iterator[Tensor]:
        """1 t C H W each."""
        while True:
            began = time.monotonic()
            pictures = list(itertools.islice(self.frames, self.step))
            self.reading += time.monotonic() - began
            if not pictures:
                return
            self.shown.extend(pictures)
            yield _to_float(np.stack(pictures)).to(self.device, self.dtype)[None]

    def timed(self, made: Iterator[Tensor]) -> Iterator[Tensor]:
        """What the model makes of the pieces, as it comes."""
        while True:
            began, self.reading = time.monotonic(), 0.0
            piece = next(made, None)
            _wait(self.model)
            self.working += time.monotonic() - began - self.reading
            if piece is None:
                return
            yield piece


def _to_float(pictures: np.ndarray) -> Tensor:
    """uint8 T H W C to T C H W in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255)


def _to_pictures(frames: Tensor) -> np.ndarray:
    """T C H W in [0, 1] to uint8 T H W C."""
    return frames.mul(255).round().byte().permute(0, 2, 3, 1).numpy()


def _wait(model: Taehv) -> None:
    """A GPU works behind the program's back: wait for it before the clock is read."""
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
