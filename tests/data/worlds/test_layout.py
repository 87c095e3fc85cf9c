"""Which samples there are: both forms of metadata.json, the search, and every refusal by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from tinyworld.core.errors import DataError, MissingFileError
from tinyworld.data.worlds.layout import list_worlds


def make_sample(root: Path, name: str, points: bool = False) -> None:
    (root / name / "depth").mkdir(parents=True)
    (root / name / "video.mp4").touch()
    (root / name / "camera_params.txt").touch()
    if points:
        (root / name / "points").mkdir()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_sample(tmp_path, "sample_001", points=True)
    make_sample(tmp_path, "sample_002")
    return tmp_path


def sample(name: str = "sample_001", **changes: Any) -> dict[str, Any]:
    known = {"video": f"{name}/video.mp4", "depth_dir": f"{name}/depth", "camera_params": f"{name}/camera_params.txt"}
    return {key: value for key, value in (known | changes).items() if value is not ...}


def write(root: Path, value: Any) -> None:
    (root / "metadata.json").write_text(json.dumps(value), encoding="utf-8")


def refusal(root: Path, *items: Any) -> str:
    write(root, list(items))
    with pytest.raises(DataError) as caught:
        list_worlds(root)
    return str(caught.value)


def test_the_object_form(root: Path) -> None:
    first = {
        "id": "one", "video_path": "sample_001/video.mp4", "depth_dir": "sample_001/depth", "points_dir": "sample_001/points",
        "camera_file": "sample_001/camera_params.txt", "num_frames": 81, "height": 336, "width": 592, "fps": 16,
    }  # fmt: skip
    write(root, {"version": "1.0", "samples": [first], "splits": {"train": ["one"]}, "statistics": {}})
    (entry,) = list_worlds(root)
    folder = root / "sample_001"
    assert (entry.id, entry.scene, entry.caption) == ("one", "one", "")
    assert (entry.video, entry.depth, entry.points) == (folder / "video.mp4", folder / "depth", folder / "points")
    assert entry.cameras == folder / "camera_params.txt"
    assert (entry.promised_frames, entry.promised_size, entry.fps, entry.convention) == (81, (336, 592), 16.0, None)


def test_the_list_form(root: Path) -> None:
    items = [
        {
            "video": f"{name}/video.mp4", "prompt": f"a {name}", "depth": f"{name}/depth", "points": points,
            "camera_params": f"{name}/camera_params.txt", "camera_convention": "c2w", "scene": 7,
        }
        for name, points in (("sample_002", None), ("sample_001", "sample_001/points"))
    ]  # fmt: skip
    write(root, items)
    entries = list_worlds(root)
    assert [entry.id for entry in entries] == ["sample_002", "sample_001"]
    assert [entry.points for entry in entries] == [None, root / "sample_001" / "points"]
    assert [(e.caption, e.convention, e.scene, e.promised_frames) for e in entries] == [
        ("a sample_002", "c2w", "7", None),
        ("a sample_001", "c2w", "7", None),
    ]


def test_metadata_may_lie_elsewhere(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, [sample("sample_002")])
    assert [entry.id for entry in list_worlds(root, elsewhere / "metadata.json")] == ["sample_002"]
    with pytest.raises(MissingFileError, match=r"data\.dataset_metadata_path"):
        list_worlds(root, elsewhere / "absent.json")
    with pytest.raises(MissingFileError, match=r"data\.dataset_base_path"):
        list_worlds(root / "absent")


def test_folders_are_found_without_metadata(root: Path) -> None:
    (root / "notes").mkdir()
    entries = list_worlds(root)
    assert [(entry.id, entry.scene) for entry in entries] == [(f"sample_00{n}", f"sample_00{n}") for n in (1, 2)]
    assert [entry.points is None for entry in entries] == [False, True]
    (root / "sample_002" / "video.mp4").unlink()
    with pytest.raises(DataError, match=r"sample 1 \(sample_002\): video 'sample_002/video.mp4': there is no file"):
        list_worlds(root)


def test_a_folder_of_nothing_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no metadata\.json, and no folders sample_xxx/ with video\.mp4"):
        list_worlds(tmp_path)


def test_the_rooms_are_read(rooms: Path) -> None:
    entries = list_worlds(rooms)
    assert [entry.scene for entry in entries] == ["room_5_0", "room_5_1", "room_5_2"]
    assert all(entry.points is not None and entry.caption and entry.promised_frames == 9 for entry in entries)


def test_all_faults_of_all_samples_are_told_at_once(root: Path) -> None:
    text = refusal(
        root,
        sample(id="a", camera_params=...),
        sample("sample_002", num_frames="nine", fps=-24, caption=3, camera_convention="w2w", height=0),
        "sample_001/video.mp4",
    )
    assert "3 of 3 samples" in text
    assert "sample 0 (a): no camera file (key camera_params or camera_file)" in text
    assert "sample 2: an object is needed, not text" in text
    for fault in (
        "num_frames must be a whole number of at least 1, not 'nine'",
        "fps must be a number above 0, not -24",
        "caption must be text, not a number",
        "camera_convention must be one of w2c, c2w, not 'w2w'",
        "height must be a whole number of at least 1, not 0",
    ):
        assert fault in text
    assert "… and 2 more" in refusal(root, *[sample(id=n, video=...) for n in range(12)])


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("../outside.txt", "leaves the data folder"),
        ("sample_001/../../outside.txt", "leaves the data folder"),
        ("/etc/passwd", "is an absolute path"),
        ("C:\\cameras.txt", "is an absolute path"),
        ("sample_001/depth", "there is no file"),
        ("a\0b", "is not a path"),
        ("x" * 5000, "cannot be looked at"),
    ],
)
def test_paths_stay_inside(path: str, fault: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Path] = []
    real = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: looked_at.append(self) or real(self))
    assert fault in refusal(root, sample(camera_params=path))
    assert all(root in seen.parents for seen in looked_at)


def test_nothing_comes_twice(root: Path) -> None:
    text = refusal(root, sample(id="a"), sample(id="b"), sample("sample_002", id="a"))
    assert "the id 'a' is given to 2 samples" in text
    assert f"the video {root / 'sample_001' / 'video.mp4'} is listed 2 times" in text


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("missing_keys", r"\(sample_900\): no camera file"),
        (
            "path_traversal",
            r"\(sample_900\): video .* leaves the data folder .* camera_params .* leaves the data folder",
        ),
        ("absolute_path", r"\(sample_900\): camera_params '/etc/passwd' is an absolute path"),
        ("duplicate_ids", r"the id 'sample_900' is given to 2 samples"),
        ("non_utf8", r"not UTF-8 text"),
        ("truncated_json", r"not JSON"),
        ("not_a_list", r"must be a list of objects, not an object \(sample_900\)"),
        ("wrong_types", r"\(sample_900\): num_frames .*'nine'; fps .*-24"),
        ("missing_files", r"\(sample_900\): video 'sample_900/absent.mp4': there is no file"),
        ("empty_list", r"no samples"),
    ],
)
def test_broken_metadata(name: str, fault: str, shared: Path) -> None:
    with pytest.raises(DataError, match=fault):
        list_worlds(shared / "data/broken/rgbd" / f"meta_{name}")
