"""Whether a student and a reference VAE speak the same kind of latents."""

from tinyworld.core.errors import ConfigError
from tinyworld.core.variants import STAGES, VARIANTS, TaehvSpec
from tinyworld.models.teachers import TeacherFacts

Kind = tuple[int, int, int, bool]
"""Latent channels, compression in time and in space, and whether CogVideoX's frame counts apply."""


def check_fit(facts: TeacherFacts, spec: TaehvSpec, variant: str) -> None:
    """Raise ConfigError when student and teacher do not share channels, compression or temporal law."""
    if _teacher(facts) == _student(spec):
        return
    fitting = [name for name, other in VARIANTS.items() if _student(other) == _teacher(facts)]
    hint = f"Use {' or '.join(fitting)} (key: model.variant)" if fitting else _own_sizes(facts)
    raise ConfigError(
        f"The reference VAE ({facts.class_name}: {_words(_teacher(facts))}) and variant={variant} "
        f"({_words(_student(spec))}) do not speak the same latents. {hint}, or give another VAE (key: teacher.ref_vae_path)."
    )


def _own_sizes(facts: TeacherFacts) -> str:
    patch, rest = divmod(facts.spatial_compression, 2**STAGES)
    if rest or patch not in range(1, 9) or facts.t_down not in (2, 4, 8) or facts.kind == "cogvideox":
        return "No student fits it"
    return (
        f"No variant fits it: set model.variant=taew2_1, model.latent_channels={facts.latent_channels}, "
        f"model.time_compression={facts.t_down} and model.patch_size={patch}"
    )


def _teacher(facts: TeacherFacts) -> Kind:
    return facts.latent_channels, facts.t_down, facts.spatial_compression, facts.kind == "cogvideox"


def _student(spec: TaehvSpec) -> Kind:
    return spec.latent_channels, spec.t_down, spec.spatial_compression, spec.flavour == "cogvideox"


def _words(kind: Kind) -> str:
    channels, time, space, parity = kind
    law = ", CogVideoX's frame counts" if parity else ""
    return f"{channels} latent channels, {time}x in time, {space}x in space{law}"
