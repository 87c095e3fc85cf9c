"""What each loss term weighs: its share of the loss at the end, and of the first gradient, where a run measured that."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyworld.core.journal_lines import number
from tinyworld.report.compared import Entry
from tinyworld.report.read import Run

TAIL = 10
"""The last one of so many parts of a run's logged steps is what counts as its end."""


@dataclass(frozen=True)
class Shares:
    """One table. rows: a term, and its percent in each run (None: the run has no such term, or did not say)."""

    title: str
    rows: list[tuple[str, list[float | None]]]


def loss_shares(entries: Sequence[Entry]) -> list[Shares]:
    """Tables of the loss and of the gradient of each part of the model, without those of which nothing is known."""
    tables = [_table("the loss, over the last tenth of the steps", [_of_loss(entry.run) for entry in entries])]
    parts: dict[str, None] = {}
    for entry in entries:
        for term in entry.run.preflight:
            parts |= dict.fromkeys(term["shares"] if isinstance(term.get("shares"), dict) else ())
    for part in parts:
        tables.append(
            _table(f"the {part}'s gradient, before the run's steps", [_of_part(entry.run, part) for entry in entries])
        )
    return [table for table in tables if table.rows]


def _table(title: str, columns: Sequence[dict[str, float]]) -> Shares:
    terms = dict.fromkeys(term for column in columns for term in column)
    return Shares(title, [(term, [column.get(term) for column in columns]) for term in terms])


def _of_loss(run: Run) -> dict[str, float]:
    """Percent: the mean magnitude of each term over the sum of all of them."""
    sums: dict[str, float] = {}
    for record in run.steps[-max(1, len(run.steps) // TAIL) :]:
        losses = record.get("losses")
        for term, value in losses.items() if isinstance(losses, dict) else ():
            known = number(value)
            if term != "total" and known is not None:
                sums[term] = sums.get(term, 0.0) + abs(known)
    total = sum(sums.values())
    return {term: 100 * value / total for term, value in sums.items()} if total else {}


def _of_part(run: Run, part: str) -> dict[str, float]:
    found = {}
    for term in run.preflight:
        shares = term.get("shares")
        value = number(shares.get(part)) if isinstance(shares, dict) else None
        if value is not None:
            found[str(term.get("term"))] = 100 * value
    return found
