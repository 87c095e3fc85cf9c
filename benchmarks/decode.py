"""Decoding: the plain reference (parallel; through a queue) against the optimised model in fp32, in bf16
and in ONNX Runtime, same weights.

python benchmarks/decode.py [--latents 9 --height 240 --width 416] [--clock cpu] [--compile]
"""

import torch

from reference_taehv import ReferenceTaehv
from timing import Run, interleaved, onnx_installed, parser, prepare, report, work
from tinyworld import Taehv


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--latents", type=int, default=9)
    made.add_argument("--compile", action="store_true", help="torch.compile's step too")
    options = made.parse_args()
    prepare(options)
    model = Taehv.from_variant(options.variant).eval()
    reference, size = ReferenceTaehv(model), model.spec.spatial_compression
    latents = torch.randn(1, options.latents, model.spec.latent_channels, options.height // size, options.width // size)
    fast, half = model.optimize(), model.optimize(torch.bfloat16)
    runs: dict[str, Run] = {
        "parallel": lambda: reference.decode(latents),
        "queue": lambda: reference.decode_queued(latents),
        "optimised fp32": lambda: fast.decode(latents),
        "optimised bf16": lambda: half.decode(latents),
    }
    if onnx_installed():
        session = model.optimize(backend="onnx")
        runs["onnx fp32"] = lambda: session.decode(latents)
    if options.compile:
        compiled = model.optimize(backend="compile")
        runs["compiled fp32"] = lambda: compiled.decode(latents)
    types = {name: torch.bfloat16 if name.endswith("bf16") else torch.float32 for name in runs}
    with torch.no_grad():
        wanted = reference.decode(latents)
        for name, run in runs.items():
            off = (run() - wanted).abs()
            agreement = -10 * torch.log10(off.square().mean())
            print(f"{name}: largest difference {off.max():.1e}, agreement {agreement:.1f} dB")
        flops = {name: work(run) for name, run in runs.items() if name != "onnx fp32"}
        report(interleaved(runs, options), ["parallel", "queue", "optimised fp32"], flops, types, options.clock)


if __name__ == "__main__":
    main()
