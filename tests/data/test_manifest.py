"""Listing a data set: every accepted form gives the same entries; every mistake is named, all at once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.data.manifest import Entry, list_videos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files that need not be videos: listing opens none of them."""
    folder = tmp_path / "set"
    for name in ("b.mp4", "a.MOV", "deep/er/c.webm", ".hidden.mp4", ".git/d.mp4", "notes.txt", "deep/picture.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def annotate(root: Path, value: Any) -> Path:
    file = root.parent / "list.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return file


def test_a_folder_is_searched_for_all_containers(root: Path) -> None:
    assert list_videos(root) == [
        Entry("a", root / "a.MOV"),
        Entry("b", root / "b.mp4"),
        Entry("deep/er/c", root / "deep/er/c.webm"),
    ]


def test_files_that_differ_in_their_suffix_only_keep_it(root: Path) -> None:
    (root / "b.mkv").touch()
    assert [entry.id for entry in list_videos(root)] == ["a", "b.mkv", "b.mp4", "deep/er/c"]


def test_links_to_folders_are_followed_but_not_in_circles(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.mp4").touch()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "deep/up").symlink_to(root)
    assert [entry.id for entry in list_videos(root)] == ["a", "b", "deep/er/c", "linked/x"]


def test_a_relative_root_gives_absolute_paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    assert list_videos("set") == list_videos(root)
    assert list_videos("set", annotate(root, ["b.mp4"]))[0].path == root / "b.mp4"


def test_empty_missing_and_wrong_roots(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no videos in this folder or below \(looked for mp4 .*key: data\.data_root"):
        list_videos(tmp_path)
    with pytest.raises(MissingFileError, match=r"does not exist.*data\.data_root"):
        list_videos(tmp_path / "absent")
    (tmp_path / "file.mp4").touch()
    with pytest.raises(MissingFileError, match="is not a folder"):
        list_videos(tmp_path / "file.mp4")


OBJECTS = [{"path": "b.mp4", "caption": "bee"}, {"path": "deep/er/c.webm", "caption": "sea"}]
FORMS = {
    "objects": OBJECTS,
    "one object": OBJECTS[0],
    "videos": {"videos": OBJECTS, "version": 3},
    "data": {"data": OBJECTS},
    "samples": {"samples": OBJECTS},
    "captions": {entry["path"]: entry["caption"] for entry in OBJECTS},
    "lines": "\n".join(json.dumps(entry) for entry in OBJECTS) + "\n\n",
    "guide's keys": [{"video": "b.mp4", "text": "bee"}, {"video_path": "deep/er/c.webm", "prompt": "sea"}],
    "file_name": [
        {"file_name": "./b.mp4", "caption": "bee", "caption_b": 1},
        {"file_name": "deep/../deep/er/c.webm", "text": "sea"},
    ],
    "null": [{"path": None, "video": "b.mp4", "caption": None, "text": "bee"}, OBJECTS[1]],
    "byte order mark": "\ufeff" + json.dumps(OBJECTS),
}


@pytest.mark.parametrize("form", FORMS)
def test_accepted_forms(form: str, root: Path) -> None:
    entries = list_videos(root, annotate(root, FORMS[form]))
    expected = [Entry("b", root / "b.mp4", "bee"), Entry("deep/er/c", root / "deep/er/c.webm", "sea")]
    assert entries == (expected[:1] if form == "one object" else expected)


@pytest.mark.parametrize("value", [["b.mp4", "a.MOV"], '"b.mp4"\n"a.MOV"\n', {"videos": ["b.mp4", "a.MOV"]}])
def test_plain_paths_keep_their_order(value: Any, root: Path) -> None:
    assert list_videos(root, annotate(root, value)) == [Entry("b", root / "b.mp4"), Entry("a", root / "a.MOV")]


def test_ids_frames_and_absolute_paths_inside(root: Path) -> None:
    value = [
        {"id": 7, "path": str(root / "b.mp4"), "num_frames": 49},
        {"id": "x y", "video": "a.MOV", "frames": 3, "fps": "any"},
        {"video": "deep/er/c.webm"},
    ]
    assert list_videos(root, annotate(root, value)) == [
        Entry("7", root / "b.mp4", "", 49),
        Entry("x y", root / "a.MOV", "", 3),
        Entry("deep/er/c", root / "deep/er/c.webm"),
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"caption": "no path"}, "no path of a video"),
        ({"path": ""}, "no path of a video"),
        ({"path": 3}, "path must be text, not a number"),
        (["b.mp4"], "an object or a path is needed, not a list"),
        (None, "not null"),
        ({"path": "b.mp4", "id": 1.5}, "id must be text or a whole number, not a number"),
        ({"path": "b.mp4", "id": True}, "id must be text or a whole number, not true or false"),
        ({"path": "b.mp4", "caption": {"en": "x"}}, "caption must be text, not an object"),
        ({"path": "b.mp4", "num_frames": "nine"}, "num_frames must be a whole number, not text"),
        ({"path": "b.mp4", "frames": 0}, "at least 1, not 0"),
        ("absent.mp4", "there is no file"),
        ("deep", "there is no file"),
        ("../outside.mp4", "leaves the data folder"),
        ("deep/../../outside.mp4", "leaves the data folder"),
        ("/etc/passwd", "leaves the data folder"),
        (".", "leaves the data folder"),
        ("b\0.mp4", "is not a path"),
    ],
)
def test_each_wrong_entry_is_named(item: Any, message: str, root: Path) -> None:
    (root.parent / "outside.mp4").touch()
    with pytest.raises(DataError, match=r"1 of 2 entries cannot be used:\n  entry 1") as caught:
        list_videos(root, annotate(root, ["a.MOV", item]))
    assert message in str(caught.value)


def test_all_problems_at_once_the_first_ten_in_words(root: Path) -> None:
    with pytest.raises(DataError) as caught:
        list_videos(root, annotate(root, ["b.mp4", *(f"absent_{n}.mp4" for n in range(14))]))
    text = str(caught.value)
    assert "14 of 15 entries cannot be used" in text
    assert text.count("there is no file") == 10
    assert text.endswith("… and 4 more")


def test_repeats_are_refused(root: Path) -> None:
    value = [{"id": "x", "path": "a.MOV"}, {"id": "x", "path": "b.mp4"}, {"id": "y", "path": "./b.mp4"}]
    with pytest.raises(DataError, match=r"the id 'x' is given to 2 entries\n.*b\.mp4 is listed 2 times"):
        list_videos(root, annotate(root, value))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "not JSON, nor JSON lines"),
        (b"", "lists no videos"),
        (b"[" * 100_000, "not JSON"),
        ('["b.mp4", "é"]'.encode("latin-1"), r"not UTF-8 text \(byte 11\)"),
        (b"[]", "lists no videos"),
        (b"{}", "lists no videos"),
        (b"3", "a list of videos is needed, not a number"),
        (b'{"samples": {"path": "b.mp4"}}', "a list of videos is needed, not an object"),
        (b'{"entries": [1]}', "no list of videos under one of videos, data, samples"),
        (b'{"videos": [], "data": []}', "no list of videos under one of"),
    ],
)
def test_unreadable_annotation_files(content: bytes, message: str, root: Path) -> None:
    file = root.parent / "list.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list_videos(root, file)


def test_a_missing_annotation_file(root: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no such annotation file \(key: data\.annotation_file\)"):
        list_videos(root, root / "absent.json")


def test_nothing_outside_is_even_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: (looked.append(os.fspath(self)), is_file(self))[1])
    with pytest.raises(DataError):
        list_videos(root, annotate(root, ["../../../../../../../../etc/passwd", "/etc/hostname"]))
    assert not [path for path in looked if "/etc/" in path]


@pytest.mark.shared
def test_real_metadata(shared: Path) -> None:
    entries = list_videos(shared / "data/clips", shared / "data/clips/metadata.json")
    assert len(entries) == 39
    assert entries[0] == Entry(
        "davis_blackswan",
        shared / "data/clips/davis_blackswan.mp4",
        "A black swan swims on a dark river past a grassy bank.",
        49,
    )
    assert len(list_videos(shared / "data/rgbd", shared / "data/rgbd/metadata.json")) == 6


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meta_path_traversal", "leaves the data folder"),
        ("meta_duplicate_ids", "is given to 2 entries"),
        ("meta_non_utf8", "not UTF-8"),
        ("meta_truncated_json", "not JSON"),
        ("meta_not_a_list", "a list of videos is needed"),
        ("meta_wrong_types", "num_frames must be a whole number"),
        ("meta_missing_files", "there is no file"),
        ("meta_empty_list", "lists no videos"),
    ],
)
def test_broken_metadata(name: str, message: str, shared: Path) -> None:
    folder = shared / "data/broken/rgbd" / name
    with pytest.raises(DataError, match=message):
        list_videos(folder, folder / "metadata.json")
