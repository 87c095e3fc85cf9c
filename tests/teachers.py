"""Small diffusers video VAEs on disk: the real classes with few channels and random weights."""

import json
from pathlib import Path
from typing import Any

import torch

_WAN: dict[str, Any] = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
_LTX: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8)}
_LTX |= {"layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5}
_COGVIDEOX: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2}

KINDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "cogvideox": ("AutoencoderKLCogVideoX", 16, {**_COGVIDEOX, "sample_height": 96, "sample_width": 80}),
    "wan": ("AutoencoderKLWan", 16, _WAN),
    "wan2_2": (
        "AutoencoderKLWan",
        48,
        {
            **_WAN,
            "is_residual": True,
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "scale_factor_spatial": 16,
        },
    ),
    "hunyuan": (
        "AutoencoderKLHunyuanVideo",
        16,
        {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2},
    ),
    "hunyuan1_5": (
        "AutoencoderKLHunyuanVideo15",
        32,
        {"block_out_channels": (64, 64, 64, 64, 64), "layers_per_block": 1},
    ),
    "ltx": ("AutoencoderKLLTXVideo", 128, _LTX),
    "ltx2": (
        "AutoencoderKLLTX2Video",
        128,
        {
            "block_out_channels": (8, 16, 32, 32),
            "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 4,
            "spatial_compression_ratio": 32,
            "temporal_compression_ratio": 8,
        },
    ),
}
"""Class, latent channels of the published model, and arguments that make it small. Compressions are the real ones."""


def build_vae(kind: str, seed: int = 0, latent_channels: int | None = None, **changes: Any) -> Any:
    """The diffusers model itself, fp32, with random weights of `seed`; `changes` go to its constructor."""
    import diffusers

    class_name, channels, arguments = KINDS[kind]
    channels = latent_channels or channels
    arguments = {**arguments, ("z_dim" if kind.startswith("wan") else "latent_channels"): channels}
    if kind.startswith("wan"):
        arguments["latents_mean"] = [0.1 * (index % 7) - 0.3 for index in range(channels)]
        arguments["latents_std"] = [0.5 + 0.25 * (index % 5) for index in range(channels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = getattr(diffusers, class_name)(**{**arguments, **changes})
    if kind.startswith("ltx"):
        vae.latents_mean.copy_(torch.linspace(-0.3, 0.3, channels))
        vae.latents_std.copy_(torch.linspace(0.5, 1.5, channels))
    return vae.eval().requires_grad_(False)


def make_teacher(
    folder: Path,
    kind: str,
    seed: int = 0,
    latent_channels: int | None = None,
    *,
    pipeline: bool = False,
    **changes: Any,
) -> Path:
    """Write a small teacher of `kind` (see KINDS) below `folder` and return the path to give as teacher.ref_vae_path.

    pipeline: a pipeline folder with the VAE in `vae/`. Equal arguments write equal bytes.
    """
    vae = build_vae(kind, seed, latent_channels, **changes)
    vae.save_pretrained(folder / "vae" if pipeline else folder)
    if pipeline:
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline"}))
    return folder
