"""A TAEHV in the place of a pipeline's VAE: `pipe.vae = TaehvVae.from_pretrained("best_model", like=pipe.vae)`.

It speaks what the replaced VAE speaks: videos N C T H W in [-1, 1], raw latents N c L h w, the config fields that pipelines
read. Inside, raw latents become those that the TAEHV learned (`families`), and the folded form for inference runs.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from tinyworld.core.errors import ConfigError, WeightsError
from tinyworld.core.variants import TaehvSpec
from tinyworld.interop import diffusers_folder
from tinyworld.interop.families import CONVENTIONS, FAMILIES, OWN, Family, constants_of, published_constants
from tinyworld.interop.match import check_latents, check_sizes, class_of, family_for
from tinyworld.models.taehv import Taehv, hub, weights
from tinyworld.models.taehv.optimized import OptimizedTaehv
from tinyworld.models.taehv.tiling import decode_tiled, encode_tiled
from tinyworld.models.teachers.latents import constants

TILE = 64
"""Latent cells along each side of a tile; tiles are exact, so there is nothing to tune."""


class TaehvVae(ModelMixin, ConfigMixin):
    """A TAEHV behind the interface of diffusers' video VAEs. For inference: no gradient passes through it.

    Made by `from_pretrained` or `from_taehv`. `state_dict` has the public keys. Constants are those of the VAE whose place it
    takes; `latents` is the form in which the TAEHV takes them (raw, scaled, normalised). Pictures are equal to those of the
    TAEHV itself up to rounding.
    """

    _supports_gradient_checkpointing = False
    _supports_group_offloading = False  # the folded copies read all weights at once

    @register_to_config
    def __init__(
        self,
        spec: dict[str, Any],
        kind: str,
        latents: str,
        z_dim: int,
        latent_channels: int,
        temporal_compression_ratio: int,
        spatial_compression_ratio: int,
        scale_factor_temporal: int,
        scale_factor_spatial: int,
        block_out_channels: list[int],
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        invert_scale_latents: bool = False,
        timestep_conditioning: bool = False,
    ) -> None:
        super().__init__()
        model = Taehv(TaehvSpec.from_dict(spec))
        self.encoder, self.decoder = model.encoder, model.decoder
        self._taehv = (model,)  # in a tuple: not a module of this one, which would list every weight twice
        self._fast: tuple[OptimizedTaehv] | None = None
        self.temporal_compression_ratio, self.spatial_compression_ratio = (
            temporal_compression_ratio,
            spatial_compression_ratio,
        )
        in_time, in_space = int(math.log2(temporal_compression_ratio)), int(math.log2(spatial_compression_ratio))
        self.temperal_downsample = [False] * (in_space - in_time) + [True] * in_time
        self.use_tiling = self.use_slicing = False
        self.register_load_state_dict_post_hook(lambda module, _: module._forget())

    @classmethod
    def from_taehv(
        cls,
        model: Taehv,
        variant: str | None = None,
        *,
        like: Any = None,
        latents: str | None = None,
        teacher: str | None = None,
    ) -> "TaehvVae":
        """A drop-in that shares the weights of `model`. Folded copies of them are made at the first use, and stay.

        variant: the public variant that the model belongs to, such as taew2_1; not needed with `like`, the VAE whose place is
        taken and whose constants it takes over. latents: raw, scaled or normalised, for a model that takes its latents in
        another form than the public weights. teacher: class of the reference VAE that taught it, where that is known. Raises
        ConfigError, and WeightsError when model and VAE do not fit each other.
        """
        family = family_for(model.spec, variant, like, teacher)
        return cls._in_place_of(family, model, like, latents)

    @classmethod
    def _in_place_of(cls, family: Family, model: Taehv, like: Any, latents: str | None) -> "TaehvVae":
        if latents not in (None, *CONVENTIONS):
            raise ConfigError(f"latents={latents!r} must be one of {', '.join(CONVENTIONS)}.")
        check_latents(family, latents or family.latents)
        spec = model.spec
        stated = constants_of(like) if like is not None else published_constants(family, spec.latent_channels)
        with init_empty_weights():  # nothing is drawn: who seeds a pipeline gets the same noise
            vae = cls(
                spec=spec.to_dict(),
                kind=family.kind,
                latents=latents or family.latents,
                z_dim=spec.latent_channels,
                latent_channels=spec.latent_channels,
                temporal_compression_ratio=spec.t_down,
                spatial_compression_ratio=spec.spatial_compression,
                scale_factor_temporal=spec.t_down,
                scale_factor_spatial=spec.spatial_compression,
                block_out_channels=[spec.encoder_width] * (int(math.log2(spec.spatial_compression)) + 1),
                **{key: value for key, value in stated.items() if value is not None},
            )
        return vae._filled(model.state_dict())

    def _filled(self, tensors: Mapping[str, Tensor]) -> "TaehvVae":
        """Itself, ready for use, with these weights."""
        self.load_state_dict(tensors, strict=True, assign=True)
        self.constants()
        return self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        variant: str | None = None,
        like: Any = None,
        latents: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        torch_dtype: torch.dtype | None = None,
        **diffusers: Any,
    ) -> "TaehvVae":
        """Load what `Taehv.from_pretrained` loads, or what `save_pretrained` wrote (alone, or as the `vae` of a pipeline).

        Arguments as in `from_taehv`; files that say what they are need no `variant`, one that is given must agree with them.
        fp32 without torch_dtype. revision, token: for the hub. diffusers: `subfolder`, and what pipelines give when they load
        their parts. Raises ConfigError, MissingFileError, WeightsError.
        """
        path: str | Path = pretrained_model_name_or_path
        options = diffusers_folder.options_of(diffusers)
        if hub.is_name(path):
            place = hub.fetch(str(path), revision, token, options.subfolder)
        else:
            place = Path(path).expanduser() / options.subfolder
        config = diffusers_folder.config_of(place)
        if config is None or config.get("_class_name") != cls.__name__:
            vae = cls._of_taehv(place, variant, like, latents)
        else:
            vae = cls._of_diffusers(place, config, variant)
            if like is not None or latents is not None:
                family = family_for(vae.taehv.spec, None, like or vae, class_of(vae.config["kind"]))
                vae = cls._in_place_of(family, vae.taehv, like or vae, latents or vae.config["latents"])
        # diffusers' own `to` warns that casting loses layers kept in fp32, of which there are none
        to: Callable[..., TaehvVae] = torch.nn.Module.to
        return to(vae, device=options.device, dtype=torch_dtype or options.dtype or torch.float32)

    @classmethod
    def _of_taehv(cls, place: Path, variant: str | None, like: Any, latents: str | None) -> "TaehvVae":
        """From the weights of a TAEHV."""
        stated = weights.states_architecture(place)  # then in widths of its own, which no variant has
        model = Taehv.from_pretrained(place, None if stated else variant)
        about = weights.read_about(place)
        if latents is None and about.get("latents") == OWN:
            raise WeightsError(
                f"{place} learned without a reference VAE, so its latents are its own and no diffusion model speaks them. Train "
                "it with teacher.use_ref_vae, or, if it takes those of its parent still, say in which form: "
                f"latents={' or '.join(map(repr, CONVENTIONS))}."
            )
        if latents is None and "latents" not in about and "recipe" in about:
            raise WeightsError(
                f"{place} does not say in which form it takes a diffusion model's latents: its run kept those of the weights "
                f"that it started from, and they did not say it either. Give latents={' or '.join(map(repr, CONVENTIONS))}."
            )
        family = family_for(model.spec, variant, like, about.get("teacher"), about.get("variant"))
        if family.kind == "ltx" and "teacher" not in about:
            raise WeightsError(
                f"The place is that of LTX-Video's VAE, and {place} does not say that it learned its latents: public taeltx_2 "
                "and taeltx2_3 learned those of LTX-2. If it did, TaehvVae.from_taehv(Taehv.from_pretrained(…), like=pipe.vae)."
            )
        return cls._in_place_of(family, model, like, latents or about.get("latents"))

    @classmethod
    def _of_diffusers(cls, folder: Path, config: dict[str, Any], variant: str | None) -> "TaehvVae":
        """From what `save_pretrained` wrote. variant: the one that it must be of, or what diffusers calls so in file names."""
        known = variant in FAMILIES
        vae = diffusers_folder.build(cls, folder, config)
        spec = vae.taehv.spec
        check_latents(family_for(spec, like=vae), vae.config["latents"])
        if variant is not None and known:
            check_sizes(spec, variant)
            if FAMILIES[variant].kind != vae.config["kind"]:
                raise ConfigError(
                    f"variant={variant}, and {folder} takes the place of a VAE of the kind {vae.config['kind']}. Leave variant "
                    "out: the folder says what it is."
                )
        tensors = diffusers_folder.read_tensors(folder, None if known else variant)
        if problems := weights.misfits(tensors, spec):
            raise WeightsError(
                f"The weights in {folder} do not fit its config.json: {'; '.join(problems)}. Copy it again."
            )
        return vae._filled({key: tensor.float() for key, tensor in tensors.items()})

    @property
    def taehv(self) -> Taehv:
        """The TAEHV itself, with these weights: frames N T C H W in [0, 1], latents as it learned them, N L c h w."""
        return self._taehv[0]

    @property
    def latents_mean(self) -> Tensor:
        """One value per channel, fp32, as LTX's pipelines ask for it; others read the config."""
        return torch.tensor(self.config["latents_mean"])

    @property
    def latents_std(self) -> Tensor:
        """As `latents_mean`."""
        return torch.tensor(self.config["latents_std"])

    def constants(self) -> tuple[Tensor, Tensor]:
        """shift and scale, fp32, one value per channel: the TAEHV's latents are (raw - shift) · scale. Raises WeightsError."""
        config = self.config
        buffers = {name: config[name] for name in ("latents_mean", "latents_std")}  # where LTX has them
        return constants(
            SimpleNamespace(config=config, **buffers), config["kind"], config["latent_channels"], config["latents"]
        )

    @torch.no_grad()
    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Videos N C T H W in [-1, 1] → raw latents N c L h w, L = ceil(T / temporal_compression_ratio).

        A TAEHV gives one value where a VAE gives a distribution: mean, mode and every sample of it are equal.
        """
        self._check_weights()
        frames = x.to(self.device, self.dtype).transpose(1, 2) * 0.5 + 0.5
        clips = frames.split(1) if self.use_slicing else (frames,)
        latents = torch.cat([self._encode(clip) for clip in clips]).float().transpose(1, 2)
        shift, scale = self._aligned(latents)
        mean = (latents / scale + shift).to(x.dtype)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.zeros_like(mean)], 1), deterministic=True)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @torch.no_grad()
    @apply_forward_hook
    def decode(self, z: Tensor, temb: Tensor | None = None, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Raw latents N c L h w → videos N C T H W in [-1, 1], T as of the VAE whose place is taken.

        temb: taken and not used, as some pipelines give a timestep.
        """
        self._check_weights()
        raw = z.to(self.device).float()
        shift, scale = self._aligned(raw)
        latents = ((raw - shift) * scale).to(self.dtype).transpose(1, 2)
        clips = latents.split(1) if self.use_slicing else (latents,)
        frames = torch.cat([self._decode(clip) for clip in clips]).transpose(1, 2)
        video = (frames * 2 - 1).to(z.dtype)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def enable_tiling(self, *_: Any, **__: Any) -> None:
        """Large pictures tile by tile: less memory, equal pictures. The sizes of tiles that other VAEs take may be given
        and are not used: tiles are exact, whatever their size."""
        self.use_tiling = True

    def disable_tiling(self) -> None:
        """Whole pictures at once again."""
        self.use_tiling = False

    def enable_slicing(self) -> None:
        """One video of a batch after the other."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """The whole batch at once again."""
        self.use_slicing = False

    def _encode(self, frames: Tensor) -> Tensor:
        return encode_tiled(self._folded(), frames, TILE) if self.use_tiling else self._folded().encode(frames)

    def _decode(self, latents: Tensor) -> Tensor:
        return decode_tiled(self._folded(), latents, TILE) if self.use_tiling else self._folded().decode(latents)

    def _aligned(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The constants, laid out for N c L h w."""
        shift, scale = (value.to(latents.device)[:, None, None, None] for value in self.constants())
        return shift, scale

    def _folded(self) -> OptimizedTaehv:
        """Folded copies of the weights as they are now: where they lie, in their number type. Made at the first use."""
        if self._fast is None:
            self._fast = (self.taehv.optimize(self.dtype),)
        return self._fast[0]

    def _check_weights(self) -> None:
        if self.device.type == "meta":
            raise ConfigError(
                "The weights are not there while the VAE runs, as under enable_sequential_cpu_offload(). A TAEHV is small: "
                "use enable_model_cpu_offload()."
            )

    def _forget(self) -> None:
        self._fast = None

    def _apply(self, *args: Any, **kwargs: Any) -> "TaehvVae":
        """Every change of device or number type goes through here."""
        self._forget()
        super()._apply(*args, **kwargs)  # type: ignore[misc]
        return self
