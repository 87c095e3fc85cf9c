"""Encoding: the plain reference (parallel; through a queue) against the optimised model in fp32, in bf16
and in ONNX Runtime, same weights.

python benchmarks/encode.py [--frames 36 --height 240 --width 416] [--clock cpu] [--compile]
"""

import torch

from reference_taehv import ReferenceTaehv
from timing import Run, interleaved, onnx_installed, parser, prepare, report, work
from tinyworld import Taehv


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--frames", type=int, default=36)
    made.add_argument("--compile", action="store_true", help="torch.compile's step too")
    options = made.parse_args()
    prepare(options)
    model = Taehv.from_variant(options.variant).eval()
    reference = ReferenceTaehv(model)
    frames = torch.rand(1, options.frames, 3, options.height, options.width)
    fast, half = model.optimize(), model.optimize(torch.bfloat16)
    runs: dict[str, Run] = {
        "parallel": lambda: reference.encode(frames),
        "queue": lambda: reference.encode_queued(frames),
        "optimised fp32": lambda: fast.encode(frames),
        "optimised bf16": lambda: half.encode(frames),
    }
    if onnx_installed():
        session = model.optimize(backend="onnx")
        runs["onnx fp32"] = lambda: session.encode(frames)
    if options.compile:
        compiled = model.optimize(backend="compile")
        runs["compiled fp32"] = lambda: compiled.encode(frames)
    types = {name: torch.bfloat16 if name.endswith("bf16") else torch.float32 for name in runs}
    with torch.no_grad():
        wanted = reference.encode(frames)
        for name, run in runs.items():
            off = (run() - wanted).abs().max() / wanted.abs().max()
            print(f"{name}: largest difference {off:.1e} of the largest latent")
        flops = {name: work(run) for name, run in runs.items() if name != "onnx fp32"}
        report(interleaved(runs, options), ["parallel", "queue", "optimised fp32"], flops, types, options.clock)


if __name__ == "__main__":
    main()
