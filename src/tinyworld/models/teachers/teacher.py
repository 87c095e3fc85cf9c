"""A frozen video VAE of diffusers as a teacher: latents, pictures and features of clips, one interface for all classes."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, TrainingError, WeightsError
from tinyworld.core.rng import derive_seed, isolated
from tinyworld.models.teachers.facts import TeacherFacts, facts_of, read_config
from tinyworld.models.teachers.features import encoder_features
from tinyworld.models.teachers.interface import ReferenceVae
from tinyworld.models.teachers.latents import Convention, Posterior, constants
from tinyworld.models.teachers.place import locate
from tinyworld.models.teachers.weights import digest, load_vae, weight_files

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


class Teacher(ReferenceVae):
    """A reference VAE of diffusers: frozen, always in eval mode, never under autocast.

    facts, convention: what it is and how its latents are stated. digest: the SHA-256 that a cache of its latents keys on.
    dtype: the precision it computes in. Made by `open_teacher`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        vae: Any,
        facts: TeacherFacts,
        digest: str,
        dtype: torch.dtype,
        slicing: bool,
        shift: Tensor,
        scale: Tensor,
    ) -> None:
        super().__init__(facts, digest)
        self.vae = nn.Module.to(vae, dtype)  # diffusers' own `to` warns about an empty list of exceptions
        self.dtype = dtype
        # the attention mask of diffusers' HunyuanVideo 1.5 fits a batch of one only
        self.clip_by_clip = slicing or facts.kind == "hunyuan1_5"
        self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Posterior:
        """The posterior of clips: N T 3 H W float32 in [0, 1], on any device, to N L c h w on the same device.

        Raises FramePlanError and DataError for counts and sizes that the teacher does not take, TrainingError when its
        numbers are not finite.
        """
        self._check_frames(frames)
        parameters = self._in_slices(lambda x: self.vae.encode(x).latent_dist.parameters, self._signed(frames)).float()
        latents = (self.facts.latent_count(frames.shape[1]), *self._cells(frames))
        if tuple(parameters.shape[2:]) != latents:
            raise WeightsError(
                f"{self.facts.class_name} in {self.facts.path} made latents of {tuple(parameters.shape[2:])} instead of "
                f"{latents} (L, h, w): its config declares another compression than its layers have."
            )
        if not parameters.isfinite().all():  # before the log variance is clamped, which hides an overflow
            raise TrainingError(self._not_finite(frames))
        mean, logvar = parameters.to(frames.device).transpose(1, 2).chunk(2, dim=2)
        shift, scale = self.shift.to(mean.device), self.scale.to(mean.device)
        return Posterior((mean - shift) * scale, logvar.clamp(-30.0, 20.0) + 2 * scale.log())

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The teacher's own pictures: N L c h w float32 in its convention to N T 3 H W float32, about [0, 1].

        T is `facts.decoded_count(L)`. Nothing is clamped here; Wan's class clamps by itself. LTX decoders that take a
        timestep get 0, and those that add noise get the same noise at every call.
        """
        if latents.ndim != 5 or latents.shape[2] != self.facts.latent_channels or not latents.shape[1]:
            raise ValueError(f"latents must be N L {self.facts.latent_channels} h w, got {tuple(latents.shape)}")
        raw = latents.float().to(self.shift.device) / self.scale + self.shift
        flags = self.vae.config.get("decoder_inject_noise") or False
        noisy = flags if isinstance(flags, bool) else any(flags)
        with isolated(derive_seed("teacher decoder noise")) if noisy else nullcontext():
            frames = self._in_slices(self._decode, raw.transpose(1, 2).to(self.dtype).contiguous())
        expected = (
            self.facts.decoded_count(latents.shape[1]),
            *(n * self.facts.spatial_compression for n in latents.shape[3:]),
        )
        if tuple(frames.shape[2:]) != expected:
            raise WeightsError(
                f"{self.facts.class_name} in {self.facts.path} made frames of {tuple(frames.shape[2:])} instead of "
                f"{expected} (T, H, W): its config declares another compression than its layers have."
            )
        return frames.float().to(latents.device).transpose(1, 2) * 0.5 + 0.5

    def features(self, frames: Tensor) -> list[Tensor]:
        """Activations of the encoder at growing depth, with gradient to the frames (N T 3 H W float32 in [0, 1]).

        One tensor for the first convolution and one per down stage, each N t C h w float32, t, h and w shrinking with
        depth. Whole clips, never tiled. Raises FramePlanError and DataError as `encode`.
        """
        self._check_frames(frames)
        x = self._signed(frames)
        with torch.autocast(x.device.type, enabled=False):
            batches = [encoder_features(self.vae, batch) for batch in (x.split(1) if self.clip_by_clip else (x,))]
        return [torch.cat(stage).float().to(frames.device) for stage in zip(*batches, strict=True)]

    def _signed(self, frames: Tensor) -> Tensor:
        """The teacher's input: N 3 T H W in [-1, 1], in its precision and on its device."""
        return (frames.to(self.shift.device) * 2 - 1).transpose(1, 2).to(self.dtype).contiguous()

    def _in_slices(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Slicing is done here: diffusers' own pairs clips with the wrong timesteps in LTX decoders."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([run(clip) for clip in x.split(1)]) if self.clip_by_clip else run(x)

    def _decode(self, latents: Tensor) -> Tensor:
        if self.vae.config.get("timestep_conditioning"):
            return self.vae.decode(latents, latents.new_zeros(len(latents))).sample
        return self.vae.decode(latents).sample

    def _cells(self, frames: Tensor) -> tuple[int, ...]:
        return tuple(n // self.facts.spatial_compression for n in frames.shape[3:])

    def _check_frames(self, frames: Tensor) -> None:
        if frames.ndim != 5 or frames.shape[2] != 3 or not len(frames) or not frames.is_floating_point():
            raise ValueError(f"frames must be floats, N T 3 H W, got {frames.dtype} {tuple(frames.shape)}")
        self.facts.latent_count(frames.shape[1])
        self.facts.check_size(*frames.shape[3:])

    def _not_finite(self, frames: Tensor) -> str:
        if not frames.isfinite().all():
            return "The clips given to the teacher hold numbers that are not finite: the fault lies before the teacher."
        name = str(self.dtype).removeprefix("torch.")
        return (
            f"The teacher {self.facts.class_name} in {self.facts.path} gave latents that are not finite, computing in "
            f"{name}. Overflow in float16 is the usual cause: set teacher.ref_vae_dtype to bf16 or fp32. If that "
            "is what it has, its weight file is damaged."
        )


def open_teacher(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    convention: Convention | None = None,
    tiling: bool = False,
    slicing: bool = False,
    device: torch.device | str = "cpu",
) -> Teacher:
    """Load the teacher at `path`: a diffusers VAE folder, a pipeline folder with `vae/` in it, or a hub id "org/name".

    convention: how its latents are stated (None: the class's default, see `latents`). tiling: large frames in
    overlapping tiles, blended as diffusers does. slicing: one clip at a time.

    Raises MissingFileError when it is not there, WeightsError when config or weights are not those of a supported class
    or do not fit each other, ConfigError for a precision or convention that it does not have.
    """
    if dtype not in DTYPES:
        raise ConfigError(
            f"A teacher computes in bfloat16, float16 or float32, not {dtype} (key: teacher.ref_vae_dtype)."
        )
    place = locate(path)
    config = read_config(place.folder)
    facts = facts_of(place.folder, config, convention)
    files = weight_files(place.with_weights())
    vae = load_vae(facts, config, files)
    shift, scale = constants(vae, facts.kind, facts.latent_channels, facts.convention)
    if tiling:
        vae.enable_tiling()
    key = digest(facts, config, files, dtype, tiling)
    return Teacher(vae, facts, key, dtype, slicing, shift, scale).to(device)


def teacher_digest(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    convention: Convention | None = None,
    tiling: bool = False,
) -> str:
    """`open_teacher(…).digest`, worked out from the files without loading the model. Raises as `open_teacher`."""
    place = locate(path)
    config = read_config(place.folder)
    facts = facts_of(place.folder, config, convention)
    return digest(facts, config, weight_files(place.with_weights()), dtype, tiling)
