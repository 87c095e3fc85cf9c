"""What compression buys: file size, time per frame and PSNR of each form of a model, against fp32 at full width.

    python benchmarks/compression.py [MODEL] [--videos DIR] [--calibration DIR] [--height 240 --width 416 --frames 13]

Without MODEL: the full-width taecvx shape with random weights, whose PSNR says nothing and is left out. With MODEL and
--videos: mean PSNR over whole videos. Narrower models are as pruning leaves them, before any training; channels are chosen
on --calibration videos, or on random clips, which is good enough for time and size only.

Times are of the round trip (encode and decode), the fastest of three, on random frames: "streaming" frame by frame through
`StreamingTaehv`, "parallel" all frames at once through `Taehv.reconstruct`. The int8 file is multiplied out when it is
loaded: its time is that of fp32.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from tinyworld import Taehv
from tinyworld.core.frames import round_trip_plan
from tinyworld.infer.reconstruct import means, reconstruct_video
from tinyworld.media.read import probe, read_frames
from tinyworld.models.taehv import StreamingTaehv, weights
from tinyworld.models.taehv.prune import prune
from tinyworld.models.taehv.quantise import compress

REPEATS = 3


def forms(model: Taehv, clips: list[Tensor], folder: Path) -> Iterator[tuple[str, Taehv, int]]:
    """Name, model ready to run and bytes of its file, of every form; the plain one first."""

    def stored(tensors: dict[str, Tensor], spec_of: Taehv) -> tuple[Taehv, int]:
        weights.write_folder(folder, tensors, spec_of.spec)
        return Taehv.from_pretrained(folder).eval().requires_grad_(False), weights.weight_file(folder).stat().st_size

    plain = model.state_dict()
    yield "fp32", *stored(plain, model)
    yield "fp16 file", *stored(compress(plain, "fp16"), model)
    half, size = stored(compress(plain, "bf16"), model)
    yield "bf16 file and arithmetic", half.bfloat16(), size
    yield "int8 file", *stored(compress(plain, "int8"), model)
    for keep in (0.75, 0.5):
        narrow = prune(model, keep, clips)
        yield f"keep {keep}", *stored(narrow.state_dict(), narrow)


def milliseconds(work: Callable[[], object], frames: int) -> float:
    """Per frame, the fastest of a few runs after one that does not count."""
    work()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken) / frames


def streaming(model: Taehv, frames: Tensor) -> int:
    pieces = frames.split(model.spec.t_down, 1)
    plan = round_trip_plan(frames.shape[1], model.spec)
    return sum(piece.shape[1] for piece in StreamingTaehv(model, plan.latent_frames).reconstruct(pieces))


def quality(model: Taehv, videos: list[Path], max_frames: int) -> float:
    return means([reconstruct_video(model, video, max_frames=max_frames) for video in videos])["psnr"]


def calibration(model: Taehv, videos: list[Path]) -> list[Tensor]:
    length = 2 * model.spec.t_down + 1
    if not videos:
        return [torch.rand(1, length, 3, 96, 96, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    clips = []
    for video in videos:
        info = probe(video)
        height, width = min(96, info.height), min(96, info.width)
        region = ((info.height - height) // 2, (info.width - width) // 2, height, width)
        pictures = read_frames(video, range(min(length, info.frames)), region)
        clips.append(torch.from_numpy(pictures).permute(0, 3, 1, 2)[None].float().div(255))
    return clips


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", help="weights as in `tinyworld compress`; default: random, full width")
    parser.add_argument("--variant", help="architecture of a bare weight file")
    parser.add_argument("--videos", type=Path, help="folder of mp4 files on which a trained model is measured")
    parser.add_argument("--calibration", type=Path, help="folder of mp4 files on which channels are chosen")
    parser.add_argument("--max_frames", type=int, default=16, help="of each video")
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=416)
    parser.add_argument("--frames", type=int, default=13)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = Taehv.from_pretrained(options.model, options.variant) if options.model else Taehv.from_variant("taecvx")
    model.eval().requires_grad_(False)
    videos = sorted(options.videos.glob("*.mp4")) if options.videos and options.model else []
    clips = calibration(model, sorted(options.calibration.glob("*.mp4")) if options.calibration else [])
    frames = torch.rand(1, options.frames, 3, options.height, options.width)
    size = f"{options.frames} frames of {options.height} x {options.width}"
    print(f"{size}, {torch.get_num_threads()} threads; in brackets: ratio to fp32 at full width")
    print(f"{'':<25}{'file MB':>15}{'streaming ms/frame':>22}{'parallel ms/frame':>22}{'PSNR':>8}")
    first: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        for form, ready, file_bytes in forms(model, clips, Path(name)):
            given = frames.to(next(ready.parameters()).dtype)
            found = [
                file_bytes / 1e6,
                milliseconds(lambda ready=ready, given=given: streaming(ready, given), options.frames),
                milliseconds(lambda ready=ready, given=given: ready.reconstruct(given), options.frames),
            ]
            first = first or found
            cells = [f"{value:.1f} ({value / base:.2f})" for value, base in zip(found, first, strict=True)]
            psnr = f"{quality(ready, videos, options.max_frames):.2f}" if videos else "–"
            print(f"{form:<25}{cells[0]:>15}{cells[1]:>22}{cells[2]:>22}{psnr:>8}", flush=True)


if __name__ == "__main__":
    main()
