"""`tinyworld reconstruct VIDEO… --model M`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tinyworld.cli.paths import Video, find_videos, given_path, plan_outputs
from tinyworld.core.errors import EXIT_USER_ERROR, ConfigError, DataError, MissingFileError

if TYPE_CHECKING:
    from tinyworld.infer.reconstruct import Reconstruction
    from tinyworld.models.taehv import Taehv
    from tinyworld.models.taehv.optimized import OptimizedTaehv


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "reconstruct",
        help="encode and decode videos; writes side-by-side mp4 files and prints quality and speed",
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    add_speed_arguments(parser)
    parser.add_argument(
        "--output", type=given_path, default=Path("reconstructions"), metavar="DIR", help="default: reconstructions"
    )
    parser.add_argument("--plain", action="store_true", help="write the reconstruction alone, not side by side")
    parser.set_defaults(run=run)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What `reconstruct` and `evaluate` share: videos, model, device."""
    parser.add_argument("videos", metavar="VIDEO", nargs="+", type=given_path, help="video files, or folders of them")
    parser.add_argument(
        "--model",
        required=True,
        type=given_path,
        metavar="M",
        help="the best_model or a checkpoint-N of a run, a .safetensors or a .pth file",
    )
    parser.add_argument("--variant", metavar="NAME", help="architecture of a bare weight file, such as taecvx")
    parser.add_argument("--max_frames", type=int, metavar="N", help="only the first N frames of each video")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="number type of the arithmetic"
    )


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """What `reconstruct` and `evaluate` share: how the model runs."""
    parser.add_argument(
        "--backend",
        choices=("auto", "eager", "compile", "onnx"),
        default="eager",
        help="eager: torch; compile: torch.compile; onnx: ONNX Runtime, fp32; auto: eager, and after 20 s of work the fastest "
        "of those that can run here; default: eager. Results are equal up to rounding",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="compute pictures in strips of this height, for sizes that do not fit into memory (4K: 512); same result, more "
        "work: every strip is computed with a border of 18 latent cells above and below",
    )


def tile_cells(options: argparse.Namespace, model: "Taehv") -> int | None:
    """--tile in latent cells of the model."""
    if options.tile is None:
        return None
    cell: int = model.spec.size_multiple
    if options.tile < cell or options.tile % cell:
        below = options.tile // cell * cell
        nearest = f"{cell}" if below < cell else f"{below} or {below + cell}"
        raise ConfigError(
            f"--tile {options.tile} must be a multiple of {cell} pixels, one latent cell of this model, and {cell} at least. "
            f"Use {nearest}; strips of {64 * cell} pixels or more waste little on their borders."
        )
    return cast(int, options.tile // cell)


def open_model(options: argparse.Namespace) -> "Taehv":
    """The model on its device, in evaluation mode, as it was trained."""
    import torch

    from tinyworld.core.files import find
    from tinyworld.models.taehv import Taehv

    if options.max_frames is not None and options.max_frames < 1:
        raise ConfigError(f"--max_frames {options.max_frames} must be at least 1.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, but PyTorch sees no CUDA device here. Use --device cpu, or auto.")
    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    model = Taehv.from_pretrained(find(options.model, what="model", key="--model"), variant=options.variant)
    return model.eval().requires_grad_(False).to(device)


def fast_model(options: argparse.Namespace) -> "OptimizedTaehv":
    """The model on its device, folded for inference in the asked number type."""
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return open_model(options).optimize(dtypes[options.dtype], options.backend)


def reconstruct_each(
    options: argparse.Namespace, model: "OptimizedTaehv", videos: Sequence[Video], outputs: Sequence[Path | None]
) -> tuple[list["Reconstruction"], int]:
    """Every video through the model: one printed line each, the means and what ran at the end; and how many could not be read."""
    from tinyworld.infer.reconstruct import means, reconstruct_video

    tile = tile_cells(options, model)
    width = max(len(str(video.name)) for video in videos)
    print(f"{'video':<{width}}  frames  h x w        PSNR   SSIM  flicker  mean colour  frames/s")
    rows, failed = [], 0
    for video, output in zip(videos, outputs, strict=True):
        try:
            plain = getattr(options, "plain", False)
            row = reconstruct_video(model, video.path, output, plain, options.max_frames, tile)
        except (DataError, MissingFileError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        size = f"{row.height} x {row.width}"
        print(
            f"{video.name!s:<{width}}  {row.frames:6d}  {size:<11} {_number(row.psnr, 6, 2)}  {_number(row.ssim, 5, 3)}  "
            f"{_number(row.flicker, 7, 4)}  {_number(row.baseline_psnr, 8, 2)} dB  {row.frames_per_second:8.1f}",
            flush=True,
        )
        rows.append(row)
    if len(rows) > 1:
        mean = means(rows)
        print(
            f"mean of {len(rows)} videos: PSNR {_number(mean['psnr'], 0, 2)} dB, SSIM {_number(mean['ssim'], 0, 3)}; "
            f"mean colour {_number(mean['baseline_psnr'], 0, 2)} dB"
        )
    if rows:
        tiles = f", strips of {options.tile} rows" if tile else ""
        print(f"backend: {model.running}, {options.dtype} on {next(model.parameters()).device}{tiles}")
    return rows, failed


def _number(value: float, width: int, digits: int) -> str:
    """A dash for what could not be measured."""
    return f"{'–':>{width}}" if math.isnan(value) else f"{value:{width}.{digits}f}"


def run(options: argparse.Namespace) -> int:
    videos = find_videos(options.videos)
    outputs = plan_outputs(videos, options.output)
    rows, failed = reconstruct_each(options, fast_model(options), videos, outputs)
    for row in rows:
        print(f"wrote {row.written}")
    return EXIT_USER_ERROR if failed else 0
