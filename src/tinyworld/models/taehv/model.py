"""TAEHV, the tiny causal video autoencoder (madebyollin/taehv): pixels ⇄ latents of a video diffusion model.

    frames N T C H W in [0, 1]  ─encode→  latents N L c h w  ─decode→  frames N T' C H W

Which input frames the decoded frames are about is `core.frames`' knowledge; the blocks are listed in `layout`.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, DataError, FramePlanError, nearest_name
from tinyworld.core.frames import (
    H3_CHUNK,
    H3_LAST_FRAMES,
    H3_LEAD,
    FramePlan,
    decoded_count,
    encoded_count,
    kept_runs,
    round_trip_plan,
)
from tinyworld.core.variants import IMAGE_CHANNELS, TaehvSpec
from tinyworld.core.variants import variant as spec_of
from tinyworld.models.taehv import hub, weights
from tinyworld.models.taehv.blocks import run_parallel
from tinyworld.models.taehv.folded import FoldedDecoder, FoldedEncoder
from tinyworld.models.taehv.fused import run_fused
from tinyworld.models.taehv.init import initialise
from tinyworld.models.taehv.layout import build_decoder, build_encoder
from tinyworld.models.taehv.sequential import SequentialDecoder, SequentialEncoder, fold_pixels, unfold_pixels

if TYPE_CHECKING:
    from tinyworld.models.taehv.optimized import OptimizedTaehv

Mode = Literal["parallel", "sequential"]
Backend = Literal["auto", "eager", "compile", "onnx"]


class Taehv(nn.Module):
    """One TAEHV model, with random weights unless loaded. All frames are RGB, N T C H W, floating point in [0, 1].

    `mode` chooses how frames run: "parallel" takes all at once, block by block (training; fast on a GPU; memory grows
    with T); "sequential" takes one after another through all blocks (activations of a few frames, whatever T is). Both
    give the same up to rounding.
    """

    def __init__(self, spec: TaehvSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = build_encoder(spec)
        self.decoder = build_decoder(spec)
        self.gradient_checkpointing = False
        self.folded_training = False
        if not self.encoder[0].weight.is_meta:
            initialise(self.encoder, self.decoder)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "Taehv":
        """A public variant with random weights; `overrides` are fields of TaehvSpec, e.g. encoder_width=32.

        Raises ConfigError for an unknown variant or field, with the nearest name.
        """
        known = [field.name for field in fields(TaehvSpec)]
        for key in overrides:
            if key not in known:
                raise ConfigError(f"A TAEHV architecture has no {key!r}.{nearest_name(key, known)} Known: {known}.")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in overrides.items()}
        return cls(replace(spec_of(name), **values))

    @classmethod
    def from_pretrained(
        cls, path: str | Path, variant: str | None = None, revision: str | None = None, token: str | None = None
    ) -> "Taehv":
        """Load a folder written by `save_pretrained`, a `.safetensors` or a `.pth` file. fp32, on the CPU.

        "org/name" that is no path here is a repository of the Hugging Face hub (`revision`: a branch, tag or commit).
        A file that states its architecture (metadata, or a JSON beside it) needs no `variant`; a published file needs
        one when its tensors fit several. Raises MissingFileError, ConfigError or WeightsError.
        """
        place = hub.fetch(str(path), revision, token) if hub.is_name(path) else path
        spec, tensors = weights.load(place, None if variant is None else spec_of(variant))
        return cls.assembled(spec, {key: tensor.float() for key, tensor in tensors.items()})

    @classmethod
    def assembled(cls, spec: TaehvSpec, tensors: dict[str, Any]) -> "Taehv":
        """A model that takes the given tensors as they are, without drawing or copying weights."""
        with torch.device("meta"):
            model = cls(spec)
        model.load_state_dict(tensors, assign=True)
        return model

    def save_pretrained(self, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
        """Write `model.safetensors` (public keys) and `config.json` (architecture, tinyworld version) into a folder.

        about: what else is known of the model, such as {"variant": "taew2_1", "step": 1000} (keys: `weights.ABOUT`).
        """
        weights.write_folder(Path(folder), self.state_dict(), self.spec, about)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        about: Mapping[str, Any] | None = None,
        card: str | None = None,
        private: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ) -> str:
        """Put what `save_pretrained` writes, and `card` as README.md, into the repository "org/name" of the Hugging Face hub.

        Made when it is not there; without `card` a README.md that is there stays. `tinyworld export RUN --to hub` writes a card
        from a run. Returns the address of the commit. Raises ConfigError, HubError.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, about)
            if card is not None:
                (Path(folder) / "README.md").write_text(card, encoding="utf-8")
            return hub.upload(Path(folder), repo_id, "A TAEHV, by tinyworld", private, revision, token)

    def preview(self, time: bool = False, space: bool = False) -> "Taehv":
        """A cheaper decoder on the same weights: one frame per latent unless `time`, 1/8 of the size unless `space`.

        Shares its tensors with this model, except that each TGrow that no longer grows keeps the part that makes the
        last frame. `core.frames.shown_frames` says which frames it shows. Raises ConfigError for the super decoder
        without `space`: its upscaling convolutions have no smaller form.
        """
        if not space and self.spec.decoder_block == "super":
            raise ConfigError("The super decoder has no preview at reduced size; use preview(space=True).")
        off = (False, False, False)
        spec = replace(
            self.spec,
            decoder_time_upscale=self.spec.decoder_time_upscale if time else off,
            decoder_space_upscale=self.spec.decoder_space_upscale if space else off,
        )
        return Taehv.assembled(spec, weights.fit_rate(self.state_dict(), spec))

    def optimize(self, dtype: torch.dtype = torch.float32, backend: Backend = "eager") -> "OptimizedTaehv":
        """The same model for inference, equal up to rounding and several times as fast; this one stays as it is.

        Shares this model's parameters and computes in `dtype` (fp32; bf16; fp16 on a GPU) with folded copies of them.
        `backend` is what runs the static step from a clip's second latent on: "eager" is torch; "compile" torch.compile, which
        takes a while at the first clip of each size; "onnx" ONNX Runtime (fp32), made in some seconds at the first use; "auto"
        is eager until 20 s of work have gone into it, then measures the others, goes on with the fastest, and says so.
        Raises ConfigError for another number type or backend, or one that cannot run there; MissingExtraError without ONNX.
        """
        from tinyworld.models.taehv.optimized import OptimizedTaehv

        return OptimizedTaehv(self, dtype, backend)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only block inputs for the backward pass and recompute the rest: less memory, one more forward pass."""
        self.gradient_checkpointing = True

    def enable_folded_training(self) -> None:
        """Run the parallel mode, and so training, through `fused`: less work, equal up to rounding, the same gradients.

        Not under ZeRO-3, which hides the weights from what is not called.
        """
        self.folded_training = True

    def forward(
        self,
        frames: Tensor,
        plan: FramePlan,
        latents: Tensor | None = None,
        encode: bool = True,
        decode: bool = True,
    ) -> tuple[Tensor | None, Tensor | None]:
        """For training: the model's own latents (N L c h w), and decoded frames, not clamped (N plan.decoded_frames C H W).

        `frames` are the plan's n_frames; the plan's mask says which decoded frames to compare with frames[:, i]. Decodes
        `latents` where they are given (a teacher's), else its own. A part that is not asked for is None.
        """
        if frames.shape[1] != plan.n_frames:
            raise FramePlanError(
                f"{frames.shape[1]} frames were given for a plan of {plan.n_frames}.", (plan.n_frames,)
            )
        self.check_frames(frames)
        if latents is not None and latents.shape[1] != plan.latent_frames:
            raise FramePlanError(
                f"{latents.shape[1]} latents were given for a plan of {plan.latent_frames}.", (plan.latent_frames,)
            )
        own = self._encode(with_length(frames, plan.encoded_frames), "parallel") if encode else None
        source = own if latents is None else latents
        if not decode:
            return own, None
        if source is None:
            raise ValueError("there is nothing to decode: neither encode nor latents")
        return own, self.decode(source, clamp=False)

    def encode(self, frames: Tensor, mode: Mode = "parallel", round_trip: bool = False) -> Tensor:
        """N T C H W → N L c h w, L = `core.frames.latent_count(T)`: the last frame fills the last latent.

        With `round_trip` it is repeated further, so that `decode(latents, num_frames=T)` gives all T frames back.
        Height and width must be multiples of `spec.size_multiple`. Raises DataError, ConfigError for an unknown mode.
        """
        self.check_frames(frames)
        count = frames.shape[1]
        wanted = round_trip_plan(count, self.spec).encoded_frames if round_trip else encoded_count(count, self.spec)
        return self._encode(with_length(frames, wanted), mode)

    def decode(
        self, latents: Tensor, num_frames: int | None = None, mode: Mode = "parallel", clamp: bool = True
    ) -> Tensor:
        """N L c h w → N T' C H W, T' = `core.frames.decoded_count(L)`, or the first `num_frames` of them.

        Training needs clamp=False: a clamp has no gradient outside [0, 1].
        Raises DataError, FramePlanError when the latents hold fewer frames, ConfigError for an unknown mode.
        """
        self.check_latents(latents)
        if latents.shape[1] < 1:
            raise DataError("decoding needs at least one latent; there is none")
        available = decoded_count(latents.shape[1], self.spec)
        if num_frames is not None and not 1 <= num_frames <= available:
            raise FramePlanError(
                f"num_frames={num_frames}, but {latents.shape[1]} latents decode to {available} frames. Ask for 1 to "
                f"{available}, or encode with round_trip=True, which pads so that every frame comes back.",
                (available,),
            )
        frames = self._decode(latents, mode)[:, :num_frames]
        return frames.clamp(0, 1) if clamp else frames

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, mode: Mode = "parallel") -> Tensor:
        """Encode and decode: exactly the T frames that came in, for any T ≥ 1 and any height and width.

        Sizes that are not multiples of `spec.size_multiple` are padded with edge pixels and cut back.
        """
        self.check_frames(frames, any_size=True)
        height, width = frames.shape[-2:]
        latents = self.encode(pad_to_multiple(frames, self.spec.size_multiple), mode, round_trip=True)
        return self.decode(latents, frames.shape[1], mode)[..., :height, :width]

    def check_frames(self, frames: Tensor, any_size: bool = False) -> None:
        """Raise DataError when `encode` (with `any_size`: `reconstruct`) cannot take these frames."""
        if frames.ndim != 5 or frames.shape[2] != IMAGE_CHANNELS or not frames.is_floating_point():
            raise DataError(
                f"frames are {_describe(frames)}; they must be N T {IMAGE_CHANNELS} H W, floating point in [0, 1]"
            )
        if 0 in frames.shape:
            raise DataError(f"frames are {_describe(frames)}: there is nothing to encode")
        size = self.spec.size_multiple
        if not any_size and any(side % size for side in frames.shape[-2:]):
            nearest = " × ".join(str(max(side // size, 1) * size) for side in frames.shape[-2:])
            raise DataError(
                f"frames are {frames.shape[-2]} × {frames.shape[-1]} pixels: height and width must be multiples of "
                f"{size}. Use {nearest} (keys: data.height, data.width), or reconstruct(), which pads and cuts back."
            )

    def check_latents(self, latents: Tensor) -> None:
        """Raise DataError when these are no latents of this model."""
        if latents.ndim != 5 or latents.shape[2] != self.spec.latent_channels or not latents.is_floating_point():
            raise DataError(f"latents are {_describe(latents)}; they must be N L {self.spec.latent_channels} h w")

    @property
    def chains(self) -> tuple[nn.Sequential | FoldedEncoder, nn.Sequential | FoldedDecoder]:
        """Encoder and decoder as sequential execution and streaming run them."""
        return self.encoder, self.decoder

    def _decode(self, latents: Tensor, mode: Mode) -> Tensor:
        """All frames that are kept, not clamped."""
        if checked_mode(mode) == "sequential":
            return SequentialDecoder(self.chains[1], self.spec, latents.shape[1]).push(latents)
        runs = kept_runs(latents.shape[1], self.spec)
        first = runs[0].start if self.folded_training else 0
        if self.folded_training:
            folded = run_fused(self.decoder, latents, first, self.gradient_checkpointing)
        else:
            folded = run_parallel(self.decoder, latents, self.gradient_checkpointing)
        kept = [folded[:, run.start - first : run.stop - first] for run in runs]
        return unfold_pixels(kept[0] if len(kept) == 1 else torch.cat(kept, 1), self.spec.patch_size)

    def _encode(self, frames: Tensor, mode: Mode) -> Tensor:
        """Frames of a length that fills whole latents."""
        if checked_mode(mode) == "sequential":
            encoder = SequentialEncoder(self.chains[0], self.spec)
            return torch.cat([encoder.push(frames), encoder.finish()], 1)
        if self.spec.flavour == "h3":
            return self._encode_h3(frames)
        return self._run_encoder(frames)

    def _run_encoder(self, frames: Tensor) -> Tensor:
        run = run_fused if self.folded_training else run_parallel
        return run(self.encoder, fold_pixels(frames, self.spec.patch_size), checkpointing=self.gradient_checkpointing)

    def _encode_h3(self, frames: Tensor) -> Tensor:
        """17k + 5 frames: k whole chunks and the start of one more, each with its own memory, as H3's VAE cuts them."""
        clips = frames.shape[0]
        whole, last = frames[:, :-H3_LAST_FRAMES], frames[:, -H3_LAST_FRAMES:]
        parts = [whole.unflatten(1, (-1, H3_CHUNK)).flatten(0, 1)] if whole.shape[1] else []
        latents = []
        for chunks in [*parts, last]:
            led = F.pad(chunks, (0, 0, 0, 0, 0, 0, H3_LEAD, 0))  # black frames
            encoded = self._run_encoder(led)
            latents.append(encoded.reshape(clips, -1, *encoded.shape[2:]))
        return torch.cat(latents, 1)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Repeat the pixels of the right and bottom edge until both sides (the last two dimensions) are multiples."""
    bottom, right = (-side % multiple for side in frames.shape[-2:])
    if not bottom and not right:
        return frames
    padded = F.pad(frames.flatten(0, -4), (0, right, 0, bottom), mode="replicate")
    return padded.unflatten(0, frames.shape[:-3])


def with_length(frames: Tensor, count: int) -> Tensor:
    """The first `count` frames, the last one repeated where there are fewer."""
    missing = max(count - frames.shape[1], 0)
    return torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], 1) if missing else frames[:, :count]


def checked_mode(mode: str) -> str:
    if mode not in ("parallel", "sequential"):
        raise ConfigError(
            f'mode={mode!r} is neither "parallel" nor "sequential".{nearest_name(mode, ["parallel", "sequential"])}'
        )
    return mode


def _describe(tensor: Tensor) -> str:
    return f"{'×'.join(map(str, tensor.shape))} of {tensor.dtype}"
