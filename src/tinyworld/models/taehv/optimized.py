"""TAEHV folded for inference, behind the same interface: `fast = model.optimize(dtype=torch.bfloat16)`.

What `fast` computes equals `model` up to rounding; see `folded` for how. It runs latent after latent with a state of constant
size, so `mode` makes no difference and memory does not grow with the clip beyond its own frames (`StreamingTaehv(fast)` keeps not
even those).
"""

from typing import Any, get_args

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError
from tinyworld.models.taehv.choose import Chooser, worth_measuring
from tinyworld.models.taehv.folded import FoldedDecoder, FoldedEncoder
from tinyworld.models.taehv.model import Backend, Mode, Taehv, checked_mode

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class OptimizedTaehv(Taehv):
    """A model for inference. Its parameters and `state_dict` are the public ones; what runs are folded copies.

    Frames and latents come back in the number type in which they were given, whatever `dtype` is computed with. Loading
    weights folds anew. No gradients; `forward`, which is for training, is refused.
    """

    def __init__(self, model: Taehv, dtype: torch.dtype, backend: Backend) -> None:
        nn.Module.__init__(self)  # not Taehv's, which would draw weights
        self.spec, self.encoder, self.decoder = model.spec, model.encoder, model.decoder
        self.gradient_checkpointing = self.folded_training = False
        self.dtype, self.backend = dtype, backend
        _check(dtype, backend, next(model.parameters()).device)
        self.fold()
        self.register_load_state_dict_post_hook(lambda module, _: module.fold())
        self.eval()

    def fold(self) -> None:
        """Make the folded copies from the public weights as they are now; needed after changing those by hand."""
        self.folded_encoder = FoldedEncoder(self.encoder, self.dtype)
        self.folded_decoder = FoldedDecoder(self.decoder, self.dtype)
        self.folded_encoder.compiled = self._steady("encoding", self.folded_encoder)
        self.folded_decoder.compiled = self._steady("decoding", self.folded_decoder)

    @property
    def running(self) -> str:
        """What runs where there is a past, for people: "onnx", or "auto (encoding eager, decoding onnx)"."""
        steps = {"encoding": self.folded_encoder.compiled, "decoding": self.folded_decoder.compiled}
        ways = [f"{what} {step.chosen or 'eager'}" for what, step in steps.items() if isinstance(step, Chooser)]
        return f"auto ({', '.join(ways)})" if ways else self.backend

    def _steady(self, what: str, network: FoldedEncoder | FoldedDecoder) -> Any:
        """What replaces the network's step where there is a past; None: nothing."""

        def compiled() -> Any:
            return torch.compile(network.step, dynamic=False)

        def onnx() -> Any:
            from tinyworld.models.taehv.onnx_runtime import OnnxDecoderStep, OnnxEncoderStep

            if isinstance(network, FoldedEncoder):
                return OnnxEncoderStep(network, self.spec)
            return OnnxDecoderStep(network, self.spec)

        match self.backend:
            case "compile":
                return compiled()
            case "onnx":
                return onnx()
            case "auto":
                device = next(self.parameters()).device
                ways = {"onnx": onnx, "compile": compiled}
                return Chooser(what, network.step, {name: ways[name] for name in worth_measuring(self.dtype, device)})
        return None

    @property
    def chains(self) -> tuple[FoldedEncoder, FoldedDecoder]:
        """The folded networks."""
        return self.folded_encoder, self.folded_decoder

    def preview(self, time: bool = False, space: bool = False) -> Taehv:
        """As `Taehv.preview`, optimised likewise."""
        return super().preview(time, space).optimize(self.dtype, self.backend)

    def forward(self, *_: Any, **__: Any) -> tuple[Tensor | None, Tensor | None]:
        """Refused: folded copies do not learn. Raises ConfigError."""
        raise ConfigError("An optimised TAEHV is for inference only; train the model that optimize() was called on.")

    def _encode(self, frames: Tensor, mode: Mode) -> Tensor:
        checked_mode(mode)
        return super()._encode(frames, "sequential")

    def _decode(self, latents: Tensor, mode: Mode) -> Tensor:
        checked_mode(mode)
        return super()._decode(latents, "sequential")


def _check(dtype: torch.dtype, backend: str, device: torch.device) -> None:
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype} is none of {', '.join(map(str, DTYPES))}, in which a TAEHV can be optimised.")
    if dtype is torch.float16 and device.type == "cpu":
        raise ConfigError(
            "CPUs convolve fp16 slowly or not at all. Use dtype=torch.bfloat16, or move the model to a GPU."
        )
    if backend not in get_args(Backend):
        raise ConfigError(f"backend={backend!r} must be one of {', '.join(get_args(Backend))}.")
    if backend == "onnx":
        from tinyworld.models.taehv.onnx_runtime import check_runtime

        check_runtime(dtype, device)
