"""Which diffusion model each public TAEHV belongs to, and in which form it takes that model's latents.

A TAEHV takes what the diffusion model sees. A VAE of diffusers takes its own raw latents, and the pipelines convert between
the two (`teachers.latents` has the formulas). CogVideoX is the exception: the public taecvx speaks raw latents.
"""

import inspect
from dataclasses import dataclass
from typing import Any, get_args

from tinyworld.core.errors import ConfigError, nearest_name
from tinyworld.models.teachers.facts import SUPPORTED
from tinyworld.models.teachers.latents import Convention

OWN = "own"
"""Latents that no diffusion model speaks: of a model that learned without a reference VAE."""
CONVENTIONS: tuple[str, ...] = get_args(Convention)
SPOKEN: dict[str, tuple[str, ...]] = {family.kind: family.conventions for family in SUPPORTED.values()}
"""Kind of latents → the forms in which they can be stated."""


@dataclass(frozen=True)
class Family:
    """kind: as `teachers.facts` names it. vae_class: the diffusers class whose place a TAEHV takes, None where diffusers has
    none. latents: how the public weights state them. models: for people."""

    kind: str
    vae_class: str | None
    latents: Convention
    models: str


_WAN_2_2 = Family("wan", "AutoencoderKLWan", "normalised", "Wan 2.2 5B")
_HUNYUAN_1_5 = Family("hunyuan1_5", "AutoencoderKLHunyuanVideo15", "scaled", "HunyuanVideo 1.5")

FAMILIES: dict[str, Family] = {
    "taehv": Family("hunyuan", "AutoencoderKLHunyuanVideo", "scaled", "HunyuanVideo"),
    "taew2_1": Family("wan", "AutoencoderKLWan", "normalised", "Wan 2.1, Wan 2.2 14B, Qwen-Image"),
    "taecvx": Family("cogvideox", "AutoencoderKLCogVideoX", "raw", "CogVideoX"),
    "taeos1_3": Family("opensora", None, "scaled", "Open-Sora 1.3"),
    "taew2_2": _WAN_2_2,
    "taehv1_5": _HUNYUAN_1_5,
    "taeh3": Family("h3", None, "normalised", "MiniMax H3"),
    "taeltx_2": Family("ltx2", "AutoencoderKLLTX2Video", "normalised", "LTX-2"),
    "taeltx2_3": Family("ltx2", "AutoencoderKLLTX2Video", "normalised", "LTX-2.3"),
    "taew2_2_super": _WAN_2_2,
    "taehv1_5_super": _HUNYUAN_1_5,
}

WAN_2_2_CHANNELS = 48
WAN_2_2_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098,
    0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567,
    -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957,
    0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
"""latents_mean of Wan 2.2's VAE (Wan-Video/Wan2.2, config of the 5B model); diffusers has those of Wan 2.1 alone."""
WAN_2_2_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454,
    0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999,
    0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444,
    0.4089, 0.7468, 0.7744,
)  # fmt: skip


def family_of(variant: str) -> Family:
    """Raises ConfigError for an unknown variant."""
    if variant not in FAMILIES:
        raise ConfigError(
            f"No TAEHV variant is called {variant!r}.{nearest_name(variant, list(FAMILIES))} Known: {', '.join(FAMILIES)}."
        )
    return FAMILIES[variant]


def published_constants(family: Family, channels: int) -> dict[str, Any]:
    """latents_mean, latents_std, scaling_factor, shift_factor of the published VAE, as diffusers' configs name them.

    Raises ConfigError where the VAE's weight file alone has them (LTX).
    """
    if family.kind == "wan" and channels == WAN_2_2_CHANNELS:
        return {"latents_mean": list(WAN_2_2_MEAN), "latents_std": list(WAN_2_2_STD)}
    if family.kind.startswith("ltx"):
        raise ConfigError(
            f"The constants of {family.models}'s latents stand in its VAE's weight file alone. Give the VAE whose place is "
            'taken: TaehvVae.from_pretrained("…", like=pipe.vae).'
        )
    import diffusers

    parameters = inspect.signature(getattr(diffusers, str(family.vae_class)).__init__).parameters
    names = ("latents_mean", "latents_std") if family.kind == "wan" else ("scaling_factor", "shift_factor")
    values = {name: parameters[name].default for name in names if name in parameters}
    return {name: list(value) if isinstance(value, tuple | list) else value for name, value in values.items()}


def constants_of(vae: Any) -> dict[str, Any]:
    """The same of a VAE at hand, and `invert_scale_latents` where its config has it."""
    names = ("latents_mean", "latents_std", "scaling_factor", "shift_factor", "invert_scale_latents")
    found = {name: vae.config.get(name) for name in names}
    for name, buffer in vae.named_buffers():  # LTX keeps them there
        if name in names:
            found[name] = buffer.detach().float().cpu().tolist()
    return {
        name: list(value) if isinstance(value, tuple | list) else value
        for name, value in found.items()
        if value is not None
    }
