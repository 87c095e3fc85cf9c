"""What can be asked of a service."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Abilities:
    """What the opened models can do. reasons: why not, of every kind that is not there. clip: height, width and frames that
    worlds have where a request names none; None without a world model. text: whether prompts are understood. geometry: whether a
    generated world has any, or is a video alone."""

    reasons: Mapping[str, str]
    clip: tuple[int, int, int] | None
    text: bool
    geometry: bool
