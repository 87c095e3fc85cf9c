"""File names of ids."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.core.names import file_name


@pytest.mark.parametrize("identity", ["clip0", "walk_clip-3.take2", "Straße", "a" * 100])
def test_an_id_that_is_a_file_name_stays(identity: str) -> None:
    assert file_name(identity) == identity


def test_ids_that_would_look_alike_differ() -> None:
    twin = file_name("a/b")
    ids = ["a/b", "a_b", "a b", "a\\b", "a:b", "a/" + "b" * 300, "a/" + "b" * 301, "ü" * 200, "ü" * 201, twin]
    assert len({file_name(identity) for identity in ids}) == len(ids)
    assert twin.startswith("a_b-")


@given(st.text(st.characters(), max_size=300))
@pytest.mark.filterwarnings("error")
def test_any_id_becomes_a_plain_file_name(identity: str) -> None:
    name = file_name(identity)
    assert 1 <= len(name.encode()) <= 100
    assert name[0] not in ".-" and Path(name).name == name
    assert not any(c in name for c in '\0/\\:*?"<>| \n')
