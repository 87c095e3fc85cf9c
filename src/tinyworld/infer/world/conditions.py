"""What the user asks for, made into what the networks are given. Of every sample apart, so that a batch is its samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import ConfigError, DataError, FramePlanError
from tinyworld.core.frames import nearest_wan_counts
from tinyworld.core.geometry import Cameras, plucker
from tinyworld.core.world_sizes import PATCH, SPACE_STEP, TIME_STEP, BackboneSpec
from tinyworld.infer.codec import TaehvCodec, VaeCodec
from tinyworld.infer.world.denoise import Given
from tinyworld.infer.world.pictures import to_unit
from tinyworld.infer.world.places import Places
from tinyworld.models.fantasy.backbone import WanConditions
from tinyworld.models.fantasy.encoders import ImageEncoder, TextEncoder

MULTIPLE = SPACE_STEP * PATCH[1]
"""Of height and width, in pixels."""


@dataclass(frozen=True)
class Clip:
    """The size of a clip. Raises FramePlanError and ConfigError with the nearest valid values."""

    height: int
    width: int
    frames: int

    def __post_init__(self) -> None:
        nearest = nearest_wan_counts(self.frames) if self.frames > 0 else (1,)
        if nearest != (self.frames,):
            near = " or ".join(map(str, nearest))
            raise FramePlanError(
                f"num_frames={self.frames} is not 4k + 1: the first frame has a latent of its own, then every four share one. "
                f"Use {near} (--frames).",
                nearest,
            )
        if any(side < MULTIPLE or side % MULTIPLE for side in (self.height, self.width)):
            near = " × ".join(str(max(round(side / MULTIPLE), 1) * MULTIPLE) for side in (self.height, self.width))
            raise ConfigError(
                f"Height and width {self.height} × {self.width} must be multiples of {MULTIPLE}. Use {near} (--height, --width)."
            )

    def latents(self, channels: int) -> tuple[int, int, int, int]:
        """Shape of its latents, c t h w."""
        return channels, (self.frames - 1) // TIME_STEP + 1, self.height // SPACE_STEP, self.width // SPACE_STEP


class Conditioner:
    """Encodes prompts, first frames and cameras for a transformer of `spec`."""

    def __init__(
        self,
        spec: BackboneSpec,
        codec: VaeCodec | TaehvCodec,
        text: TextEncoder | None,
        image: ImageEncoder | None,
        places: Places,
    ) -> None:
        self.spec, self.codec, self.text, self.image, self.places = spec, codec, text, image, places

    def given(
        self,
        clip: Clip,
        prompts: Sequence[str],
        pictures: Sequence[np.ndarray | None],
        cameras: Sequence[Cameras | None],
        interact: bool,
    ) -> Given:
        """What B samples are given. pictures: first frames, uint8 H W 3 of the clip's size. cameras: of the clip, relative to
        its first and in its scale. None: a sample goes without, zeros stand for it."""
        device = self.places.device
        rays = torch.stack([self._rays(camera, clip) for camera in cameras]).to(device)
        has = torch.tensor([camera is not None for camera in cameras], device=device)
        if bool(has.any()) and not self.spec.camera:
            raise DataError("cameras were given, but this video transformer has no camera adapter.")
        conditions = WanConditions(
            self._texts(prompts).to(device),
            self._firsts(clip, pictures),
            rays if bool(has.any()) else None,
            self._clip_tokens(pictures),
            has,
        )
        return Given(conditions, rays, has, torch.full_like(has, interact))

    def unprompted(self, given: Given, negative: Sequence[str]) -> Given:
        """The pass without the prompts: other texts and no two-way attention, all else the same."""
        text = self._texts(negative).to(given.rays.device)
        return given._replace(
            conditions=given.conditions._replace(text=text), interact=torch.zeros_like(given.interact)
        )

    def _texts(self, prompts: Sequence[str]) -> Tensor:
        if self.text is None and self.spec.image_dim is not None:
            raise ConfigError(
                "This video transformer was trained with text, also where the prompt is empty, and there is no text encoder. "
                "Give the folder with text_encoder, tokenizer and image_encoder (--encoders DIR)."
            )
        if self.text is None:
            lost = [prompt for prompt in prompts if prompt.strip()]
            if lost:
                LOGGER.warning("the prompt %r has no effect: there is no text encoder (--encoders DIR)", lost[0])
            return torch.zeros(len(prompts), self.spec.text_tokens, self.spec.text_dim)
        with self.places.using(self.text):
            texts = self.text.encode(prompts).float()
        if tuple(texts.shape[1:]) != (self.spec.text_tokens, self.spec.text_dim):
            raise DataError(
                f"The text encoder makes {texts.shape[1]} tokens of {texts.shape[2]} numbers, and the video transformer takes "
                f"{self.spec.text_tokens} of {self.spec.text_dim}: they do not belong together (--encoders, --base)."
            )
        return texts

    def _firsts(self, clip: Clip, pictures: Sequence[np.ndarray | None]) -> Tensor:
        """B c t h w: latents of the first frames at t = 0."""
        extra = self.spec.in_channels - self.spec.latent_channels
        image = torch.zeros(len(pictures), *clip.latents(extra), device=self.places.device)
        shown = [(place, picture) for place, picture in enumerate(pictures) if picture is not None]
        with self.places.using(self.codec if shown else None):
            for place, picture in shown:
                image[place, :, :1] = self.codec.encode(to_unit(picture[None])[None].to(image.device))[0]
        return image

    def _clip_tokens(self, pictures: Sequence[np.ndarray | None]) -> Tensor | None:
        if self.spec.image_dim is None:
            return None
        tokens = torch.zeros(len(pictures), self.spec.image_tokens, self.spec.image_dim, device=self.places.device)
        shown = [(place, picture) for place, picture in enumerate(pictures) if picture is not None]
        if not shown:
            return tokens
        if self.image is None:
            raise ConfigError(
                "This video transformer sees its first frame through CLIP as well: give a folder with image_encoder/ in "
                "diffusers' layout, as in Wan-AI/Wan2.1-I2V-14B-480P-Diffusers (--encoders DIR)."
            )
        with self.places.using(self.image):
            for place, picture in shown:
                tokens[place] = self.image.encode(to_unit(picture[None]))[0].to(tokens)
        return tokens

    def _rays(self, cameras: Cameras | None, clip: Clip) -> Tensor:
        """6 F H W in float32, of cameras in any precision; zeros without."""
        if cameras is None:
            return torch.zeros(6, clip.frames, clip.height, clip.width)
        return plucker(cameras.to(torch.float32)).cpu()
