"""TAEHV architectures as data: what a model is, independent of any file name. Imports without torch.

Sizes of the public variants: madebyollin/taehv, README and model constructor.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from tinyworld.core.errors import ConfigError, WeightsError, nearest_name

Flavour = Literal["plain", "cogvideox", "h3"]
DecoderBlock = Literal["base", "super"]

IMAGE_CHANNELS = 3
STAGES = 3
"""Stages of the encoder and of the decoder; each halves (doubles) height and width."""


@dataclass(frozen=True)
class TaehvSpec:
    """One TAEHV architecture.

    `patch_size` p folds p×p pixels into channels before the encoder and out of them after the decoder. A stage whose
    time flag is set halves (encoder) or doubles (decoder) the number of frames. `flavour` is the temporal law that
    `core.frames` applies: which decoded frames are kept and how clips are cut before encoding.

    Raises ConfigError for values that describe no model.
    """

    patch_size: int = 1
    latent_channels: int = 16
    encoder_width: int = 64
    decoder_widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    encoder_time_downscale: tuple[bool, bool, bool] = (True, True, False)
    decoder_time_upscale: tuple[bool, bool, bool] = (False, True, True)
    decoder_space_upscale: tuple[bool, bool, bool] = (True, True, True)
    decoder_block: DecoderBlock = "base"
    flavour: Flavour = "plain"

    def __post_init__(self) -> None:
        problems = [
            f"{name}={getattr(self, name)!r} must be a whole number of at least 1"
            for name in ("patch_size", "latent_channels", "encoder_width")
            if not _is_count(getattr(self, name))
        ]
        if not _is_tuple(self.decoder_widths, STAGES + 1) or not all(map(_is_count, self.decoder_widths)):
            problems.append(f"decoder_widths={self.decoder_widths!r} must be {STAGES + 1} whole numbers of at least 1")
        for name in ("encoder_time_downscale", "decoder_time_upscale", "decoder_space_upscale"):
            flags = getattr(self, name)
            if not _is_tuple(flags, STAGES) or not all(isinstance(flag, bool) for flag in flags):
                problems.append(f"{name}={flags!r} must be {STAGES} booleans, one per stage")
        if self.decoder_block not in get_args(DecoderBlock):
            problems.append(f"decoder_block={self.decoder_block!r} must be one of {', '.join(get_args(DecoderBlock))}")
        if self.flavour not in get_args(Flavour):
            problems.append(f"flavour={self.flavour!r} must be one of {', '.join(get_args(Flavour))}")
        if not problems and self.flavour == "h3" and self.t_down != 4:
            problems.append(
                f"H3's law of frames is one of 4x time compression, and {self.t_down}x was asked for (key: "
                "model.time_compression, or encoder_time_downscale of an architecture)"
            )
        if problems:
            raise ConfigError(problems)

    @property
    def t_down(self) -> int:
        """Frames per latent in the encoder."""
        return 2 ** sum(self.encoder_time_downscale)

    @property
    def t_up(self) -> int:
        """Frames that the decoder makes of one latent; less than `t_down` for reduced-rate decoding."""
        return 2 ** sum(self.decoder_time_upscale)

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along height and along width, in the encoder."""
        return 2**STAGES * self.patch_size

    @property
    def spatial_upscale(self) -> int:
        """Pixels that the decoder makes of one latent cell along each side; less for reduced-size decoding."""
        return int(2 ** sum(self.decoder_space_upscale)) * self.patch_size

    @property
    def size_multiple(self) -> int:
        """Height and width of encoded frames must be multiples of this many pixels."""
        return self.spatial_compression

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TaehvSpec":
        """The architecture that a weight file's JSON states. Every key must be there: nothing is filled in by default.

        Raises WeightsError naming unknown and missing keys and values that describe no model.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        missing = [name for name in known if name not in values]
        if unknown or missing:
            parts = [f"unknown keys: {', '.join(unknown)}"] if unknown else []
            parts += [f"missing keys: {', '.join(missing)}"] if missing else []
            raise WeightsError(
                f"This TAEHV architecture description has {'; '.join(parts)}. It was written by another version of "
                f"tinyworld, or edited by hand; it needs exactly these keys: {', '.join(known)}."
            )
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**arguments)
        except ConfigError as error:
            raise WeightsError(f"This TAEHV architecture description does not describe a model: {error}") from error


def _is_tuple(value: object, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_LTX = TaehvSpec(
    patch_size=4, latent_channels=128, encoder_time_downscale=(True,) * 3, decoder_time_upscale=(True,) * 3
)
_SUPER_WIDTHS = (512, 256, 128, 64)

VARIANTS: dict[str, TaehvSpec] = {
    "taehv": TaehvSpec(),  # Hunyuan Video
    "taew2_1": TaehvSpec(),  # Wan 2.1, Wan 2.2 14B, Qwen-Image
    "taecvx": TaehvSpec(flavour="cogvideox"),
    "taeos1_3": TaehvSpec(),  # Open-Sora 1.3
    "taew2_2": TaehvSpec(patch_size=2, latent_channels=48),  # Wan 2.2 5B
    "taehv1_5": TaehvSpec(patch_size=2, latent_channels=32),  # Hunyuan Video 1.5
    "taeh3": TaehvSpec(patch_size=2, latent_channels=24, flavour="h3"),  # MiniMax H3
    "taeltx_2": _LTX,
    "taeltx2_3": _LTX,
    "taew2_2_super": TaehvSpec(patch_size=2, latent_channels=48, decoder_widths=_SUPER_WIDTHS, decoder_block="super"),
    "taehv1_5_super": TaehvSpec(patch_size=2, latent_channels=32, decoder_widths=_SUPER_WIDTHS, decoder_block="super"),
}


def variant(name: str) -> TaehvSpec:
    """The architecture of a public variant. Raises ConfigError with the nearest name when there is none."""
    if name not in VARIANTS:
        raise ConfigError(
            f"No TAEHV variant is called {name!r}.{nearest_name(name, list(VARIANTS))} "
            f"Known variants: {', '.join(VARIANTS)} (key: model.variant)."
        )
    return VARIANTS[name]
