"""Worlds from a trained model, in diffusers' manner: `from_pretrained`, then a call per request.

pipe = FantasyWorldPipeline.from_pretrained(base, weights, device="cuda")
scene = pipe("a kitchen in the morning", image="first.png", camera="orbit")
write_scene(scene, "kitchen")
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tinyworld.core import rng
from tinyworld.core.errors import ConfigError, DataError
from tinyworld.infer.codec import TaehvCodec, VaeCodec
from tinyworld.infer.world.conditions import Clip, Conditioner
from tinyworld.infer.world.decoding import decode_stream
from tinyworld.infer.world.denoise import Networks, OnStep, sample
from tinyworld.infer.world.opening import Parts, open_parts, stated_clip
from tinyworld.infer.world.pictures import Picture, to_pictures, to_unit
from tinyworld.infer.world.places import Places
from tinyworld.infer.world.requests import Camera, Requests, Source, cameras_of, requests_of, seeds_of
from tinyworld.infer.world.results import camera_facts, check_finite, scene_of
from tinyworld.infer.world.scene import Scene
from tinyworld.infer.world.schedule import SHIFT, TRAINED_LEVELS, flow_scheduler, nearest_level
from tinyworld.models.fantasy.encoders import cleaned
from tinyworld.models.fantasy.prediction import Geometry

Decoder = Literal["vae", "tiny"]
Output = Literal["scene", "video", "latent"]
StepEnd = Callable[["FantasyWorldPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]
USUAL_CLIP = (336, 592, 81)
"""Height, width and frames of the FantasyWorld release, for weights that name none."""
FPS = 16.0
"""Of Wan 2.1's videos."""
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class FantasyWorldPipeline:
    """A video transformer, a geometry branch beside it (or none: videos without geometry), a codec and encoders.

    parts: these, as opened. clip: height, width and frames that are made where a call names none: those of the training clips
    where the weights say. Made by `from_pretrained`.
    """

    def __init__(self, parts: Parts, dtype: torch.dtype, device: torch.device | str) -> None:
        self.parts, self.places = parts, Places(device)
        self.clip = stated_clip(parts.info) or USUAL_CLIP
        self.flow_shift = float(SHIFT if parts.info is None else parts.info.meta.get("flow_shift", SHIFT))
        mixed = dtype if dtype != torch.float32 and self.places.device.type == "cuda" else None
        self.networks = Networks(parts.backbone, parts.branch, mixed)
        self.conditioner = Conditioner(parts.backbone.spec, parts.codec, parts.text, parts.image, self.places)

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path,
        weights: str | Path | None = None,
        codec: str | Path | None = None,
        encoders: str | Path | None = None,
        torch_dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
        tiny_codec: str | Path | None = None,
    ) -> "FantasyWorldPipeline":
        """base: a video transformer. weights: a branch of stage 1 (geometry beside the transformer's own video) or stage 2.

        codec: the Wan VAE or a TAEHV; None is the one that the weights name, else tiny_codec. encoders: a folder of diffusers
        with text_encoder, tokenizer and image_encoder; None for a transformer without text. tiny_codec: a TAEHV for
        decoder="tiny" and previews. Base, weights and codecs may be folders of runs. torch_dtype: of transformer, codecs and
        encoders; the branch stays in float32, under autocast on a GPU. Raises MissingFileError, WeightsError, ConfigError.
        """
        parts = open_parts(base, weights, codec, encoders, tiny_codec, torch_dtype)
        return cls(parts, torch_dtype, device)

    def enable_model_cpu_offload(self, device: torch.device | str = "cuda") -> None:
        """Encoders, codecs, and the transformer with its branch lie in main memory, and on `device` only while they compute."""
        self.places.device, self.places.in_turn = torch.device(device), True
        mixed = self.parts.backbone.dtype
        if self.places.device.type == "cuda" and mixed != torch.float32:
            self.networks = replace(self.networks, autocast=mixed)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        image: Picture | Sequence[Picture | None] | None = None,
        camera: Camera | Sequence[Camera | None] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        generator: Source | Sequence[Source] | None = None,
        negative_prompt: str | Sequence[str] = "",
        decoder: Decoder = "vae",
        output_type: Output = "scene",
        callback_on_step_end: StepEnd | None = None,
        camera_scale: float = 1.0,
        camera_options: Mapping[str, Any] = NO_OPTIONS,
        fps: float = FPS,
    ) -> Any:
        """A `Scene`, or a list of them where lists are given; each sample of a batch is what it would be alone.

        image: first frame; cut and resized to the clip. camera: `Cameras` of the clip's size, or a file, a named path or a
        text, read by `camera_paths.cameras_for` with camera_options (fov_degrees, convention, intrinsics, resample).
        camera_scale: metres, the unit of files and `Cameras`, per unit of the scene, in which points are about 1 away in the
        mean; names and texts are in the scene's unit.
        guidance_scale: where it is 1, the prompt empty or the transformer without text, a step is one pass instead of two.
        generator: a seed s (the samples of a batch: s, s + 1, …), a torch.Generator, or a list of them; None is seed 0.
        output_type: "scene"; "video", uint8 T H W 3 each; "latent", one tensor B 16 t h w.
        callback_on_step_end(pipeline, step, timestep, {"latents", "estimate"}): after every step; estimate is what the
        clean latents look like by then. Returned {"latents": …} take their place.

        Raises ConfigError, FramePlanError and DataError with the nearest valid values, TrainingError for broken numbers.
        """
        clip = self.clip_of(height, width, num_frames)
        self._check_call(guidance_scale, camera_scale, fps, decoder, output_type)
        scheduler = flow_scheduler(num_inference_steps, self.flow_shift)
        asked = requests_of(clip, prompt, negative_prompt, image, camera, generator, camera_scale, camera_options)
        began = time.monotonic()
        latents, geometry = self._denoised(clip, asked, guidance_scale, scheduler, callback_on_step_end)
        if output_type == "latent":
            return latents
        facts = {
            "made_by": "generate",
            "steps": num_inference_steps,
            "guidance": guidance_scale,
            "sigma": float(scheduler.sigmas[-2]),
            "decoder": decoder,
            "denoise_seconds": time.monotonic() - began,
            **self._facts(),
        }
        results: list[Any] = []
        for at in range(len(latents)):
            began = time.monotonic()
            frames = to_pictures(self.decode(latents[at : at + 1], decoder))[0]
            if output_type == "video":
                results.append(frames)
                continue
            assert geometry is not None
            rate = len(frames) / (time.monotonic() - began)
            own = {**facts, **_request_facts(asked, at), "decoded_frames_per_second": rate}
            results.append(scene_of(frames, geometry, at, fps, camera_scale, own))
        return results if asked.many else results[0]

    def _denoised(
        self, clip: Clip, asked: Requests, guidance_scale: float, scheduler: Any, callback: StepEnd | None
    ) -> tuple[Tensor, Geometry | None]:
        """Clean latents B 16 t h w, and the geometry of the last step."""
        given = self.conditioner.given(clip, asked.prompts, asked.pictures, asked.cameras, interact=True)
        guidance = self._guidance(asked.prompts, guidance_scale)
        empty = self.conditioner.unprompted(given, asked.negative) if bool((guidance != 1).any()) else None
        noise = self._noise(clip, asked.seeds)
        with self.places.using(self.parts.backbone, self.parts.branch):
            made = sample(self.networks, noise, given, empty, guidance, scheduler, self._on_step(callback))
        check_finite(made[0], "latents")
        return made

    @torch.no_grad()
    def lift(
        self,
        frames: np.ndarray,
        sigma: float = 0.1,
        camera: Camera | None = None,
        generator: Source | None = None,
        camera_scale: float = 1.0,
        camera_options: Mapping[str, Any] = NO_OPTIONS,
        fps: float = FPS,
    ) -> Scene:
        """Depth, points and cameras of footage: a little noise, one pass.

        frames: uint8 T H W 3, T = 4k + 1, sides multiples of 16. sigma: share of noise; the nearest level of training is
        taken. camera: None has the model estimate the cameras; cameras that are given are told to it. Without them the
        scene's unit is the model's own: points are about 1 away in the mean. generator: as in a call.

        Raises ConfigError without a geometry branch; FramePlanError, ConfigError and DataError for frames that do not fit.
        """
        if self.parts.branch is None:
            raise ConfigError(NO_BRANCH)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise DataError(f"frames are {frames.dtype} {frames.shape}; they must be uint8 T H W 3.")
        clip = Clip(frames.shape[1], frames.shape[2], len(frames))
        self._check_call(1.0, camera_scale, fps, "vae", "scene")
        level = nearest_level(sigma, self.flow_shift)
        told = None if camera is None else cameras_of(camera, clip, camera_scale, camera_options)
        given = self.conditioner.given(clip, [""], [frames[0]], [told], interact=True)
        (seed,) = seeds_of(generator, 1)
        noise = self._noise(clip, [seed])
        with self.places.using(self.parts.codec):
            latents = self.parts.codec.encode(to_unit(frames)[None].to(noise))
        noisy = (1 - level) * latents + level * noise
        with self.places.using(self.parts.backbone, self.parts.branch):
            timestep = noisy.new_full((1,), TRAINED_LEVELS * level)
            _, geometry = self.networks.joint(noisy, timestep, given, video=False)
        facts = {"made_by": "lift", "seed": seed, "sigma": level, "camera": camera_facts(told), **self._facts()}
        return scene_of(frames, geometry, 0, fps, camera_scale, facts)

    def decode(self, latents: Tensor, decoder: Decoder = "vae") -> Tensor:
        """Latents B 16 t h w → frames B T 3 H W in [0, 1]."""
        return torch.cat(list(self.decode_stream(latents, decoder)), dim=1)

    def decode_stream(self, latents: Tensor, decoder: Decoder = "vae") -> Iterator[Tensor]:
        """The same in pieces B n 3 H W, as they come: one per latent from a TAEHV, one in all from the VAE."""
        codec = self.codec_of(decoder)
        with self.places.using(codec):
            yield from decode_stream(codec, latents.to(self.places.device))

    def codec_of(self, decoder: Decoder) -> VaeCodec | TaehvCodec:
        """What decodes: the codec, or with "tiny" the TAEHV. Raises ConfigError where there is none."""
        if decoder == "vae":
            return self.parts.codec
        if decoder != "tiny":
            raise ConfigError(f'decoder={decoder!r} is neither "vae" nor "tiny".')
        tiny = self.parts.tiny or self.parts.codec
        if not isinstance(tiny, TaehvCodec):
            raise ConfigError('decoder="tiny" needs a TAEHV beside the VAE, such as taew2_1 (--tiny_codec).')
        return tiny

    @property
    def has_tiny(self) -> bool:
        """Whether decoder="tiny" is there."""
        return isinstance(self.parts.tiny or self.parts.codec, TaehvCodec)

    def clip_of(self, height: int | None = None, width: int | None = None, num_frames: int | None = None) -> Clip:
        """The clip that a call would make. Raises FramePlanError and ConfigError for sizes that cannot be."""
        usual = self.clip
        return Clip(
            *(own if asked is None else asked for asked, own in zip((height, width, num_frames), usual, strict=True))
        )

    def _noise(self, clip: Clip, seeds: Sequence[int]) -> Tensor:
        shape = clip.latents(self.parts.backbone.spec.latent_channels)
        return rng.normal(seeds, shape).to(self.places.device)

    def _guidance(self, prompts: Sequence[str], scale: float) -> Tensor:
        """B: 1 for samples without a prompt, which there is no pass without."""
        prompted = [self.parts.text is not None and bool(cleaned(prompt)) for prompt in prompts]
        return torch.tensor([scale if has else 1.0 for has in prompted], device=self.places.device)

    def _on_step(self, callback: StepEnd | None) -> OnStep:
        def on_step(number: int, timestep: Tensor, latents: Tensor, estimate: Tensor) -> Tensor:
            told = {"latents": latents, "estimate": estimate}
            changed = None if callback is None else callback(self, number, timestep, told)
            return (changed or told)["latents"]

        return on_step

    def _check_call(self, guidance: float, camera_scale: float, fps: float, decoder: Decoder, output: Output) -> None:
        self.codec_of(decoder)
        if output not in ("scene", "video", "latent"):
            raise ConfigError(f'output_type={output!r} is none of "scene", "video" and "latent".')
        if output == "scene" and self.parts.branch is None:
            raise ConfigError(NO_BRANCH)
        for name, value in (("camera_scale", camera_scale), ("fps", fps)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value} must be a number above 0.")
        if not (math.isfinite(guidance) and guidance >= 0):
            raise ConfigError(f"guidance_scale={guidance} must be a number from 0; 1 is no guidance, 5 is usual.")

    def _facts(self) -> dict[str, Any]:
        """Which networks made a scene."""
        info = self.parts.info
        if info is None:
            return {"base": self.parts.base_digest}
        return {"base": self.parts.base_digest, "weights": str(info.file), "stage": info.stage, **_step_of(info.meta)}


NO_BRANCH = (
    "There is no geometry branch: a video transformer alone makes videos without depth, points and cameras. Give the weights of "
    'stage 1 or 2 (--weights), or ask for the video alone (output_type="video").'
)


def _request_facts(asked: Requests, at: int) -> dict[str, Any]:
    return {
        "prompt": asked.prompts[at],
        "negative_prompt": asked.negative[at],
        "seed": asked.seeds[at],
        "image": asked.pictures[at] is not None,
        "camera": camera_facts(asked.cameras[at], asked.words[at]),
    }


def _step_of(meta: dict[str, Any]) -> dict[str, Any]:
    return {key: meta[key] for key in ("recipe", "step") if key in meta}
