"""Streaming decode, one latent at a time: the queue form against the static step, equal to the parallel reference.

    python benchmarks/stream.py [--latents 9 --height 240 --width 416] [--clock cpu]

Times are per latent (four frames) once a past exists.
"""

import torch
from torch import Tensor

from reference_taehv import Queue, ReferenceTaehv
from timing import Run, interleaved, parser, prepare, report, work
from tinyworld import StreamingTaehv, Taehv


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--latents", type=int, default=9)
    options = made.parse_args()
    prepare(options)
    model = Taehv.from_variant(options.variant).eval()
    reference, size = ReferenceTaehv(model), model.spec.spatial_compression
    latents = torch.randn(1, options.latents, model.spec.latent_channels, options.height // size, options.width // size)
    fast, half = model.optimize(), model.optimize(torch.bfloat16)
    with torch.no_grad():
        wanted = reference.decode(latents)
        for name, each in (("fp32", fast), ("bf16", half)):
            stream = StreamingTaehv(each, latents.shape[1])
            found = torch.cat([stream.decode(latent) for latent in latents.split(1, 1)], 1)
            print(
                f"stream {name} against the parallel reference: largest difference {(found - wanted).abs().max():.1e}"
            )
        queue, streams = Queue(reference.decoder), {each: StreamingTaehv(each, 10**6) for each in (fast, half)}

        def queued() -> list[Tensor]:
            return [frame.clamp(0, 1) for frame in queue.push(latents[:, 0])]

        runs: dict[str, Run] = {
            "queue": queued,
            "stream fp32": lambda: streams[fast].decode(latents[:, :1]),
            "stream bf16": lambda: streams[half].decode(latents[:, :1]),
        }
        for run in runs.values():
            run()  # the first latent, which has no past
        types = {name: torch.bfloat16 if name.endswith("bf16") else torch.float32 for name in runs}
        flops = {name: work(run) for name, run in runs.items()}
        report(interleaved(runs, options), ["queue"], flops, types, options.clock)


if __name__ == "__main__":
    main()
