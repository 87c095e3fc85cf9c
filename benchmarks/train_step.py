"""A training step of the autoencoder (encode, decode, mean squared error, backward): plain form against folded training.

    python benchmarks/train_step.py [--size 64 --frames 12 --batch 4] [--precision fp32|bf16] [--clock cpu]

Both forms are measured twice, each in a process of its own: with the C library's memory as it is, and with memory that stays
(`keep_freed_memory`). Repetitions are interleaved within a process. The optimizer is left out: it is the same for both.
"""

import argparse
import json
import statistics
import subprocess
import sys

import torch

from reference_taehv import ReferenceTaehv
from timing import interleaved, parser, prepare, report, work
from tinyworld import Taehv
from tinyworld.core.host_memory import keep_freed_memory


def run_one(options: argparse.Namespace) -> None:
    if options.one == "kept":
        print(f"memory that stays: {keep_freed_memory()}")
    prepare(options)
    model = Taehv.from_variant(options.variant)
    reference = ReferenceTaehv(model)
    model.enable_folded_training()
    frames = torch.rand(options.batch, options.frames, 3, options.size, options.size)
    half = options.precision == "bf16"

    def step(form: Taehv | ReferenceTaehv) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made = form.decode(form.encode(frames), clamp=False)
            loss = (made - frames[:, : made.shape[1]]).square().mean()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        model.zero_grad(set_to_none=True)
        return gradients

    pairs = list(zip(step(reference), step(model), strict=True))
    off = max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in pairs)
    print(f"gradients: largest relative difference of a tensor {off:.1e}")
    runs = {"plain": lambda: step(reference), "folded": lambda: step(model)}
    flops = {name: work(run) for name, run in runs.items()}
    dtype = torch.bfloat16 if half else torch.float32
    times = interleaved(runs, options)
    report(times, ["plain"], flops, dict.fromkeys(runs, dtype), options.clock)
    print(json.dumps({name: statistics.median(own) for name, own in times.items()}))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--size", type=int, default=64)
    made.add_argument("--frames", type=int, default=12)
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    made.add_argument("--one", choices=("default", "kept"), help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.one:
        run_one(options)
        return
    medians = {}
    for memory in ("default", "kept"):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", memory]
        *lines, last = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        medians[memory] = json.loads(last)
        print(f"--- memory: {memory}", *lines, sep="\n", flush=True)
    print(
        f"plain, memory as it is / folded, memory that stays: {medians['default']['plain'] / medians['kept']['folded']:.2f}"
    )


if __name__ == "__main__":
    main()
