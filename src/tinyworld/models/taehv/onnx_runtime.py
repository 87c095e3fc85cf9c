"""The folded steps in ONNX Runtime: what `optimize(backend="onnx")` puts in the place of a step once there is a past.

A session is made at the first step, from a graph whose clips, height and width are free, so one serves all sizes; that takes some
seconds. It computes in fp32 with as many threads as torch has at that moment. Tensors are bound where they lie, without copies.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor

from tinyworld.core.errors import ConfigError
from tinyworld.core.variants import IMAGE_CHANNELS, TaehvSpec
from tinyworld.models.taehv.folded import FoldedDecoder, FoldedEncoder, Past
from tinyworld.models.taehv.onnx_export import Graph, decode_step_graph, encode_step_graph, need, to_proto

CUDA = "CUDAExecutionProvider"


def check_runtime(dtype: torch.dtype, device: torch.device) -> None:
    """Raise what keeps the backend from running: MissingExtraError (libraries), ConfigError (number type, GPU)."""
    need("onnx", "onnxscript", "onnxruntime")
    if dtype is not torch.float32:
        raise ConfigError(
            f"backend='onnx' computes in fp32, not in {str(dtype)[6:]}: ONNX Runtime has no bf16 convolution on CPUs, and fp16 "
            "only by way of fp32. Use dtype=torch.float32 (--dtype fp32), or backend='eager', which is fast in bf16."
        )
    import onnxruntime  # type: ignore[import-untyped]

    if device.type == "cuda" and CUDA not in onnxruntime.get_available_providers():
        raise ConfigError(
            "backend='onnx' on a GPU needs ONNX Runtime for CUDA, and the one installed is for CPUs: pip install onnxruntime-gpu "
            "in its place. Or use backend='eager' or 'compile', or the CPU (--device cpu)."
        )


class Session:
    """One graph of a step in ONNX Runtime: a tensor and the state → a tensor and the next state."""

    def __init__(self, graph: Graph, device: torch.device) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin while they wait would take the cores from torch's, which work in between.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        index = device.index or 0
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            providers = [(CUDA, {"device_id": index, "use_tf32": 0}), *providers]
        self.session = onnxruntime.InferenceSession(to_proto(graph).SerializeToString(), options, providers=providers)
        self.device, self.place = device, (device.type, index)
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        taken, made = next(iter(graph.inputs.values()))[0], graph.made
        assert made is not None  # the graph is a step's
        self.middle, self.scale = made[1:-2], Fraction(made[-1], taken.shape[-1])

    def run(self, taken: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        sides = [math.floor(side * self.scale) for side in taken.shape[-2:]]
        made = torch.empty(taken.shape[0], *self.middle, *sides, device=self.device)
        ready = [x.float().contiguous() for x in (taken, *past)]
        results = [made, *(torch.empty_like(x) for x in ready[1:])]
        binding = self.session.io_binding()
        for names, tensors, bind in (
            (self.inputs, ready, binding.bind_input),
            (self.outputs, results, binding.bind_output),
        ):
            for name, x in zip(names, tensors, strict=True):
                bind(name, *self.place, "float32", list(x.shape), x.data_ptr())
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # ONNX Runtime works on a stream of its own
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return made, results[1:]


class _Step:
    """A step that is made at its first use, and anew for another device."""

    def __init__(self, graph: Callable[[], Graph]) -> None:
        self.graph = graph
        self.session: Session | None = None

    def run(self, taken: Tensor, past: Past) -> tuple[Tensor, Past]:
        if self.session is None or self.session.device != taken.device:
            self.session = Session(self.graph(), taken.device)
        made, after = self.session.run(taken, cast(list[Tensor], past))
        return made, list(after)


class OnnxDecoderStep(_Step):
    """`FoldedDecoder.step` where every frame is kept and there is a past."""

    def __init__(self, decoder: FoldedDecoder, spec: TaehvSpec) -> None:
        super().__init__(lambda: decode_step_graph(decoder, spec.latent_channels))

    def __call__(self, latent: Tensor, past: Past, keep: Sequence[bool]) -> tuple[list[Tensor], Past]:
        frames, after = self.run(latent, past)
        return list(frames.unbind(1)), after


class OnnxEncoderStep(_Step):
    """`FoldedEncoder.step` where there is a past."""

    def __init__(self, encoder: FoldedEncoder, spec: TaehvSpec) -> None:
        super().__init__(lambda: encode_step_graph(encoder, IMAGE_CHANNELS * spec.patch_size**2))

    def __call__(self, frames: Sequence[Tensor], past: Past) -> tuple[Tensor, Past]:
        return self.run(torch.stack(list(frames), 1), past)
