"""What a teacher is, read from its config.json alone: no weights, no diffusers import.

The compression is worked out from the layers that the config describes, not from the ratios that it declares: some
published configs leave those out, and diffusers uses them for tiling only.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyworld.core.errors import ConfigError, DataError, FramePlanError, WeightsError, nearest_name
from tinyworld.core.frames import nearest_counts
from tinyworld.models.teachers.latents import Convention
from tinyworld.models.teachers.place import CONFIG_NAME, KEY, locate

COGVIDEOX_CHUNK = 8
"""Frames that CogVideoX encodes together, as two latents; one more frame joins the first chunk."""


@dataclass(frozen=True)
class TeacherFacts:
    """What everything else asks of a teacher.

    kind: cogvideox, wan (2.1 and 2.2), hunyuan, hunyuan1_5, ltx or ltx2. t_down: frames per latent.
    spatial_compression: pixels per latent cell along each side. convention: how its latents are stated.
    path: the folder with its config.json.
    """

    kind: str
    class_name: str
    latent_channels: int
    t_down: int
    spatial_compression: int
    convention: Convention
    path: Path

    def latent_count(self, n_frames: int) -> int:
        """Latents of a clip of n_frames. Raises FramePlanError with the nearest counts that the teacher takes.

        Causal teachers take the first frame alone, then t at a time: 1 + t·k. CogVideoX takes 8k or 8k + 1 frames: an
        even or odd number of latents, each of which its decoder gives back whole.
        """
        if self.kind == "cogvideox":
            counts = {n for offset in (0, 1) for n in nearest_counts(n_frames, COGVIDEOX_CHUNK, offset)}
            around = (max((n for n in counts if n <= n_frames), default=0), min(n for n in counts if n >= n_frames))
            nearest = tuple(n for n in dict.fromkeys(around) if n)
            rule = f"{COGVIDEOX_CHUNK}k or {COGVIDEOX_CHUNK}k + 1"
        else:
            nearest = nearest_counts(n_frames, self.t_down, 1)
            rule = f"{self.t_down}k + 1"
        if nearest != (n_frames,):
            raise FramePlanError(
                f"n_frames={n_frames} does not fit the teacher {self.class_name}, which takes {rule} frames. Use "
                f"{' or '.join(map(str, nearest))} (key: data.n_frames).",
                nearest,
            )
        return -(-n_frames // self.t_down)

    def decoded_count(self, latents: int) -> int:
        """Frames that the teacher decodes `latents` latents to (at least 1)."""
        even = self.kind == "cogvideox" and latents % 2 == 0
        return self.t_down * latents - (0 if even else self.t_down - 1)

    def check_size(self, height: int, width: int) -> None:
        """Raises DataError unless height and width are multiples of the spatial compression."""
        step = self.spatial_compression
        for name, size in (("height", height), ("width", width)):
            if size % step or size < 1:
                nearest = " or ".join(map(str, nearest_counts(size, step, 0)))
                raise DataError(
                    f"{name}={size} is no multiple of {step}, the spatial compression of the teacher "
                    f"{self.class_name}. Use {nearest} (key: data.{name})."
                )


class _Config:
    """Values of a config.json, with the class's default where an older file does not say, checked as they are read."""

    def __init__(self, values: Mapping[str, Any], file: Path) -> None:
        self.values, self.file = values, file

    def get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def count(self, key: str, default: int) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
            raise self.fault(key, "must be a whole number of at least 1")
        return int(value)

    def sequence(self, key: str, default: tuple[Any, ...]) -> tuple[Any, ...]:
        value = self.get(key, default)
        if not isinstance(value, list | tuple) or not value:
            raise self.fault(key, "must be a list")
        return tuple(value)

    def fault(self, key: str, rule: str) -> WeightsError:
        return WeightsError(f"{self.file} is no usable teacher config: {key}={self.values.get(key)!r} {rule}.")


def _cogvideox(config: _Config) -> tuple[int, int]:
    stages = config.sequence("block_out_channels", (128, 256, 256, 512))
    return config.count("temporal_compression_ratio", 4), 2 ** (len(stages) - 1)


def _wan(config: _Config) -> tuple[int, int]:
    halvings = len(config.sequence("dim_mult", (1, 2, 4, 4))) - 1
    in_time = config.sequence("temperal_downsample", (False, True, True))[:halvings]
    return 2 ** sum(map(bool, in_time)), 2**halvings * config.count("patch_size", 1)


def _hunyuan(config: _Config) -> tuple[int, int]:
    return config.count("temporal_compression_ratio", 4), config.count("spatial_compression_ratio", 8)


def _hunyuan1_5(config: _Config) -> tuple[int, int]:
    return config.count("temporal_compression_ratio", 4), config.count("spatial_compression_ratio", 16)


def _ltx(config: _Config) -> tuple[int, int]:
    blocks = config.sequence("down_block_types", ("LTXVideoDownBlock3D",) * 4)
    flags = config.sequence("spatio_temporal_scaling", (True, True, True, False))
    kinds = config.sequence("downsample_type", ("conv",) * 4)
    # the first generation of blocks knows no downsample_type: it halves time and space
    plain = blocks[-1] == "LTXVideoDownBlock3D"
    return _halvings(config, flags, ("conv",) * len(flags) if plain else kinds)


def _ltx2(config: _Config) -> tuple[int, int]:
    kinds = config.sequence("downsample_type", ("spatial", "temporal", "spatiotemporal", "spatiotemporal"))
    flags = config.get("spatio_temporal_scaling", True)
    return _halvings(config, (flags,) * len(kinds) if isinstance(flags, bool) else tuple(flags), kinds)


def _halvings(config: _Config, flags: tuple[Any, ...], kinds: tuple[Any, ...]) -> tuple[int, int]:
    done = [kind for flag, kind in zip(flags, kinds, strict=False) if flag]
    in_time = sum(kind != "spatial" for kind in done)
    in_space = sum(kind != "temporal" for kind in done)
    return 2**in_time, 2**in_space * config.count("patch_size", 4)


@dataclass(frozen=True)
class Family:
    """One supported class: what its config calls things, how its latents may be stated, and which way is the default."""

    kind: str
    convention: Convention
    conventions: tuple[Convention, ...]
    compression: Callable[[_Config], tuple[int, int]]
    channels: tuple[str, int]
    fixed_t_down: int | None = None
    """Time compression that the class's chunked encode is written for, when it is not free."""


SUPPORTED: dict[str, Family] = {
    "AutoencoderKLCogVideoX": Family("cogvideox", "raw", ("raw", "scaled"), _cogvideox, ("latent_channels", 16), 4),
    "AutoencoderKLWan": Family("wan", "normalised", ("raw", "normalised"), _wan, ("z_dim", 16), 4),
    "AutoencoderKLHunyuanVideo": Family("hunyuan", "scaled", ("raw", "scaled"), _hunyuan, ("latent_channels", 16)),
    "AutoencoderKLHunyuanVideo15": Family(
        "hunyuan1_5", "scaled", ("raw", "scaled"), _hunyuan1_5, ("latent_channels", 32)
    ),
    "AutoencoderKLLTXVideo": Family("ltx", "normalised", ("raw", "normalised"), _ltx, ("latent_channels", 128)),
    "AutoencoderKLLTX2Video": Family("ltx2", "normalised", ("raw", "normalised"), _ltx2, ("latent_channels", 128)),
}
"""The diffusers classes that can be teachers, by the `_class_name` of their config.json."""


def read_facts(path: str | Path) -> TeacherFacts:
    """What the teacher at `path` is (a VAE folder, a pipeline folder, or a hub id), in its default convention.

    Raises MissingFileError when there is none, WeightsError for a config that describes no supported teacher.
    """
    folder = locate(path).folder
    return facts_of(folder, read_config(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a teacher's folder. Raises WeightsError unless it is one of a supported class."""
    file = folder / CONFIG_NAME
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not readable JSON ({error}). Copy the teacher again (key: {KEY}).") from error
    name = values.get("_class_name") if isinstance(values, dict) else None
    if not isinstance(name, str):
        raise WeightsError(f"{file} names no _class_name, so it is no config of a diffusers model. {_known()}")
    if name not in SUPPORTED:
        raise WeightsError(
            f"{file} is of the class {name}, which cannot be a teacher.{nearest_name(name, list(SUPPORTED))} {_known()}"
        )
    return values


def facts_of(folder: Path, values: Mapping[str, Any], convention: Convention | None = None) -> TeacherFacts:
    """Facts of a config that `read_config` returned, in the given or the default convention.

    Raises WeightsError for values that describe no model, ConfigError for a convention that the class does not have.
    """
    name = values["_class_name"]
    family, config = SUPPORTED[name], _Config(values, folder / CONFIG_NAME)
    if convention is not None and convention not in family.conventions:
        raise ConfigError(
            f"{name} has no constants for {convention!r} latents; its latents can be stated as "
            f"{' or '.join(family.conventions)}, and {family.convention} is the default (key: teacher.latent_convention)."
        )
    t_down, spatial = family.compression(config)
    if family.fixed_t_down not in (None, t_down):
        raise WeightsError(
            f"{config.file} describes a {name} with {t_down}x time compression; the class encodes in chunks made for "
            f"{family.fixed_t_down}x."
        )
    channels = config.count(*family.channels)
    return TeacherFacts(family.kind, name, channels, t_down, spatial, convention or family.convention, folder)


def _known() -> str:
    return f"Supported: {', '.join(SUPPORTED)} (key: {KEY})."
