"""Weight files for the public taehv code and for ComfyUI.

Both build a fixed architecture and take the tensors' public keys; neither reads what a file says of itself:

* The public code (madebyollin/taehv) reads a `.pth` and chooses the architecture by the name of the file: one that holds
  taecvx, taew2_2, taehv1_5, taeh3, taeltx or super, else the plain 16-channel model.
* ComfyUI (comfy/sd.py, comfy/taesd/taehv.py) knows a TAEHV by the key `decoder.22.bias` and chooses by the number of latent
  channels. Of 16 channels it takes fp16 for HunyuanVideo's and multiplies its raw latents by 0.476986; other number types get
  raw latents. It computes 32 channels with leaky ReLUs, as lighttaehy1_5 needs.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyworld.core.errors import ConfigError
from tinyworld.core.files import write_atomic
from tinyworld.core.variants import VARIANTS, TaehvSpec
from tinyworld.interop.families import CONVENTIONS, FAMILIES
from tinyworld.models.taehv import weights
from tinyworld.models.teachers import SUPPORTED

PTH, COMFYUI = "pth", "comfyui"
NAMED = ("taecvx", "taew2_2", "taehv1_5", "taeh3", "taeltx", "super")
"""Parts of a file's name that choose an architecture in the public code."""
HUNYUAN_CHANNELS, LEAKY_CHANNELS = 16, 32
NATIVE_CHANNELS = (24, 128)
"""MiniMax H3 and LTX, whose latents ComfyUI keeps as the diffusion model sees them."""


def write_pth(
    file: Path, tensors: Mapping[str, Tensor], spec: TaehvSpec, about: Mapping[str, Any] | None = None
) -> None:
    """A plain state dict, complete or absent, that `TAEHV("…/name.pth")` of the public code loads. Tensors as they are.

    about: what is known of the model (`weights.ABOUT`), for the message of a refusal. Raises ConfigError for an architecture that
    the public code does not build, or not under this name.
    """
    _refuse_other_sizes(spec, about or {}, "The public taehv code")
    variant = next(name for name, known in VARIANTS.items() if known == spec)
    wanted = [name for name in NAMED if name in variant]
    in_name = [name for name in NAMED if name in file.name]
    if file.suffix != ".pth" or in_name != wanted:
        rule = f"hold {' and '.join(wanted)}" if wanted else f"hold none of {', '.join(NAMED)}"
        raise ConfigError(
            f"The public taehv code chooses the architecture by the name of the file, and {file.name} would be another one than "
            f"this model's: its name must {rule} and end with .pth, such as {variant}.pth (--output)."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(_plain(tensors), content)
    write_atomic(file, content.getvalue())


def write_comfyui(
    file: Path, tensors: Mapping[str, Tensor], spec: TaehvSpec, about: Mapping[str, Any] | None = None
) -> torch.dtype:
    """A safetensors file for ComfyUI's models/vae, complete or absent; the number type in which it was written.

    fp16 for scaled latents of HunyuanVideo, because ComfyUI scales for those alone; else as the tensors are, or fp32 where fp16
    would be taken for HunyuanVideo's. about: what is known of the model (`weights.ABOUT`). Raises ConfigError for an architecture
    that ComfyUI does not build.
    """
    refuse_for_comfyui(spec, about)
    if file.suffix != ".safetensors":
        raise ConfigError(f"{file.name} must end with .safetensors (--output): ComfyUI warns of other files.")
    plain = _plain(tensors)
    if spec.latent_channels == HUNYUAN_CHANNELS:
        scaled = _given(spec, about or {}) == "scaled"
        dtype = torch.float16 if scaled else plain["decoder.1.weight"].dtype
        dtype = torch.float32 if dtype is torch.float16 and not scaled else dtype
        plain = {key: tensor.to(dtype) for key, tensor in plain.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    weights.write_weights(file, plain, spec, about)
    return plain["decoder.1.weight"].dtype


def refuse_for_comfyui(spec: TaehvSpec, about: Mapping[str, Any] | None = None) -> None:
    """Raises ConfigError for an architecture that ComfyUI does not build; about: as in `write_comfyui`, for the message."""
    about = about or {}
    _refuse_other_sizes(spec, about, "ComfyUI")
    if spec.decoder_block != "base":
        raise ConfigError(
            "ComfyUI does not build the super decoder. Export it with --to pth, for the public taehv code."
        )
    if spec.latent_channels == LEAKY_CHANNELS:
        diffusers = "--to diffusers, or " if _for_diffusers(about) else ""
        raise ConfigError(
            f"ComfyUI computes TAEHV files of {LEAKY_CHANNELS} channels with leaky ReLUs, as lighttaehy1_5 needs: it would load "
            f"this model and show wrong pictures. Use {diffusers}--to pth with the public taehv code."
        )


def comfyui_note(spec: TaehvSpec, about: Mapping[str, Any]) -> str | None:
    """What a person must know of a file for ComfyUI, where its Load VAE does not simply do; about: as in `weights.ABOUT`, of a
    model that takes a diffusion model's latents."""
    latents, given = about.get("latents"), _given(spec, about)
    if latents == given:
        return None
    if latents is None:
        return f"Nothing says in which form it takes its latents. ComfyUI's Load VAE gives {given} ones."
    wan = "; nodes that give normalised ones (WanVideoWrapper's tiny VAE loader) are right"
    others = wan if latents == "normalised" and _family(about) == "wan" else ""
    public = ", as public taew2_1 and taew2_2 do" if others else ""
    return (
        f"It takes {latents} latents{public}. ComfyUI's Load VAE gives {given} ones, and colours are wrong{others}. "
        f"For Load VAE, train with teacher.latent_convention={given}."
    )


def _given(spec: TaehvSpec, about: Mapping[str, Any]) -> str:
    """The form of the latents that ComfyUI's Load VAE gives to the file that `write_comfyui` writes."""
    if spec.latent_channels in NATIVE_CHANNELS:
        return "normalised"
    hunyuan = spec.latent_channels == HUNYUAN_CHANNELS and _family(about) == "hunyuan"
    return "scaled" if hunyuan and about.get("latents") == "scaled" else "raw"


def _family(about: Mapping[str, Any]) -> str | None:
    """The kind of latents that a model learned: of what taught it, else of the variant that it is said to be."""
    teacher, variant = about.get("teacher"), about.get("variant")
    if teacher is not None:
        return SUPPORTED[teacher].kind if teacher in SUPPORTED else None
    return FAMILIES[variant].kind if variant is not None else None


def _for_diffusers(about: Mapping[str, Any]) -> bool:
    """Whether --to diffusers takes a model of which this is known: its constants are to be had without the VAE it replaces."""
    family = FAMILIES.get(str(about.get("variant")))
    if family is None or family.vae_class is None or family.kind.startswith("ltx"):
        return False
    return about.get("latents") in CONVENTIONS and _family(about) == family.kind


def default_name(target: str, spec: TaehvSpec, variant: str | None) -> str:
    """A file name for what is written into a folder."""
    fitting = [name for name, known in VARIANTS.items() if known == spec]
    stem = variant or (fitting[0] if fitting else "taehv")
    return f"{stem}.{'pth' if target == PTH else 'safetensors'}"


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own: a file of views would hold what they are views of."""
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}


def _refuse_other_sizes(spec: TaehvSpec, about: Mapping[str, Any], who: str) -> None:
    if spec in VARIANTS.values():
        return
    public = [name for name, known in VARIANTS.items() if same_but_widths(known, spec)]
    why = f"its widths are {_widths(spec)}"
    whole = f"; those have {_widths(VARIANTS[public[0]])}" if public else ""
    diffusers = ", in diffusers (--to diffusers)" if _for_diffusers(about) else ""
    raise ConfigError(
        f"{who} builds the public variants alone, and this model is none of them: "
        f"{why if public else 'its layout is another one'}{whole}. It loads in tinyworld (--to "
        f"folder){diffusers} and as ONNX (--to onnx)."
    )


def same_but_widths(known: TaehvSpec, spec: TaehvSpec) -> bool:
    """Whether the two differ in nothing but the numbers of channels inside."""
    return replace(known, encoder_width=spec.encoder_width, decoder_widths=spec.decoder_widths) == spec


def _widths(spec: TaehvSpec) -> str:
    return f"encoder {spec.encoder_width}, decoder {','.join(map(str, spec.decoder_widths))}"
