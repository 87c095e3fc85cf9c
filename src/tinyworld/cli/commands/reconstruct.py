"""`tinyworld reconstruct VIDEO… --model M`."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinyworld.core.errors import EXIT_USER_ERROR, ConfigError, DataError

if TYPE_CHECKING:
    from tinyworld.infer.reconstruct import Reconstruction
    from tinyworld.models.taehv import Taehv


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "reconstruct",
        help="encode and decode videos; writes side-by-side mp4 files and prints quality and speed",
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("reconstructions"), metavar="DIR", help="default: reconstructions"
    )
    parser.add_argument("--plain", action="store_true", help="write the reconstruction alone, not side by side")
    parser.set_defaults(run=run)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What `reconstruct` and `evaluate` share: videos, model, device."""
    parser.add_argument("videos", metavar="VIDEO", nargs="+", type=Path, help="video files, or folders of them")
    parser.add_argument(
        "--model", required=True, type=Path, metavar="M", help="a folder saved by a run, a .safetensors or a .pth file"
    )
    parser.add_argument("--variant", metavar="NAME", help="architecture of a bare weight file, such as taecvx")
    parser.add_argument("--max_frames", type=int, metavar="N", help="only the first N frames of each video")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="number type of the arithmetic"
    )


def open_model(options: argparse.Namespace) -> "Taehv":
    """The model on its device, in evaluation mode and the asked number type."""
    import torch

    from tinyworld.core.files import find
    from tinyworld.models.taehv import Taehv

    if options.max_frames is not None and options.max_frames < 1:
        raise ConfigError(f"--max_frames {options.max_frames} must be at least 1.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, but PyTorch sees no CUDA device here. Use --device cpu, or auto.")
    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[options.dtype]
    model = Taehv.from_pretrained(find(options.model, what="model", key="--model"), variant=options.variant)
    return model.eval().requires_grad_(False).to(device, dtype)


def reconstruct_each(
    options: argparse.Namespace, model: "Taehv", output: Path | None
) -> tuple[list["Reconstruction"], int]:
    """Every video through the model, one printed line each and the means at the end; and how many could not be read."""
    from tinyworld.data.manifest import list_videos
    from tinyworld.infer.reconstruct import reconstruct_video

    paths = [
        p for given in options.videos for p in ([e.path for e in list_videos(given)] if given.is_dir() else [given])
    ]
    width = max(len(path.name) for path in paths)
    print(f"{'video':<{width}}  frames  h x w        PSNR   SSIM  flicker  mean colour  frames/s")
    rows, failed = [], 0
    for path in paths:
        target = None if output is None else output / f"{path.stem}.mp4"
        try:
            row = reconstruct_video(model, path, target, getattr(options, "plain", False), options.max_frames)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        flicker = "      –" if math.isnan(row.flicker) else f"{row.flicker:7.4f}"
        size = f"{row.height} x {row.width}"
        print(
            f"{path.name:<{width}}  {row.frames:6d}  {size:<11} {row.psnr:6.2f}  {row.ssim:.3f}  {flicker}  "
            f"{row.baseline_psnr:8.2f} dB  {row.frames_per_second:8.1f}",
            flush=True,
        )
        rows.append(row)
    if len(rows) > 1:
        psnr, ssim, baseline = (
            sum(getattr(row, key) for row in rows) / len(rows) for key in ("psnr", "ssim", "baseline_psnr")
        )
        print(f"mean of {len(rows)} videos: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}; mean colour {baseline:.2f} dB")
    return rows, failed


def run(options: argparse.Namespace) -> int:
    rows, failed = reconstruct_each(options, open_model(options), options.output)
    print("\n".join(f"wrote {row.written}" for row in rows))
    return EXIT_USER_ERROR if failed else 0
