"""`tinyworld compress MODEL --output FOLDER`: a smaller weight file, a narrower model, or both."""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tinyworld.cli.commands.reconstruct import open_model
from tinyworld.cli.paths import Video, find_videos, given_path
from tinyworld.core.errors import ConfigError
from tinyworld.core.variants import VARIANTS, TaehvSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tinyworld.models.taehv import Taehv

WARM_UP_LATENTS = 2
"""Latents' worth of frames that run before the clock counts: the first run of a model chooses its kernels."""

CALIBRATION_SIZE = 96
"""Height and width of calibration clips in pixels."""
CALIBRATION_LATENTS = 2
"""Their length, in whole latents; one frame more."""
CALIBRATION_VIDEOS = 24
"""Videos that are read at most, evenly spaced over those given."""
CALIBRATION_ROOMS = 8
"""Rooms that are rendered where no video is given: some seconds."""

DESCRIPTION = """\
Writes a smaller copy of a model; the model itself stays as it is.

--weights makes the file smaller, not the model: fp16 and bf16 halve it and load wherever the model loads (ComfyUI, the
public taehv code). int8 quarters it and loads in tinyworld only, which multiplies it out to fp32 again: the file
shrinks 4x, memory and speed stay the same.

--keep makes the model itself narrower: fewer bytes and less arithmetic, at a loss of quality that a short training run
wins back; the command for that run is printed. Which channels stay is chosen on short clips, from the middle of the
videos that --calibration names. Without it, on rendered rooms: good enough for 0.75, much worse than videos for 0.5.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compress",
        help="write a smaller copy of a model: half precision, int8 weights, fewer channels",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=given_path,
        help="the best_model or a checkpoint-N of a run, a .safetensors or a .pth file",
    )
    parser.add_argument("--weights", choices=("fp16", "bf16", "int8"), help="number type of the file; unset: fp32")
    parser.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help="share of the channels that stay, such as 0.75; widths are rounded up to multiples of 8",
    )
    parser.add_argument(
        "--output", type=given_path, required=True, metavar="FOLDER", help="a folder that is not there yet"
    )
    parser.add_argument("--variant", metavar="NAME", help="architecture of a bare weight file, such as taecvx")
    parser.add_argument(
        "--videos",
        nargs="+",
        type=given_path,
        metavar="VIDEO",
        help="measure the model before and after on these video files, or folders of them",
    )
    parser.add_argument(
        "--calibration",
        nargs="+",
        type=given_path,
        metavar="VIDEO",
        help="with --keep: choose the channels on these video files, or folders of them; best some training videos",
    )
    parser.add_argument("--max_frames", type=int, metavar="N", help="only the first N frames of each video")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it is measured")
    parser.set_defaults(run=run, dtype="fp32")


def run(options: argparse.Namespace) -> int:
    from tinyworld.core.files import find, staged_folder
    from tinyworld.models.taehv import Taehv, weights
    from tinyworld.models.taehv.prune import narrower, prune
    from tinyworld.models.taehv.quantise import compress

    _check(options)
    options.model = find(options.model, what="model", key="MODEL")
    videos = find_videos(options.videos or [])
    model = open_model(options)
    if options.keep is not None and narrower(model.spec, options.keep) == model.spec:
        raise ConfigError(
            f"--keep {options.keep} removes no channel of {options.model}: {_widths(model.spec)}, and widths are rounded up "
            "to multiples of 8. Give a smaller --keep, or --weights alone."
        )
    smaller = model if options.keep is None else prune(model, options.keep, _calibration_clips(options, model))
    rows = [_measure("before", model, weights.weight_file(options.model), videos, options.max_frames)]
    tensors = smaller.state_dict()
    with staged_folder(options.output) as folder:
        kept = compress(tensors, options.weights) if options.weights else tensors
        weights.write_folder(folder, kept, smaller.spec, weights.read_about(options.model))
    device = next(model.parameters()).device
    written = Taehv.from_pretrained(options.output).eval().requires_grad_(False).to(device)
    rows.append(_measure("after", written, weights.weight_file(options.output), videos, options.max_frames))
    _print_table(rows)
    print(f"wrote {options.output}")
    if options.keep is not None:
        _say_recovery(options.output, written.spec)
        if options.weights is not None:
            print(f"The run writes fp32: compress its best_model with --weights {options.weights} again.")
    return 0


def _check(options: argparse.Namespace) -> None:
    problems = []
    if options.weights is None and options.keep is None:
        problems.append("Nothing to do: give --weights fp16, bf16 or int8, or --keep 0.75, or both.")
    if options.keep is not None and not 0 < options.keep <= 1:
        problems.append(
            f"--keep {options.keep} is the share of the channels that stay: above 0, at most 1, such as 0.75."
        )
    if options.calibration is not None and options.keep is None:
        problems.append("--calibration is for --keep, which is not given.")
    if options.max_frames is not None and options.videos is None:
        problems.append("--max_frames is for --videos, which are not given.")
    if options.output.exists() or options.output.is_symlink():
        problems.append(f"--output {options.output} is there already. Give the name of a folder that is not there yet.")
    if problems:
        raise ConfigError(problems)


def _calibration_clips(options: argparse.Namespace, model: "Taehv") -> "Iterator[Tensor]":
    """Clips 1 T C H W in [0, 1] on the model's device. Raises DataError or MissingFileError for an unreadable video."""
    import numpy as np
    import torch

    frames = CALIBRATION_LATENTS * model.spec.t_down + 1
    if options.calibration is None:
        print(
            f"choosing channels on {CALIBRATION_ROOMS} rendered rooms; --calibration VIDEO… would fit your videos better"
        )
        pictures = _rooms(frames)
    else:
        videos = find_videos(options.calibration)
        chosen = np.linspace(0, len(videos) - 1, min(len(videos), CALIBRATION_VIDEOS)).round().astype(int)
        pictures = (_middle(videos[index].path, frames) for index in chosen)
    device = next(model.parameters()).device
    for picture in pictures:
        yield torch.from_numpy(picture).permute(0, 3, 1, 2)[None].to(device).float().div(255)


def _rooms(frames: int) -> "Iterator[np.ndarray]":
    """uint8 T H W C each: two seconds of a rendered room."""
    import numpy as np

    from tinyworld.data.rooms import Renderer, build_scene

    for index in range(CALIBRATION_ROOMS):
        room = Renderer(build_scene(0, index))
        times = np.linspace(0, 2, frames)
        yield np.stack([room.frame(time, CALIBRATION_SIZE, CALIBRATION_SIZE).colour for time in times])


def _middle(video: Path, frames: int) -> "np.ndarray":
    """uint8 T H W C: as many frames and pixels from the middle of the video and of its picture, or all there are."""
    from tinyworld.media.read import probe, read_frames

    info = probe(video)
    height, width = min(info.height, CALIBRATION_SIZE), min(info.width, CALIBRATION_SIZE)
    region = ((info.height - height) // 2, (info.width - width) // 2, height, width)
    first = max(info.frames - frames, 0) // 2
    return read_frames(video, range(first, min(first + frames, info.frames)), region)


@dataclass(frozen=True)
class _Row:
    """One model: PSNR in dB and milliseconds per frame only where videos were given."""

    name: str
    widths: str
    parameters: int
    file_bytes: int
    psnr: float | None = None
    milliseconds: float | None = None


def _measure(name: str, model: "Taehv", file: Path, videos: list[Video], max_frames: int | None) -> _Row:
    """Raises DataError or MissingFileError for a video that cannot be read."""
    from tinyworld.infer.reconstruct import means, reconstruct_video

    about = (name, _widths(model.spec), sum(tensor.numel() for tensor in model.parameters()), file.stat().st_size)
    if not videos:
        return _Row(*about)
    reconstruct_video(model, videos[0].path, max_frames=WARM_UP_LATENTS * model.spec.t_down)
    found = [reconstruct_video(model, video.path, max_frames=max_frames) for video in videos]
    seconds, frames = sum(row.seconds for row in found), sum(row.frames for row in found)
    return _Row(*about, psnr=means(found)["psnr"], milliseconds=1000 * seconds / frames)


def _print_table(rows: list[_Row]) -> None:
    measured = rows[0].psnr is not None
    print(f"{'':<6}  parameters  file MB{'     PSNR  ms/frame' if measured else ''}  widths")
    for row in rows:
        quality = f"  {row.psnr:7.2f}  {row.milliseconds:8.1f}" if measured else ""
        print(f"{row.name:<6}  {row.parameters:10,d}  {row.file_bytes / 1e6:7.2f}{quality}  {row.widths}")


def _widths(spec: TaehvSpec) -> str:
    return f"encoder {spec.encoder_width}, decoder {','.join(map(str, spec.decoder_widths))}"


def _say_recovery(folder: Path, spec: TaehvSpec) -> None:
    """The training run that wins the quality back, for architectures that a recipe can name."""
    encoder, decoder = spec.encoder_width, spec.decoder_widths
    names = [
        name
        for name, known in VARIANTS.items()
        if replace(known, encoder_width=encoder, decoder_widths=decoder) == spec
    ]
    if not names:
        print("Not a public variant with other widths, so no recipe can train it again: it stays as it is.")
        return
    print(
        "The narrower model needs a short training run, with the RECIPE that the model was trained with:\n"
        f"tinyworld train RECIPE --pretrained_model_path {shlex.quote(str(folder))} --variant {names[0]} "
        f"--encoder_width {encoder} --decoder_widths {','.join(map(str, decoder))} "
        "--max_train_steps 1000"
    )
