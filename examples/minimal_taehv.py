"""A tiny video autoencoder, trained in one file: read it from top to bottom.

    python examples/minimal_taehv.py                       # rendered rooms, two to three minutes on a CPU
    python examples/minimal_taehv.py --data my_clips --steps 4000
    tinyworld reconstruct film.mp4 --model output/minimal

The loop is plain PyTorch. From tinyworld come the model, the frame arithmetic, the data set and the metrics. What
`tinyworld train` adds: resuming, several GPUs, averaged weights, teachers, sharper losses, reports.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from tinyworld import FramePlan, Taehv
from tinyworld.core.errors import FramePlanError, UserError
from tinyworld.core.frames import training_plan
from tinyworld.core.variants import TaehvSpec
from tinyworld.data.clips import ClipDataset
from tinyworld.data.manifest import list_videos
from tinyworld.data.order import Order
from tinyworld.data.rooms import make_rooms
from tinyworld.data.scan import ClipRef, Need, scan
from tinyworld.data.split import split
from tinyworld.losses.pixel import latent_moments
from tinyworld.metrics.baseline import mean_colour
from tinyworld.metrics.image import psnr

SEED, SIZE, FRAMES, BATCH, LEARNING_RATE, WARM_UP = 0, 64, 12, 4, 2e-3, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", type=Path, help="folder of videos (default: rooms, rendered to datasets/rooms)")
    parser.add_argument("--output", type=Path, default=Path("output/minimal"))
    parser.add_argument("--variant", default="taew2_1", help="architecture; see tinyworld.core.variants")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    # The published architecture at a quarter of its parameters. Weights are drawn from this seed.
    torch.manual_seed(SEED)
    model = Taehv.from_variant(options.variant, encoder_width=32, decoder_widths=(128, 64, 32, 32)).to(device)
    if device.type == "cpu":
        model.enable_folded_training()  # the same numbers up to rounding, with less work for a CPU
    plan = nearest_plan(model.spec)
    size = math.lcm(SIZE, model.spec.size_multiple)  # some variants want multiples of 16 or 32 pixels

    # Whole videos are held out. Frames of a video that was trained on would be no test: its other frames show the same.
    root = options.data or make_rooms(Path("datasets/rooms"), scenes=16, frames=37, points=False)
    videos = scan(list_videos(root), Need(size, size, plan.n_frames)).clips
    training, held_out = split(videos, 0.2, SEED)
    clips = ClipDataset(training, [(size, size, plan.n_frames)], cache_bytes=2**30)
    order = Order(clips.bucket_of, BATCH, SEED)  # which clip comes when: a function of seed and step alone
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{options.variant} layout, narrow, own latents: {parameters:,} parameters, {device.type}")
    print(f"{len(training)} videos to train on, {len(held_out)} held out; clips: {plan}")

    # Not nothing: it starts as a blurred copy (models/taehv/init.py).
    untrained, _ = held_out_psnr(model, clips, held_out)

    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    for step in range(options.steps):
        for group in optimizer.param_groups:  # warm-up, then half a cosine down to nothing
            cosine = 0.5 + 0.5 * math.cos(math.pi * step / options.steps)
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * cosine
        batch = torch.stack([clips[draw].frames for draw in order.batch(step)])  # uint8 N T C H W
        loss = loss_of(model, batch.to(device).float() / 255, plan)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step + 1 == options.steps:
            print(f"step {step + 1:5d}  loss {loss.item():.4f}")

    trained, baseline = held_out_psnr(model, clips, held_out)
    print(f"held-out PSNR: {trained:.2f} dB; untrained {untrained:.2f} dB, each clip's mean colour {baseline:.2f} dB")
    model.save_pretrained(options.output, {"variant": options.variant, "latents": "own"})
    print(f"weights: {options.output}")


def nearest_plan(spec: TaehvSpec) -> FramePlan:
    """How many frames make a clip, and which decoded frame is about which: each family of models has its own law."""
    try:
        return training_plan(FRAMES, spec)
    except FramePlanError as error:  # it knows the nearest counts that fill whole latents
        return training_plan(error.nearest[-1], spec)


def loss_of(model: Taehv, frames: Tensor, plan: FramePlan) -> Tensor:
    # decoded[:, i] is about frames[:, i] for the plan's target frames. The clip's last few frames are only looked ahead
    # at. What comes back is not clamped: a clamp has no gradient outside [0, 1], where most pixels are at first.
    latents, decoded = model(frames, plan)
    made, wanted = decoded[:, : plan.target_frames], frames[:, : plan.target_frames]
    pixels = mse_loss(made, wanted)
    flicker = mse_loss(made.diff(dim=1), wanted.diff(dim=1))  # change from frame to frame that should not be there
    scale = latent_moments(latents)  # keeps each channel near mean 0 and variance 1, for whatever learns latents later
    return pixels + 0.5 * flicker + 0.001 * scale


def held_out_psnr(model: Taehv, clips: ClipDataset, videos: list[ClipRef]) -> tuple[float, float]:
    """Of the model, and of each clip's mean colour in place of every pixel: what is not well above it has seen nothing."""
    scores, device = [], next(model.parameters()).device
    for video in videos:  # its middle, in full size: reconstruct() takes any number of frames and pixels
        frames = clips.held_out_clip(video, video.height, video.width, min(video.frames, 49))[None].to(device) / 255
        scores.append([psnr(made, frames).item() for made in (model.reconstruct(frames), mean_colour(frames))])
    model_psnr, baseline = torch.tensor(scores).mean(0).tolist()
    return model_psnr, baseline


if __name__ == "__main__":
    try:
        main()
    except UserError as error:  # what you can mend, in one paragraph
        raise SystemExit(f"error: {error}") from None
