"""Peak memory of a round trip through the full-width model: streaming against parallel, in one run.

    python benchmarks/reconstruct_memory.py [--height 480 --width 832 --frames 9 --long 81]

Streaming runs on `--frames` and on `--long` frames (its memory must not grow), parallel on `--frames` only (its memory does:
81 frames of 480 × 832 would need about 30 GiB).

Each form runs in a process of its own (`tinyworld reconstruct` on an mp4 made here, and `Taehv.reconstruct` on the same
frames); printed are the peaks of resident memory and their ratio. Random weights: memory does not depend on them.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from tinyworld import Taehv
from tinyworld.cli.main import main as tinyworld
from tinyworld.media.read import probe, read_frames
from tinyworld.media.write import write_video


def make_inputs(folder: Path, height: int, width: int, frames: int) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(folder / "clip.mp4", (np.roll(picture, 3 * index, axis=1) for index in range(frames)), 16)
    Taehv.from_variant("taew2_1").save_pretrained(folder / "model")


def run_one(form: str, folder: Path) -> dict[str, float]:
    """In a process of its own: run one form, print its peak memory and how many frames came back."""
    video = folder / "clip.mp4"
    count = probe(video).frames
    if form == "streaming":
        tinyworld(["reconstruct", str(video), "--model", str(folder / "model"), "--output", str(folder / "out")])
        back = probe(folder / "out" / "clip.mp4").frames
    else:
        frames = torch.from_numpy(read_frames(video, range(count))).permute(0, 3, 1, 2).float().div(255)[None]
        back = Taehv.from_pretrained(folder / "model").reconstruct(frames).shape[1]
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "frames": back}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--long", type=int, default=81)
    parser.add_argument("--one", nargs=2, metavar=("FORM", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one[0], Path(options.one[1]))))
        return
    peaks = {}
    for form, frames in (("streaming", options.frames), ("streaming", options.long), ("parallel", options.frames)):
        with tempfile.TemporaryDirectory() as name:
            make_inputs(Path(name), options.height, options.width, frames)
            done = subprocess.run(
                [sys.executable, __file__, "--one", form, name], capture_output=True, text=True, check=True
            )
        found = json.loads(done.stdout.splitlines()[-1])
        peaks[form, frames] = found["peak_mib"]
        print(f"{form:<10} {frames:3d} frames: {found['frames']} back, peak {found['peak_mib']:.0f} MiB", flush=True)
    short, long, parallel = (
        peaks["streaming", options.frames],
        peaks["streaming", options.long],
        peaks["parallel", options.frames],
    )
    print(f"streaming, {options.long} / {options.frames} frames: {long / short:.2f}x")
    print(f"parallel / streaming at {options.frames} frames: {parallel / short:.1f}x")


if __name__ == "__main__":
    main()
