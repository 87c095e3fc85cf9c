"""What differs between runs: the keys of their config.yaml, and the facts that they started with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyworld.core.journal_lines import Record
from tinyworld.report.compared import Entry
from tinyworld.report.words import ABSENT

PLACES = ("run.output_dir", "run.run_name", "checkpoint.resume_from_checkpoint")
"""Keys that say where a run is, not what it does."""
FACTS = {
    "parameters": "trained parameters",
    "device": "device",
    "world_size": "processes",
    "clips": "training clips",
    "samples": "training clips",
    "held_out": "held-out clips",
    "version": "tinyworld",
}
"""Keys of a start event, and how the page calls them."""
NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Difference:
    """One row: a key of the recipe or a fact, and its value in each run, as text."""

    key: str
    values: list[str]


def differences(entries: Sequence[Entry]) -> list[Difference]:
    """Rows whose values are not all the same, keys of the recipe first. What a damaged file hides is no difference, nor is a key
    that an older version did not have and that is unset in the others."""
    settings = [flat(entry.run.config) if entry.run.config else None for entry in entries]
    keys = dict.fromkeys(key for known in settings if known for key in known if key not in PLACES)
    rows = [_row(key, [known and {"": known.get(key, ABSENT)} for known in settings]) for key in keys]
    starts = [entry.run.lives[-1].start if entry.run.lives else None for entry in entries]
    for key, label in FACTS.items():
        rows.append(_row(f"at the start: {label}", [start and {"": start.get(key, ABSENT)} for start in starts]))
    return [row for row in rows if len({_meant(value) for value in row.values if value != NOT_KNOWN}) > 1]


def _row(key: str, values: Sequence[Record | None]) -> Difference:
    return Difference(key, [NOT_KNOWN if not value else told(value[""]) for value in values])


def _meant(value: str) -> str:
    return "null" if value == ABSENT else value


def flat(settings: Record, before: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def told(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)
