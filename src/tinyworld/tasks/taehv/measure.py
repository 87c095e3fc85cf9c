"""Held-out clips of the autoencoder: metrics beside a trivial baseline, and side-by-side previews."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.frames import group_positions, round_trip_plan
from tinyworld.core.names import file_name
from tinyworld.data.clips import ClipDataset
from tinyworld.data.scan import ClipRef
from tinyworld.engine.task import Evaluated
from tinyworld.infer.compare import side_by_side
from tinyworld.media.write import write_video
from tinyworld.metrics.baseline import mean_colour
from tinyworld.metrics.image import flicker, psnr, psnr_by_position, ssim
from tinyworld.models.lpips import LPIPS
from tinyworld.models.taehv import Taehv

PREVIEW_FPS = 8


@dataclass(frozen=True)
class Window:
    """The fixed window of one held-out clip: centre crop, centre in time."""

    dataset: ClipDataset
    clip: ClipRef
    height: int
    width: int
    n_frames: int

    def frames(self, device: torch.device) -> Tensor:
        """1 T C H W in [0, 1]."""
        frames = self.dataset.held_out_clip(self.clip, self.height, self.width, self.n_frames)
        return frames.to(device).float().div(255)[None]


def load_lpips(recipe: TaehvRecipe) -> LPIPS | None:
    """LPIPS when its backbone weights are given, else None."""
    path = recipe.find("validation.lpips_backbone")
    return None if path is None else LPIPS(path)


def evaluate(model: Taehv, samples: Sequence[Window], device: torch.device, lpips: LPIPS | None) -> list[Evaluated]:
    """Metrics of each window in fp32, on exactly the frames that went in."""
    frames = torch.cat([sample.frames(device) for sample in samples])
    made = model.reconstruct(frames)
    base = mean_colour(frames)
    count, spec = frames.shape[1], model.spec
    places = group_positions(count, round_trip_plan(count, spec).latent_frames, spec)
    perceptual = [None] * len(samples) if lpips is None else lpips.to(device).clip_distance(made, frames).tolist()
    columns = zip(
        samples,
        psnr(made, frames).tolist(),
        ssim(made, frames).tolist(),
        flicker(made, frames).tolist(),
        perceptual,
        psnr_by_position(made, frames, places, spec.t_up).tolist(),
        psnr(base, frames).tolist(),
        ssim(base, frames).tolist(),
        strict=True,
    )
    return [
        Evaluated(
            sample.clip.id,
            {"psnr": p, "ssim": s, "flicker": f, "lpips": lp, "psnr_by_position": profile},
            {"psnr": base_p, "ssim": base_s},
        )
        for sample, p, s, f, lp, profile, base_p, base_s in columns
    ]


def write_preview(model: Taehv, sample: Window, device: torch.device, folder: Path) -> None:
    """original | reconstruction | difference ×4, as a small mp4 named after the clip (`core.names.file_name`)."""
    frames = sample.frames(device)
    made = model.reconstruct(frames).clamp(0, 1)
    pairs = zip(_pictures(frames), _pictures(made), strict=True)
    path = folder / f"{file_name(sample.clip.id)}.mp4"
    write_video(path, [side_by_side(original, copy) for original, copy in pairs], PREVIEW_FPS)


def _pictures(frames: Tensor) -> np.ndarray:
    """1 T C H W in [0, 1] to uint8 T H W C."""
    return frames[0].mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
