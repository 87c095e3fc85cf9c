"""Peak memory of decoding long clips: streaming with the optimised model, each length in a process of its own.

    python benchmarks/long_decode.py [--latents 9 81 321] [--height 240 --width 416] [--dtype fp32] [--tile 0]

Frames are handed out and dropped, as a player or a file writer would. With --tile (latent cells) one group of latents is decoded
tile by tile instead, for pictures that do not fit as a whole. Linux only.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from tinyworld import StreamingTaehv, Taehv
from tinyworld.models.taehv.tiling import decode_tiled

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def run_one(options: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = Taehv.from_variant(options.variant).eval()
    fast = model.optimize(DTYPES[options.dtype])
    size = model.spec.spatial_compression
    shape = (1, 1, model.spec.latent_channels, options.height // size, options.width // size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here, after what importing and folding needed
    before, frames = memory("VmRSS"), 0
    if options.tile:
        latents = torch.randn(1, options.one, *shape[2:])
        frames = decode_tiled(fast, latents, options.tile).shape[1]
    else:
        stream = StreamingTaehv(fast)
        for _ in range(options.one):
            frames += stream.decode(torch.randn(shape)).shape[1]
    return {"frames": frames, "peak": memory("VmHWM"), "before": before}


def memory(name: str) -> float:
    """MiB, by a name of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, nargs="+", default=[9, 81, 321])
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=416)
    parser.add_argument("--variant", default="taew2_1")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--tile", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options)))
        return
    peaks = []
    for count in options.latents:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        peaks.append(found["peak"])
        print(
            f"{count} latents, {found['frames']} frames: peak {found['peak']:.0f} MiB ({found['before']:.0f} before)",
            flush=True,
        )
    print(f"longest / shortest: {peaks[-1] / peaks[0]:.3f}x")


if __name__ == "__main__":
    main()
