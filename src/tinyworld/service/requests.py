"""From the fields of a form to a request that can be carried out: everything is checked before a job waits."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinyworld.core.errors import ConfigError, nearest_name
from tinyworld.infer.world.camera_paths import path_of_text
from tinyworld.infer.world.conditions import Clip
from tinyworld.service.abilities import Abilities
from tinyworld.service.jobs import Kind
from tinyworld.service.limits import Limits
from tinyworld.service.refusals import NotNow, WrongType

LONGEST_PROMPT, LONGEST_CAMERA = 2000, 200
MOST_SEED = 2**53
"""The whole numbers that every client's JSON keeps."""
USUAL_STEPS, USUAL_SIGMA = 50, 0.1
FILE_OF = {"reconstruct": "video", "lift": "video", "generate": "image"}
"""The field of a form that holds a file, and what the file has to be."""
FIELDS: dict[Kind, tuple[str, ...]] = {
    "reconstruct": ("frames",),
    "lift": ("sigma", "frames", "height", "width", "seed"),
    "generate": ("prompt", "camera", "frames", "height", "width", "steps", "seed"),
}


def check_kind(kind: Kind, abilities: Abilities) -> None:
    """Raises NotNow for what this service has no model for."""
    if kind in abilities.reasons:
        raise NotNow(abilities.reasons[kind])


def request_of(kind: Kind, fields: Mapping[str, str], abilities: Abilities, limits: Limits) -> dict[str, Any]:
    """The checked request, ready for JSON. A field that is empty, as browsers send them, is one that is not given.

    Raises ConfigError with every field that cannot be, FramePlanError for a number of frames that no clip has.
    """
    for name in fields:
        if name not in FIELDS[kind]:
            known = [*FIELDS[kind], FILE_OF[kind]]
            raise ConfigError(
                f"There is no field {name[:40]!r}.{nearest_name(name[:40], known)} Known: {', '.join(known)}."
            )
    reader = _Fields({name: value.strip() for name, value in fields.items()})
    request: dict[str, Any] = {"kind": kind, "frames": reader.whole("frames", 1, limits.max_frames)}
    if kind != "reconstruct":
        request["seed"] = reader.whole("seed", 0, MOST_SEED) or 0
        request["height"] = reader.whole("height", 1, limits.max_pixels)
        request["width"] = reader.whole("width", 1, limits.max_pixels)
    if kind == "lift":
        sigma = reader.number("sigma", 0.0, 1.0)
        request["sigma"] = USUAL_SIGMA if sigma is None else sigma
    if kind == "generate":
        request["steps"] = reader.whole("steps", 1, limits.max_steps) or min(USUAL_STEPS, limits.max_steps)
        request["prompt"] = reader.text("prompt", LONGEST_PROMPT)
        request["camera"] = reader.text("camera", LONGEST_CAMERA)
        if request["prompt"] and not abilities.text:
            reader.problems.append(
                "prompt: this service has no text encoder, so that words have no effect; leave it empty."
            )
    if reader.problems:
        raise ConfigError(reader.problems)
    if kind != "reconstruct":
        _check_clip(request, abilities, limits)
    return request


def _check_clip(request: dict[str, Any], abilities: Abilities, limits: Limits) -> None:
    """The size of the world that is made; where the frames of a lifted video are not asked for, they are known later."""
    assert abilities.clip is not None
    usual = zip(("height", "width", "frames"), abilities.clip, strict=True)
    height, width, frames = (request[name] or size for name, size in usual)
    if request["kind"] == "lift" and request["frames"] is None:
        frames = 1
    clip = Clip(height, width, frames)
    if clip.height * clip.width > limits.max_pixels or clip.frames > limits.max_frames:
        raise ConfigError(
            f"{clip.frames} frames of {clip.height} × {clip.width}: this service makes up to {limits.max_frames} frames "
            f"(--max_frames) of up to {limits.max_pixels} pixels (--max_pixels). Ask for less with frames, height and width."
        )
    if request.get("camera"):
        path_of_text(request["camera"], 1, clip.height, clip.width)


class _Fields:
    """Reads values and collects what is wrong with them."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given
        self.problems: list[str] = []

    def whole(self, name: str, least: int, most: int) -> int | None:
        return self._read(name, int, least, most, "a whole number")

    def number(self, name: str, least: float, most: float) -> float | None:
        return self._read(name, float, least, most, "a number")

    def text(self, name: str, longest: int) -> str:
        text = self.given.get(name, "")
        if len(text) > longest:
            self.problems.append(f"{name} has {len(text)} letters; it may have {longest}.")
        if "\0" in text:
            self.problems.append(f"{name} has a letter that is no letter (NUL).")
        return text

    def _read(self, name: str, kind: Callable[[str], Any], least: float, most: float, what: str) -> Any:
        text = self.given.get(name, "")
        if not text:
            return None
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            self.problems.append(f"{name} is {text[:40]!r}; it must be {what} from {least:g} to {most}.")
            return None
        return value


VIDEO_KINDS = "an mp4, mov, webm, mkv, avi or ts file"
PICTURE_KINDS = "a PNG, JPEG or WebP file"


def check_content(file: Path, field: str) -> None:
    """By its first bytes: whether a file is of a kind that is taken. Raises WrongType.

    Playlists and pictures in drawing languages never pass: they can name other files, which their readers would then open.
    """
    with file.open("rb") as opened:
        head = opened.read(189)
    taken = _is_video(head) if field == "video" else _is_picture(head)
    if not taken:
        raise WrongType(f"{field}: this is not {VIDEO_KINDS if field == 'video' else PICTURE_KINDS}.")


def _is_video(head: bytes) -> bool:
    mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    stream = head[:1] == b"G" and head[188:189] == b"G"
    return mp4 or avi or stream or head.startswith((b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba"))


def _is_picture(head: bytes) -> bool:
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
