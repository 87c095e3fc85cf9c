"""`tinyworld data verify` and `tinyworld data prepare`: what they print, write, refuse and return."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyworld.cli.commands.data_worlds import add_parsers
from tinyworld.core.errors import EXIT_USER_ERROR, DataError, MissingFileError
from tinyworld.core.geometry import inverse
from tinyworld.data.rooms import make_rooms
from tinyworld.data.worlds.conventions import inverted
from tinyworld.media.camera_files import read_cameras, write_cameras
from tinyworld.media.depth_files import read_depth
from tinyworld.media.read import iter_frames

SIZE = (64, 80)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rooms(tmp_path_factory.mktemp("rooms") / "set", 2, 8, *SIZE, fps=8, points=False, workers=1)


def run(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers(dest="action", required=True))
    options = parser.parse_args([str(part) for part in argv])
    return int(options.run(options))


def test_verify_prints_and_writes(rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--pairs", "2", "--json", str(tmp_path / "n.json"), "--picture", str(tmp_path / "p.png")]
    assert run("verify", rooms, *given) == 0
    said = capsys.readouterr().out
    assert "2 samples: 2 ok, 0 warning, 0 bad" in said
    assert said.splitlines()[0].split()[:3] == ["id", "frames", "photometric"]
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert [len(item["pairs"]) for item in numbers] == [2, 2]
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size[1] == 2 * 174


def test_a_bad_sample_ends_with_code_2(rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(rooms, tmp_path / "set")
    file = tmp_path / "set" / "sample_001" / "camera_params.txt"
    write_cameras(file, inverted(read_cameras(file, *SIZE)), "17")
    assert run("verify", tmp_path / "set") == EXIT_USER_ERROR
    said = capsys.readouterr().out
    assert "bad: poses are camera-to-world" in said and "2 samples: 1 ok, 0 warning, 1 bad" in said
    listed = json.loads((rooms / "metadata.json").read_text())[1]
    (tmp_path / "one.json").write_text(json.dumps([listed]))
    only = ["--dataset_metadata_path", tmp_path / "one.json", "--camera_convention", "c2w"]
    assert run("verify", tmp_path / "set", *only) == 0


def test_what_cannot_be_written_is_found_before_the_work(rooms: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="--json"):
        run("verify", rooms, "--json", tmp_path / "absent" / "n.json")
    with pytest.raises(DataError, match="no samples"):
        (tmp_path / "metadata.json").write_text("[]")
        run("verify", tmp_path)
    with pytest.raises(SystemExit):
        run("verify", rooms, "--pairs", "0")


def test_prepare_then_verify(rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample, source = rooms / "sample_001", tmp_path / "chess" / "seq-01"
    source.mkdir(parents=True)
    cameras = read_cameras(sample / "camera_params.txt", *SIZE)
    c2w = inverse(cameras.extrinsics).numpy()
    depth_files = sorted((sample / "depth").iterdir())
    for k, frame in enumerate(iter_frames(sample / "video.mp4")):
        stem = source / f"frame-{k:06d}"
        Image.fromarray(frame).save(f"{stem}.color.png")
        Image.fromarray(np.rint(read_depth(depth_files[k]) * 1000).astype(np.uint16)).save(f"{stem}.depth.png")
        np.savetxt(f"{stem}.pose.txt", np.concatenate([c2w[k], [[0, 0, 0, 1]]]))
    intrinsics = [f"{float(value):.6f}" for value in cameras.intrinsics[0]]
    out = tmp_path / "out"
    assert run("prepare", "7scenes", tmp_path / "chess", out, "--intrinsics", *intrinsics, "--max_frames", "6") == 0
    said = capsys.readouterr().out
    assert "sample_000: 6 frames of chess/seq-01" in said and f"tinyworld data verify {out}" in said
    assert run("verify", out) == 0
    with pytest.raises(DataError, match="not replaced"):
        run("prepare", "7scenes", tmp_path / "chess", out)
    with pytest.raises(MissingFileError, match="no TUM sequence"):
        run("prepare", "tum", tmp_path / "chess", tmp_path / "other")
    with pytest.raises(MissingFileError, match="no camera lists"):
        run("prepare", "re10k", tmp_path / "chess", tmp_path / "chess", tmp_path / "other")


def test_help_names_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("prepare", "--help")
    said = capsys.readouterr().out
    assert end.value.code == 0 and all(name in said for name in ("tum", "7scenes", "re10k"))
