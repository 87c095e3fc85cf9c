"""The real pipelines of diffusers around tiny transformers with random weights: no tokenizer, no text encoder, no network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor


def embeds(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _seeded(build: Callable[..., Any], **arguments: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(**arguments).eval()


def wan_transformer(channels: int = 16, inputs: int | None = None) -> Any:
    return _seeded(
        diffusers.WanTransformer3DModel, patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12,
        in_channels=inputs or channels, out_channels=channels, text_dim=32, freq_dim=32, ffn_dim=32, num_layers=1,
        rope_max_seq_len=32,
    )  # fmt: skip


def wan(vae: Any, channels: int = 16) -> Any:
    return diffusers.WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=wan_transformer(channels),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def cogvideox(vae: Any, channels: int = 16) -> Any:
    transformer = _seeded(
        diffusers.CogVideoXTransformer3DModel, num_attention_heads=4, attention_head_dim=8, in_channels=channels,
        out_channels=channels, time_embed_dim=2, text_embed_dim=32, num_layers=1, sample_width=4, sample_height=4,
        sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=16,
    )  # fmt: skip
    return diffusers.CogVideoXPipeline(
        tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=diffusers.DDIMScheduler()
    )


def hunyuan(vae: Any, channels: int = 16) -> Any:
    transformer = _seeded(
        diffusers.HunyuanVideoTransformer3DModel, in_channels=channels, out_channels=channels, num_attention_heads=2,
        attention_head_dim=10, num_layers=1, num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1,
        text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    return diffusers.HunyuanVideoPipeline(
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, vae=vae, transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )  # fmt: skip


def ltx(vae: Any, channels: int = 128) -> Any:
    transformer = _seeded(
        diffusers.LTXVideoTransformer3DModel, in_channels=channels, out_channels=channels, patch_size=1, patch_size_t=1,
        num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32, num_layers=1, caption_channels=32,
    )  # fmt: skip
    return diffusers.LTXPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


@dataclass(frozen=True)
class Case:
    """A pipeline, the variant that speaks its latents, the small VAE of `tests.teachers`, and what a call needs."""

    build: Callable[..., Any]
    variant: str
    vae: str
    arguments: dict[str, Any]
    channels: int = 16
    frames: int = 9
    size: int = 32

    def run(self, pipe: Any, output_type: str = "pt") -> Tensor:
        """Frames N T C H W in [0, 1], or latents as the pipeline leaves them."""
        pipe.set_progress_bar_config(disable=True)
        made = pipe(
            **self.arguments,
            height=self.size,
            width=self.size,
            num_frames=self.frames,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(3),
            output_type=output_type,
        ).frames
        return made if isinstance(made, Tensor) else torch.stack(list(made))


_TEXT = {"prompt_embeds": embeds(1, 8, 32), "negative_prompt_embeds": embeds(1, 8, 32, seed=6)}
_MASKS = {
    name: torch.ones(1, 8, dtype=torch.bool) for name in ("prompt_attention_mask", "negative_prompt_attention_mask")
}
CASES = {
    "wan2_1": Case(wan, "taew2_1", "wan", _TEXT),
    "wan2_2": Case(wan, "taew2_2", "wan2_2", _TEXT, channels=48),
    "cogvideox": Case(
        cogvideox,
        "taecvx",
        "cogvideox",
        {"prompt_embeds": embeds(1, 16, 32), "negative_prompt_embeds": embeds(1, 16, 32, seed=6)},
    ),
    "hunyuan": Case(
        hunyuan,
        "taehv",
        "hunyuan",
        {
            "prompt_embeds": embeds(1, 8, 16),
            "pooled_prompt_embeds": embeds(1, 8),
            "prompt_attention_mask": torch.ones(1, 8),
        },
    ),
    "ltx": Case(ltx, "taeltx_2", "ltx", _TEXT | _MASKS, channels=128, size=64),
}
