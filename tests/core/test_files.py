"""Folders that are complete or absent."""

import json
import math
from pathlib import Path

import pytest

from tinyworld.core import files
from tinyworld.core.errors import MissingFileError


def publish(final: Path, content: str = "hello") -> None:
    with files.staged_folder(final, {"step": 3}) as folder:
        (folder / "a.txt").write_text(content)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(b"\x00" * 1000)


def test_a_published_folder_verifies_and_carries_its_facts(tmp_path: Path) -> None:
    publish(tmp_path / "x")
    assert files.verify_folder(tmp_path / "x") == []
    manifest = files.read_manifest(tmp_path / "x")
    assert manifest is not None and manifest["step"] == 3 and set(manifest["files"]) == {"a.txt", "sub/b.bin"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    publish(tmp_path / "x", "old")
    with pytest.raises(OSError, match="disk full"), files.staged_folder(tmp_path / "x") as folder:
        (folder / "a.txt").write_text("new")
        raise OSError("disk full")
    assert (tmp_path / "x" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_complete_folder_is_replaced_whole(tmp_path: Path) -> None:
    publish(tmp_path / "x", "old")
    publish(tmp_path / "x", "new")
    assert (tmp_path / "x" / "a.txt").read_text() == "new" and files.verify_folder(tmp_path / "x") == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "a.txt").unlink(), "a.txt is missing"),
        (lambda f: (f / "a.txt").write_text("hell"), "a.txt has 4 bytes, its manifest says 5"),
        (lambda f: (f / "a.txt").write_text("jello"), "does not match its SHA-256"),
        (lambda f: (f / "manifest.json").unlink(), "never completed"),
        (lambda f: (f / "manifest.json").write_text("{"), "never completed"),
    ],
)
def test_every_damage_is_named(tmp_path: Path, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    publish(tmp_path / "x")
    damage(tmp_path / "x")
    assert words in files.verify_folder(tmp_path / "x")[0]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"files": []}',
        '{"files": {"a.txt": 5}}',
        '{"files": {"a.txt": {"bytes": "5", "sha256": "x"}}}',
        '{"files": {"a.txt": {"bytes": 5, "sha256": null}}}',
        '{"files": {"a.txt": {}}}',
        "[" * 100_000,
    ],
)
def test_a_manifest_of_another_form_is_none(tmp_path: Path, content: str) -> None:
    publish(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_text(content)
    assert files.read_manifest(tmp_path / "x") is None
    assert "missing or unreadable" in files.verify_folder(tmp_path / "x")[0]


def test_a_write_that_fails_names_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        files.write_json(tmp_path / "folder", {})
    assert (error.value.filename, error.value.filename2) == (str(tmp_path / "folder"), None)
    with pytest.raises(FileNotFoundError) as missing:
        files.write_atomic(tmp_path / "none" / "a.txt", "text")
    assert missing.value.filename == str(tmp_path / "none" / "a.txt")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as no_space:
        files.write_atomic(tmp_path / "a.txt", "new")
    assert no_space.value.filename == str(tmp_path / "a.txt") and (tmp_path / "a.txt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_json_holds_no_nan(tmp_path: Path) -> None:
    value = {"psnr": math.nan, "clips": ({"a": math.inf, 3: -math.inf}, [1.5, True, None]), "path": tmp_path}
    files.write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read == {"psnr": None, "clips": [{"a": None, "3": None}, [1.5, True, None]], "path": str(tmp_path)}


def test_left_overs_of_dead_processes_are_removed_and_retired_folders_come_back(tmp_path: Path) -> None:
    dead = 2**22 + 1  # above the kernel's largest process number
    (tmp_path / f".staging-{dead}-y").mkdir()
    publish(tmp_path / "x", "old")
    (tmp_path / "x").rename(tmp_path / f".staging-{dead}-old-x")
    (tmp_path / f".staging-{dead}-z.json").write_text("half")
    files.remove_staging(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert files.verify_folder(tmp_path / "x") == []


def test_find_looks_in_the_working_directory_then_beside_the_recipe(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
        (folder / "both.pth").touch()
    (beside / "one.pth").touch()
    monkeypatch.chdir(here)
    assert files.find("both.pth", beside) == here / "both.pth"
    assert files.find("one.pth", beside) == beside / "one.pth"
    with pytest.raises(MissingFileError) as error:
        files.find("none.pth", beside, "weights file", "model.pretrained_model_path")
    for words in (str(here / "none.pth"), str(beside / "none.pth"), "model.pretrained_model_path", "weights file"):
        assert words in str(error.value)


def test_hard_links_replace_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        files.hard_link(tmp_path / name, tmp_path / "latest")
    assert (tmp_path / "latest").read_text() == "two" and (tmp_path / "latest").samefile(tmp_path / "two")
