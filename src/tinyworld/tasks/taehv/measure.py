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
from tinyworld.core.pixels import to_unit_range
from tinyworld.data.clips import ClipDataset
from tinyworld.data.scan import ClipRef
from tinyworld.engine.task import Evaluated
from tinyworld.infer.compare import side_by_side
from tinyworld.media.write import write_video
from tinyworld.metrics.baseline import mean_colour
from tinyworld.metrics.image import flicker, psnr, psnr_by_position, ssim
from tinyworld.metrics.sharpness import gmsd, sharpness
from tinyworld.models.lpips import LPIPS
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.model import pad_to_multiple

PREVIEW_FPS = 8


@dataclass(frozen=True)
class Taught:
    """What the teacher makes of a held-out window. latents: its posterior's mean, 1 L c h w; psnr, ssim: of its own
    decoding of them."""

    latents: Tensor
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Window:
    """The fixed window of one held-out clip: centre crop, centre in time. taught: with a teacher alone."""

    dataset: ClipDataset
    clip: ClipRef
    height: int
    width: int
    n_frames: int
    taught: Taught | None = None

    def frames(self, device: torch.device) -> Tensor:
        """1 T C H W in [0, 1]."""
        frames = self.dataset.held_out_clip(self.clip, self.height, self.width, self.n_frames)
        return to_unit_range(frames.to(device))[None]


def load_lpips(recipe: TaehvRecipe) -> LPIPS | None:
    """LPIPS when its backbone weights are given, else None."""
    source = recipe.find_or_hub("validation.lpips_backbone")
    return None if source is None else LPIPS(source)


def evaluate(
    model: Taehv, samples: Sequence[Window], device: torch.device, lpips: LPIPS | None, encoder_only: bool = False
) -> list[Evaluated]:
    """Metrics of each window in fp32, on exactly the frames that went in.

    Without a teacher, of the round trip: what the model decodes of its own latents. With one, of what it decodes of the
    teacher's latents, as it will of a diffusion model's; the round trip is then round_trip_psnr. `encoder_only`: the
    decoder is not trained, and the round trip is what counts.
    """
    frames = torch.cat([sample.frames(device) for sample in samples])
    count, spec = frames.shape[1], model.spec
    taught = _latents(samples, device)
    own = model.encode(pad_to_multiple(frames, spec.size_multiple), round_trip=True)
    round_trip = _decoded(model, own, frames)
    decodes_taught = taught is not None and not encoder_only
    made = _decoded(model, taught, frames) if taught is not None and not encoder_only else round_trip
    base = mean_colour(frames)
    places = group_positions(count, round_trip_plan(count, spec).latent_frames, spec)
    columns: dict[str, Sequence[float | None] | list[list[float]]] = {
        "psnr": psnr(made, frames).tolist(),
        "ssim": ssim(made, frames).tolist(),
        "flicker": flicker(made, frames).tolist(),
        "sharpness": sharpness(made, frames).tolist(),
        "gmsd": gmsd(made, frames).tolist(),
        "lpips": [None] * len(samples) if lpips is None else lpips.to(device).clip_distance(made, frames).tolist(),
        "psnr_by_position": psnr_by_position(made, frames, places, spec.t_up).tolist(),
    }
    if decodes_taught:
        columns["round_trip_psnr"] = psnr(round_trip, frames).tolist()
    if taught is not None:
        spread = taught.flatten(1).std(dim=1)
        columns["latent_error"] = ((own - taught).square().flatten(1).mean(dim=1).sqrt() / spread).tolist()
    baseline = {"psnr": psnr(base, frames).tolist(), "ssim": ssim(base, frames).tolist()}
    return [
        Evaluated(
            sample.clip.id,
            {name: values[row] for name, values in columns.items()},
            {name: values[row] for name, values in baseline.items()} | _teacher_baseline(sample),
        )
        for row, sample in enumerate(samples)
    ]


def _decoded(model: Taehv, latents: Tensor, frames: Tensor) -> Tensor:
    """As many frames as `frames`, of their size: latents are those of frames padded to whole latent cells."""
    return model.decode(latents, frames.shape[1])[..., : frames.shape[-2], : frames.shape[-1]]


def _latents(samples: Sequence[Window], device: torch.device) -> Tensor | None:
    found = [sample.taught.latents for sample in samples if sample.taught is not None]
    return torch.cat(found).to(device) if found else None


def _teacher_baseline(sample: Window) -> dict[str, float]:
    return {} if sample.taught is None else {"teacher_psnr": sample.taught.psnr, "teacher_ssim": sample.taught.ssim}


def write_preview(model: Taehv, sample: Window, device: torch.device, folder: Path, encoder_only: bool = False) -> None:
    """original | reconstruction | difference ×4, as a small mp4 named after the clip (`core.names.file_name`). What is
    decoded is what `evaluate` measures."""
    frames = sample.frames(device)
    taught = None if encoder_only else _latents([sample], device)
    made = model.reconstruct(frames) if taught is None else _decoded(model, taught, frames)
    pairs = zip(_pictures(frames), _pictures(made.clamp(0, 1)), strict=True)
    path = folder / f"{file_name(sample.clip.id)}.mp4"
    write_video(path, [side_by_side(original, copy) for original, copy in pairs], PREVIEW_FPS)


def _pictures(frames: Tensor) -> np.ndarray:
    """1 T C H W in [0, 1] to uint8 T H W C."""
    return frames[0].mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
