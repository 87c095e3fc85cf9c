"""What the latent cache saves: an epoch with latents from disk against one with the reference VAE in the loop.

    python benchmarks/latent_cache.py [--steps 6 --device auto --num_workers 1] [--full_width]

The reference VAE has the size of Wan's (AutoencoderKLWan as diffusers builds it by default, 127 million parameters, bf16)
and random weights: time does not depend on them. Clips of 64 x 64 x 12 from small videos made here, 4 per step. Both ways
take the same optimizer steps (`TaehvTask.step`, backward, AdamW; the demo's narrow student, or with --full_width the
published size) on the same clips from the same weights. Printed are seconds per step, their ratio, and how far the losses
are apart. Filling the cache is timed on its own: it is paid once.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.engine.accelerate_setup import training_device
from tinyworld.media.write import write_video
from tinyworld.tasks.taehv import TaehvTask
from tinyworld.tasks.taehv.fill_cache import fill_cache
from tinyworld.tasks.taehv.lessons import Lessons
from tinyworld.tasks.taehv.reference import open_reference

BATCH, SIZE, FRAMES, VIDEOS = 4, 64, 12, 6


def make_inputs(folder: Path) -> None:
    from diffusers import AutoencoderKLWan

    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        picture = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        write_video(folder / "videos" / f"{number}.mp4", (np.roll(picture, 2 * t, axis=1) for t in range(30)), 16)
    torch.manual_seed(0)
    AutoencoderKLWan().to(torch.bfloat16).save_pretrained(folder / "teacher")


def make_recipe(folder: Path, device: str, num_workers: int, full_width: bool) -> TaehvRecipe:
    values = {
        "data_root": str(folder / "videos"), "height": SIZE, "width": SIZE, "n_frames": FRAMES, "variant": "taew2_1",
        "train_batch_size": BATCH, "num_workers": num_workers, "output_dir": str(folder), "device": device,
        "use_ref_vae": True, "ref_vae_path": str(folder / "teacher"), "latent_cache": str(folder / "cache"),
        "cached_crops": 2,
    }  # fmt: skip
    if full_width:
        values |= {"encoder_width": None, "decoder_widths": None}
    return load_recipe("taehv_demo", values)


def run(recipe: TaehvRecipe, from_cache: bool, steps: int) -> tuple[float, list[float]]:
    """Seconds per step, without the first, which starts the workers and warms up; and each step's loss."""
    device = training_device(recipe)
    task = TaehvTask(recipe)
    if not from_cache:
        task.lessons = Lessons(open_reference(recipe, device))
    model = task.model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    losses: list[float] = []
    begin = 0.0
    for number, (batch,) in enumerate(task.batches(0, steps + 1, 0, 1)):
        if number == 1:
            begin = time.perf_counter()
        clips = batch if from_cache else replace(batch, posterior=None)
        with torch.autocast(device.type, torch.bfloat16):
            losses_of_step = task.step(model, clips, device, number)
        losses_of_step.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(losses_of_step.total.item())  # waits for the device
    return (time.perf_counter() - begin) / steps, losses


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--full_width", action="store_true", help="the published student instead of the narrow one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        make_inputs(folder)
        recipe = make_recipe(folder, options.device, options.num_workers, options.full_width)
        begin = time.perf_counter()
        done = fill_cache(recipe)
        print(f"filling: {done.made} entries, {done.bytes / 2**20:.2f} MiB, {time.perf_counter() - begin:.1f} s")
        cached, cached_losses = run(recipe, True, options.steps)
        looped, looped_losses = run(recipe, False, options.steps)
    apart = max(abs(a - b) / b for a, b in zip(cached_losses, looped_losses, strict=True))
    print(f"training step, {BATCH} clips of {SIZE} x {SIZE} x {FRAMES} on {training_device(recipe)}:")
    print(f"  latents from the cache        {cached:.4f} s per step")
    print(f"  reference VAE in the loop     {looped:.4f} s per step")
    print(f"  ratio                         {looped / cached:.1f}x")
    print(f"  losses differ by at most      {apart:.1e} of their value")


if __name__ == "__main__":
    main()
