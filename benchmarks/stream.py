"""Streaming decode, one latent at a time: the queue form against the static step in torch and in ONNX
Runtime, equal to the parallel reference.

    python benchmarks/stream.py [--latents 9 --height 240 --width 416] [--clock cpu] [--compile]

Times are per latent (four frames) once a past exists.
"""

from functools import partial

import torch
from torch import Tensor

from reference_taehv import Queue, ReferenceTaehv
from timing import Run, interleaved, onnx_installed, parser, prepare, report, work
from tinyworld import StreamingTaehv, Taehv


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--latents", type=int, default=9)
    made.add_argument("--compile", action="store_true", help="torch.compile's step too")
    options = made.parse_args()
    prepare(options)
    model = Taehv.from_variant(options.variant).eval()
    reference, size = ReferenceTaehv(model), model.spec.spatial_compression
    latents = torch.randn(1, options.latents, model.spec.latent_channels, options.height // size, options.width // size)
    ways = {"fp32": model.optimize(), "bf16": model.optimize(torch.bfloat16)}
    if onnx_installed():
        ways["onnx fp32"] = model.optimize(backend="onnx")
    if options.compile:
        ways["compiled fp32"] = model.optimize(backend="compile")
    with torch.no_grad():
        wanted = reference.decode(latents)
        for name, each in ways.items():
            stream = StreamingTaehv(each, latents.shape[1])
            found = torch.cat([stream.decode(latent) for latent in latents.split(1, 1)], 1)
            print(
                f"stream {name} against the parallel reference: largest difference {(found - wanted).abs().max():.1e}"
            )
        queue, streams = Queue(reference.decoder), {name: StreamingTaehv(each, 10**6) for name, each in ways.items()}

        def queued() -> list[Tensor]:
            return [frame.clamp(0, 1) for frame in queue.push(latents[:, 0])]

        runs: dict[str, Run] = {"queue": queued}
        for name, stream in streams.items():
            runs[f"stream {name}"] = partial(stream.decode, latents[:, :1])
        for run in runs.values():
            run()  # the first latent, which has no past
        types = {name: torch.bfloat16 if name.endswith("bf16") else torch.float32 for name in runs}
        flops = {name: work(run) for name, run in runs.items() if name != "stream onnx fp32"}
        report(interleaved(runs, options), ["queue", "stream fp32"], flops, types, options.clock)


if __name__ == "__main__":
    main()
