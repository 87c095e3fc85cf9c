"""Camera moves as text, such as "up 0.2 pan_left 15deg then forward 1"; `GRAMMAR` says it to users."""

import re
from dataclasses import dataclass

from tinyworld.core.errors import ConfigError, nearest_name

Vector = tuple[float, float, float]
MOVES: dict[str, Vector] = {
    "forward": (0, 0, 1),
    "back": (0, 0, -1),
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "up": (0, -1, 0),
    "down": (0, 1, 0),
}
"""Directions along the camera's own axes x y z (right, down, forward)."""
TURNS: dict[str, Vector] = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "up": (0, 1, 0),
    "down": (0, -1, 0),
    "roll": (0, 0, 1),
    "pan_right": (1, 0, 0),
    "pan_left": (-1, 0, 0),
    "tilt_up": (0, 1, 0),
    "tilt_down": (0, -1, 0),
}
"""Signs of (pan to the right, tilt up, roll to the right)."""
GRAMMAR = (
    "A path in words is a direction and an amount, once or more: a length, as in forward 0.5, for "
    f"{', '.join(MOVES)}; an angle, as in right 20deg, for {', '.join(TURNS)}. What stands together happens together; "
    '"then" or a comma begins the next part, as in: up 0.2 pan_left 15deg then forward 1. Lengths are in the scene\'s unit, '
    "the mean distance of what is seen."
)
WORDS = list(dict.fromkeys([*MOVES, *TURNS, "then"]))
SEPARATORS = ("then", ",")
MOST_LENGTH, MOST_DEGREES = 100.0, 3600.0
AMOUNT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(deg|°)?")
SPACED_UNIT = re.compile(r"(?<=[\d.])\s+(?=deg\b|°)")


@dataclass(frozen=True)
class Segment:
    """What happens together. move: lengths along x y z of the camera as it stands at the segment's start.
    turn: degrees of pan to the right, tilt up, roll to the right."""

    move: Vector = (0.0, 0.0, 0.0)
    turn: Vector = (0.0, 0.0, 0.0)


def parse_amount(text: str) -> tuple[float, bool] | None:
    """(value, whether in degrees) of "0.5", "-0.5", "20deg", "20 deg" or "20°"; None for anything else and beyond all use."""
    match = AMOUNT.fullmatch(SPACED_UNIT.sub("", text.strip()))
    if match is None:
        return None
    value, degrees = float(match[1]), match[2] is not None
    return (value, degrees) if abs(value) <= (MOST_DEGREES if degrees else MOST_LENGTH) else None


def parse_path(text: str) -> list[Segment]:
    """The segments of a text, one or more. Raises ConfigError naming what is not understood, and the grammar."""
    words = SPACED_UNIT.sub("", text.lower()).replace(",", " , ").split()
    parts: list[list[str]] = [[]]
    for word in words:
        if word in SEPARATORS:
            parts.append([])
        else:
            parts[-1].append(word)
    if not all(parts):
        raise _not_understood(text, 'nothing stands before or after a "then" or comma.' if words else "it is empty.")
    return [_segment(text, part) for part in parts]


def _segment(text: str, words: list[str]) -> Segment:
    move, turn = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for place in range(0, len(words), 2):
        direction, after = words[place], words[place + 1 : place + 2]
        if direction not in WORDS:
            raise _not_understood(text, f"{direction[:40]!r} is no direction.{nearest_name(direction, WORDS)}")
        amount = parse_amount(after[0]) if after else None
        if amount is None:
            found = repr(after[0][:40]) if after else "nothing"
            limits = f"lengths up to {MOST_LENGTH:g} and angles up to {MOST_DEGREES:g}deg"
            raise _not_understood(text, f"after {direction} comes {found}, not an amount ({limits}).")
        value, degrees = amount
        table, sums = (TURNS, turn) if degrees else (MOVES, move)
        if direction not in table:
            needs = "a length, without deg" if degrees else f"an angle, as in {direction} {after[0]}deg"
            raise _not_understood(text, f"{direction} needs {needs}.")
        for axis, sign in enumerate(table[direction]):
            sums[axis] += sign * value
    return Segment((move[0], move[1], move[2]), (turn[0], turn[1], turn[2]))


def _not_understood(text: str, fault: str) -> ConfigError:
    return ConfigError(f"camera {text[:80]!r}: {fault} {GRAMMAR}")
