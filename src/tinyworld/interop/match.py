"""Whether a TAEHV fits the place of a pipeline's VAE that it should take.

Shapes tell little: the latents of Wan 2.1 and of HunyuanVideo have equal ones. What taught the model, else the variant that it
is said to be, decides.
"""

from typing import Any

from tinyworld.core.errors import ConfigError, WeightsError
from tinyworld.core.variants import VARIANTS, TaehvSpec
from tinyworld.interop.families import CONVENTIONS, FAMILIES, SPOKEN, Family, family_of
from tinyworld.interop.public_files import same_but_widths

KINDS: dict[str, str] = {family.vae_class: family.kind for family in FAMILIES.values() if family.vae_class} | {
    "AutoencoderKLLTXVideo": "ltx",
    "AutoencoderKLQwenImage": "wan",
}
"""Classes whose place can be taken, and the kind of their latents."""


def family_for(
    spec: TaehvSpec, variant: str | None = None, like: Any = None, teacher: str | None = None, named: str | None = None
) -> Family:
    """The family whose VAE a model takes the place of: that of `like`, else of `variant`.

    teacher: class of the reference VAE that taught the model; named: its variant; each as its file says. Raises ConfigError
    when nothing says which family it is, WeightsError when it is not this model's.
    """
    family = _family_like(spec, like) if like is not None else _family_named(variant or named)
    if variant is not None:
        check_sizes(spec, variant)
    _check_learned(family, variant or named, teacher)
    return family


def check_latents(family: Family, latents: str) -> None:
    """Raises ConfigError for a form that the family's latents do not have."""
    spoken = SPOKEN.get(family.kind, CONVENTIONS)
    if latents not in spoken:
        raise ConfigError(
            f"latents={latents!r}: latents of {family.models} are stated as {' or '.join(spoken)}. Give one of them (latents=…, "
            "--latents), or the family that the model belongs to (variant=…, --variant)."
        )


def check_sizes(spec: TaehvSpec, variant: str) -> None:
    """Raises WeightsError unless the model is of this variant, in whatever widths."""
    family_of(variant)
    if not same_but_widths(VARIANTS[variant], spec):
        fitting = [name for name, known in VARIANTS.items() if same_but_widths(known, spec)]
        raise WeightsError(
            f"variant={variant}: this model is of another architecture. By its latents and frames it can be "
            f"{', '.join(fitting) or 'no public variant'}."
        )


def class_of(kind: str) -> str:
    """A class of diffusers that speaks latents of this kind."""
    return next(name for name, known in KINDS.items() if known == kind)


def _family_named(variant: str | None) -> Family:
    if variant is None:
        raise ConfigError(
            "Which diffusion model does this TAEHV belong to? Its file does not say. Give the VAE whose place it takes, "
            f"like=pipe.vae, or its variant: {', '.join(name for name, family in FAMILIES.items() if family.vae_class)}."
        )
    family = family_of(variant)
    if family.vae_class is None:
        raise ConfigError(
            f"diffusers has no pipeline for {family.models}, so {variant} can take no VAE's place in one."
        )
    return family


def _family_like(spec: TaehvSpec, like: Any) -> Family:
    name = type(like).__name__
    kind = str(like.config["kind"]) if name == "TaehvVae" else KINDS.get(name)
    if kind is None or kind not in KINDS.values():
        raise ConfigError(f"A TAEHV cannot take the place of a {name}; known: {', '.join(KINDS)}.")
    config = like.config
    channels = config.get("z_dim") or config.get("latent_channels")
    if channels != spec.latent_channels:
        raise WeightsError(
            f"This TAEHV makes latents of {spec.latent_channels} channels, and the {name} that it should replace has {channels}."
        )
    if kind == "ltx":
        return Family(kind, name, "normalised", "LTX-Video")
    known = next(family for family in FAMILIES.values() if family.kind == kind)
    return Family(kind, name, known.latents, known.models)


def _check_learned(family: Family, variant: str | None, teacher: str | None) -> None:
    """Raises WeightsError when the model learned the latents of another VAE than the family's."""
    if teacher is not None:
        if KINDS.get(teacher) == family.kind:
            return
        rest = (
            "Give like=pipe.vae of a pipeline that has such a VAE" if teacher in KINDS else "diffusers has no such VAE"
        )
        raise WeightsError(
            f"This TAEHV learned the latents of the reference VAE {teacher}, and the place is that of {family.vae_class} "
            f"({family.models}): pictures would be wrong. {rest}."
        )
    if variant is not None and FAMILIES[variant].kind != family.kind:
        raise WeightsError(
            f"As {variant} this TAEHV speaks the latents of {FAMILIES[variant].models}, and the place is that of "
            f"{family.vae_class} ({family.models}): pictures would be wrong. If it is of another variant than its file "
            "says, give that (variant=…)."
        )
