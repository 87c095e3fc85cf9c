"""Train a small reference video VAE from scratch: the stand-in teacher of measurements where no published one can be had.

    python benchmarks/train_teacher.py --data_root CLIPS --held_out_root OTHERS --output DIR [--minutes 25]

An `AutoencoderKLWan` of diffusers with 16 latent channels, 4x in time and 8x in space, of which the first 2x is a
rearrangement of pixels and whose blocks have Wan 2.2's shortcuts: no layer runs at full size, and it learns quickly. Its
latents are those of a real, trained VAE, but it is far from a published one: compare ways of distillation with it, not
qualities of pictures.

Loss: L1 and squared error of the frames, L1 of the frame differences, and a tiny KL (Rombach et al. 2022, arXiv
2112.10752). The folder is saved in diffusers' form every `SAVE_EVERY_SECONDS` and at the end, with latents_mean and
latents_std measured over training clips. Training lasts as long as it is told to, so the same command gives another VAE on
another machine: keep the folder that measurements were made with.
"""

import argparse
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from tinyworld.data.clips import ClipDataset
from tinyworld.data.loader import train_batches
from tinyworld.data.manifest import list_videos
from tinyworld.data.order import Order
from tinyworld.data.scan import Need, scan
from tinyworld.metrics.image import psnr

CHANNELS, SIZE, HELD_OUT_SIZE, BATCH = 16, 64, 128, 4
FRAMES = 9
"""Frames of a clip that the VAE sees: 1 + 4 k, three latents."""
KL_WEIGHT, DIFFERENCE_WEIGHT = 1e-6, 0.5
FIRST_LOGVAR = -6.0
"""Log variance of the posterior before training: unit noise would hide the latents for hundreds of steps."""
WARMUP = 50
STATISTICS_BATCHES = 24
MOST_STEPS = 1_000_000
"""Time ends training; clips of later steps are those that the latents are measured on."""
CACHE_BYTES = 4 * 2**30
SAVE_EVERY_SECONDS = 300.0


def make_vae(base_dim: int) -> Any:
    """Random start in which residual blocks add no more than a constant: their shortcuts learn first."""
    vae: Any = AutoencoderKLWan(
        base_dim=base_dim,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        is_residual=True,
    )
    for name, layer in vae.named_modules():
        if name.endswith("conv2"):
            nn.init.zeros_(layer.weight)
    nn.init.constant_(vae.quant_conv.bias[CHANNELS:], FIRST_LOGVAR)
    return vae


def find_clips(root: str, size: int) -> ClipDataset:
    found = scan(list_videos(root), Need(size, size, FRAMES))
    return ClipDataset(found.clips, [(size, size, FRAMES)], cache_bytes=CACHE_BYTES)


def training_clips(dataset: ClipDataset, start: int, stop: int) -> Iterator[Tensor]:
    """By step, N 3 T H W in [-1, 1]: the layout and range of diffusers."""
    for micro_batches in train_batches(dataset, Order(dataset.bucket_of, BATCH, seed=0), start, stop):
        yield signed(micro_batches[0].frames)


def held_out_clips(dataset: ClipDataset, size: int) -> list[Tensor]:
    """The middle of each video, uint8 1 T C H W."""
    return [dataset.held_out_clip(clip, size, size, FRAMES)[None] for clip in dataset.clips]


def signed(frames: Tensor) -> Tensor:
    """uint8 N T C H W to N C T H W in [-1, 1]."""
    return frames.transpose(1, 2).float() / 127.5 - 1


def loss_of(vae: Any, frames: Tensor, noise: torch.Generator) -> Tensor:
    posterior = vae.encode(frames).latent_dist
    made = vae.decode(posterior.sample(noise)).sample
    error = made - frames
    difference = error.diff(dim=2).abs().mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return error.abs().mean() + error.square().mean() + DIFFERENCE_WEIGHT * difference + KL_WEIGHT * kl


@torch.no_grad()
def held_out_psnr(vae: Any, windows: list[Tensor]) -> list[float]:
    """PSNR of each window (uint8 1 T C H W) after a round trip through the posterior's mean."""
    values = []
    for frames in windows:
        made = vae.decode(vae.encode(signed(frames)).latent_dist.mode()).sample
        values.append(float(psnr((made.transpose(1, 2) + 1) / 2, frames.float() / 255)))
    return values


@torch.no_grad()
def measure_latents(vae: Any, clips: Iterator[Tensor]) -> None:
    """Write mean and standard deviation of each latent channel over the clips into the VAE's config."""
    latents = torch.cat([vae.encode(frames).latent_dist.mode() for frames in clips]).double().transpose(0, 1).flatten(1)
    vae.register_to_config(latents_mean=latents.mean(dim=1).tolist(), latents_std=latents.std(dim=1).tolist())


def save(vae: Any, folder: Path) -> None:
    """Written beside the folder first, so that a reader never finds half of it."""
    fresh = folder.with_name(folder.name + ".new")
    vae.save_pretrained(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Linear warm-up by step, then half a cosine to zero by progress (0 to 1)."""
    return peak * min(1.0, step / WARMUP) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(options: argparse.Namespace) -> None:
    dataset = find_clips(options.data_root, SIZE)
    windows = held_out_clips(find_clips(options.held_out_root, HELD_OUT_SIZE), HELD_OUT_SIZE)
    torch.manual_seed(0)
    noise = torch.Generator().manual_seed(0)
    vae = make_vae(options.base_dim)
    print(
        f"{sum(p.numel() for p in vae.parameters()) / 1e6:.2f} million parameters, {len(windows)} held-out clips",
        flush=True,
    )
    optimizer = torch.optim.Adam(vae.parameters(), betas=(0.9, 0.99))
    began = saved = time.monotonic()
    for step, frames in enumerate(training_clips(dataset, 0, MOST_STEPS), start=1):
        progress = (time.monotonic() - began) / (60 * options.minutes)
        optimizer.param_groups[0]["lr"] = learning_rate(options.learning_rate, step, progress)
        loss = loss_of(vae, frames, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        ends = progress >= 1
        if step % options.every == 0 or ends:
            found = held_out_psnr(vae, windows)
            each, mean = " ".join(f"{value:.1f}" for value in found), sum(found) / len(found)
            seconds = time.monotonic() - began
            print(f"step {step} {seconds:.0f} s loss {loss.item():.4f} held-out {mean:.2f} dB ({each})", flush=True)
        if time.monotonic() - saved > SAVE_EVERY_SECONDS or ends:
            measure_latents(vae, training_clips(dataset, MOST_STEPS, MOST_STEPS + STATISTICS_BATCHES))
            save(vae, options.output)
            saved = time.monotonic()
        if ends:
            break
    print("latents_mean", " ".join(f"{value:.3f}" for value in vae.config.latents_mean))
    print("latents_std", " ".join(f"{value:.3f}" for value in vae.config.latents_std))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--held_out_root", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0, help="of training")
    parser.add_argument("--base_dim", type=int, default=16, help="channels of the widest layers are twice as many")
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=50, help="steps between measurements")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
