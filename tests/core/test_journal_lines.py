"""Reading what is there, adding a line after what a kill left."""

from pathlib import Path

import pytest

from tinyworld.core.journal_lines import append_line, read_lines


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(
        b'{"event": "a", "step": 1}\n\n[1]\n{"event": "b"}\n{"event": 3, "step": 1}\n\xff\n{"event": "c", "step": 2.0}'
    )
    records, damaged = read_lines(path)
    assert records == [{"event": "a", "step": 1}, {"event": "c", "step": 2}] and damaged == 4


@pytest.mark.parametrize(("before", "damaged"), [("", 0), ('{"event": "a", "step": 1}\n', 0), ('{"event": "a"', 1)])
def test_a_line_is_added_on_a_line_of_its_own(tmp_path: Path, before: str, damaged: int) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(before)
    added = append_line(path, "restart", 7, cause="é", lost_seconds=float("nan"))
    records, bad = read_lines(path)
    assert records[-1] == added and bad == damaged
    assert (added["event"], added["step"], added["cause"], added["lost_seconds"]) == ("restart", 7, "é", None)
    assert list(added)[:3] == ["event", "time", "step"] and path.read_bytes().endswith(b"}\n")


def test_a_missing_journal_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read_lines(tmp_path / "journal.jsonl")
