"""The verdicts as a table, as JSON and as a picture."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyworld.core.files import write_json
from tinyworld.data.worlds.judge import RANKS
from tinyworld.data.worlds.verify import Verdict
from tinyworld.data.worlds.verify_picture import MOST_ROWS, stack_rows
from tinyworld.media.png import write_png

COLUMNS = (
    ("frames", "frames", "{}"),
    ("photometric", "photometric", "{:.2f}"),
    ("without", "photometric_without", "{:.2f}"),
    ("depth error", "relative_depth_error", "{:.5f}"),
    ("without", "relative_depth_error_without", "{:.5f}"),
    ("overlap", "overlap", "{:.2f}"),
    ("path m", "path_m", "{:.2f}"),
    ("deg/pair", "rotation_deg_per_pair", "{:.2f}"),
    ("depth m", "depth", "{:.2f}"),
)
"""Heading, key of `Verdict.to_dict`, form."""
LEGEND = (
    "photometric: median colour difference (0-255) of pairs of frames after motion compensation; depth error: median relative "
    "difference of depth there; without: the same without compensation; depth m: median depth"
)


def table(verdicts: Sequence[Verdict]) -> str:
    """One line per sample with its numbers and verdict, its reasons and remarks below it, and a last line that counts."""
    rows = [["id", *(heading for heading, _, _ in COLUMNS), "verdict"]]
    rows += [[verdict.id, *_cells(verdict.to_dict()), verdict.verdict] for verdict in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(rows[0], widths)]
    for row, verdict in zip(rows[1:], verdicts, strict=True):
        lines.append(_line(row, widths))
        lines += [f"    {verdict.verdict}: {reason}" for reason in verdict.reasons]
        lines += [f"    remark: {remark}" for remark in verdict.remarks]
    counts = Counter[str](verdict.verdict for verdict in verdicts)
    summary = ", ".join(f"{counts[word]} {word}" for word in RANKS)
    return "\n".join([*lines, LEGEND, f"{len(verdicts)} samples: {summary}"])


def _cells(numbers: dict[str, Any]) -> list[str]:
    cells = []
    for _, key, form in COLUMNS:
        value = numbers.get(key)
        value = value["median"] if isinstance(value, dict) else value
        cells.append("-" if value is None else form.format(value))
    return cells


def _line(cells: list[str], widths: list[int]) -> str:
    first, *numbers, last = (
        cell.ljust(width) if column in (0, len(cells) - 1) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *numbers, last]).rstrip()


def write_numbers(path: Path, verdicts: Sequence[Verdict]) -> None:
    """All numbers as JSON: a list of objects, one per sample."""
    write_json(path, [verdict.to_dict() for verdict in verdicts])


def write_picture(path: Path, verdicts: Sequence[Verdict]) -> int:
    """The rows as one PNG, bad samples first; returns how many of them it holds (0: nothing was written)."""
    drawn = [verdict for verdict in verdicts if verdict.row is not None]
    ordered = sorted(drawn, key=lambda verdict: -RANKS.index(verdict.verdict))
    rows = [verdict.row for verdict in ordered if verdict.row is not None]
    if rows:
        write_png(path, stack_rows(rows))
    return min(len(rows), MOST_ROWS)
