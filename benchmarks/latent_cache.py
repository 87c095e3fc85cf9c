"""What the latent cache saves: an epoch with latents from disk against one with the reference VAE in the loop.

    python benchmarks/latent_cache.py [--steps 6 --device auto --num_workers 1] [--with_step]

The reference VAE has the size of Wan's (AutoencoderKLWan as diffusers builds it by default, 127 million parameters, bf16)
and random weights: time does not depend on them. Clips of 64 x 64 x 12 from small videos made here, 4 per step. Printed
are seconds per step of data and latents both ways and their ratio; with --with_step the student's training step
(forward, backward, AdamW) is part of both. Filling the cache is timed on its own: it is paid once.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.rng import normal
from tinyworld.data.latent_cache import LatentCache
from tinyworld.data.loader import ClipBatch, train_batches
from tinyworld.engine.accelerate_setup import training_device
from tinyworld.media.write import write_video
from tinyworld.models.teachers import Teacher
from tinyworld.tasks.taehv.clips import clip_dataset, latent_cache, order
from tinyworld.tasks.taehv.fill_cache import fill_cache
from tinyworld.tasks.taehv.reference import open_reference
from tinyworld.tasks.taehv.sources import find_sources

BATCH, SIZE, FRAMES, VIDEOS = 4, 64, 12, 6

Latents = Callable[[ClipBatch], tuple[Tensor, Tensor]]
Step = Callable[[ClipBatch, Tensor], None]


def make_inputs(folder: Path) -> None:
    from diffusers import AutoencoderKLWan

    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        picture = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        write_video(folder / "videos" / f"{number}.mp4", (np.roll(picture, 2 * t, axis=1) for t in range(30)), 16)
    torch.manual_seed(0)
    AutoencoderKLWan().to(torch.bfloat16).save_pretrained(folder / "teacher")


def make_recipe(folder: Path, device: str, num_workers: int) -> TaehvRecipe:
    values = {
        "data_root": str(folder / "videos"), "height": SIZE, "width": SIZE, "n_frames": FRAMES, "variant": "taew2_1",
        "train_batch_size": BATCH, "num_workers": num_workers, "output_dir": str(folder), "device": device,
        "use_ref_vae": True, "ref_vae_path": str(folder / "teacher"), "latent_cache": str(folder / "cache"),
        "cached_crops": 2, "encoder_width": 64, "decoder_widths": [256, 128, 64, 64],
    }  # fmt: skip
    return load_recipe("taehv_demo", values)


def from_cache(batch: ClipBatch) -> tuple[Tensor, Tensor]:
    assert batch.posterior is not None
    return batch.posterior


def from_teacher(teacher: Teacher, frames: int) -> Latents:
    def encode(batch: ClipBatch) -> tuple[Tensor, Tensor]:
        posterior = teacher.encode(batch.frames[:, :frames].float().div(255))
        return posterior.mean, posterior.logvar

    return encode


def student_step(recipe: TaehvRecipe, device: torch.device) -> Step:
    """The shape of a distillation step: the encoder learns the latents, the decoder decodes them."""
    from tinyworld.core.frames import training_plan
    from tinyworld.tasks.taehv.task import build_model

    model, plan = build_model(recipe).to(device), training_plan(FRAMES, recipe.spec(), recipe.data.pad_frames)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step(batch: ClipBatch, latents: Tensor) -> None:
        frames = batch.frames.float().div(255)
        own, decoded = model(frames, plan)
        loss = (own - latents).square().mean() + (decoded - frames[:, : plan.target_frames]).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_per_step(
    recipe: TaehvRecipe,
    cache: LatentCache | None,
    latents: Latents,
    step: Step | None,
    steps: int,
    device: torch.device,
) -> float:
    """Mean over all steps but the first, which starts the workers and warms up."""
    dataset = clip_dataset(recipe, find_sources(recipe).train, recipe.stages()[0], cache)
    batches = train_batches(dataset, order(recipe, dataset, BATCH), 0, steps + 1, num_workers=recipe.data.num_workers)
    begin = 0.0
    for number, batch in enumerate(moved(batches, device)):
        if number == 1:
            begin = clock(device)
        mean, logvar = latents(batch)
        noise = normal(batch.noise_seeds, mean.shape[1:]).to(device)
        sampled = mean + (0.5 * logvar).exp() * noise
        if step is not None:
            step(batch, sampled)
    return (clock(device) - begin) / steps


def moved(batches: Iterator[list[ClipBatch]], device: torch.device) -> Iterator[ClipBatch]:
    for (batch,) in batches:
        yield batch.to(device)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--with_step", action="store_true", help="the student's training step too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        make_inputs(folder)
        recipe = make_recipe(folder, options.device, options.num_workers)
        device = training_device(recipe)
        begin = time.perf_counter()
        done = fill_cache(recipe)
        print(f"filling: {done.made} entries, {done.bytes / 2**20:.2f} MiB, {time.perf_counter() - begin:.1f} s")
        step = student_step(recipe, device) if options.with_step else None
        cached = seconds_per_step(recipe, latent_cache(recipe), from_cache, step, options.steps, device)
        # FRAMES frames are 3 latents, of which 9 frames are decoded: what the reference VAE is given
        encode = from_teacher(open_reference(recipe, device), FRAMES - 3)
        looped = seconds_per_step(recipe, None, encode, step, options.steps, device)
    what = "data, latents and student's step" if options.with_step else "data and latents"
    print(f"{what}, {BATCH} clips of {SIZE} x {SIZE} x {FRAMES} on {device}:")
    print(f"  latents from the cache        {cached:.4f} s per step")
    print(f"  reference VAE in the loop     {looped:.4f} s per step")
    print(f"  ratio                         {looped / cached:.1f}x")


if __name__ == "__main__":
    main()
