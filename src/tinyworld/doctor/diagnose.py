"""The search: which of the known causes a text gives away, and by which line."""

import re
from dataclasses import dataclass

from tinyworld.doctor.causes import Cause, Facts
from tinyworld.doctor.common import COMMON
from tinyworld.doctor.recorded import RECORDED

CONSEQUENCES = ("collective-timeout", "nccl", "terminated", "worker-ended")
"""Causes that others tend to bring about: they are named after those."""
CAUSES: tuple[Cause, ...] = tuple(
    sorted(
        (*RECORDED, *COMMON), key=lambda cause: CONSEQUENCES.index(cause.slug) + 1 if cause.slug in CONSEQUENCES else 0
    )
)
"""In the order in which they are reported: the most specific first."""

LINES_BEFORE, LINES_AFTER = 60, 10
"""Where `Cause.near` is looked for: a traceback stands above the line that names the error."""


@dataclass(frozen=True)
class Finding:
    """A cause, and what gave it away."""

    cause: Cause
    evidence: str
    """The line."""
    place: str
    """Where it stands."""
    facts: Facts

    @property
    def why(self) -> str:
        return self.cause.why.format(**self.facts)

    @property
    def prevented(self) -> str:
        return self.cause.prevented.format(**self.facts)

    @property
    def now(self) -> str:
        return self.cause.now.format(**self.facts)


def diagnose(text: str, source: str = "") -> list[Finding]:
    """The causes that a text shows, the most specific first, each with the newest line that shows it.

    A line that one cause explains is not counted for a later one. `source` names the text in `Finding.place`.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found: dict[str, Finding] = {}
    explained: set[int] = set()
    for cause in CAUSES:
        match, facts = _newest(cause, text, explained)
        if match is None or cause.slug in found or (cause.last_resort and found):
            continue
        explained.add(_start(text, match))
        place = f"{source} line {text.count(chr(10), 0, match.start()) + 1}".strip()
        found[cause.slug] = Finding(cause, _line(text, match), place, facts)
    return list(found.values())


def _newest(cause: Cause, text: str, explained: set[int]) -> tuple[re.Match[str] | None, Facts]:
    """The last match whose numbers and neighbours fit, of the first pattern that has one, and the facts it gives."""
    for pattern in cause.compiled:
        matches = list(pattern.finditer(text))[::-1]
        for match in matches[:1] if cause.newest_only else matches:
            facts = {name: _value(value) for name, value in match.groupdict().items() if value is not None}
            more = cause.fits(facts) if cause.fits else {}
            if more is None or _start(text, match) in explained:
                continue
            if cause.near is None or re.search(cause.near, _around(text, match)):
                return match, {**facts, **more}
    return None, {}


def _value(text: str) -> int | float | str:
    if text.isdecimal():
        return int(text)
    return float(text) if re.fullmatch(r"\d+\.\d+", text) else text


def _start(text: str, match: re.Match[str]) -> int:
    """Where the line of a match begins."""
    return text.rfind("\n", 0, match.start()) + 1


def _line(text: str, match: re.Match[str]) -> str:
    end = text.find("\n", match.end())
    return " ".join(text[_start(text, match) : end if end >= 0 else None].split())


def _around(text: str, match: re.Match[str]) -> str:
    before = text[: match.start()].split("\n")[-LINES_BEFORE - 1 :]
    after = text[match.start() :].split("\n")[: LINES_AFTER + 1]
    return "\n".join(before) + "\n".join(after)
