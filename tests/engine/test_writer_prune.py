"""What the writer keeps and removes, where its links point, and whether the disk has room."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed
from safetensors.torch import save_file

from tests.engine.written import contents, make, names, saved
from tinyworld.core import files
from tinyworld.engine import checkpoint
from tinyworld.engine.writer import Contents


def test_prune_keeps_what_others_need(tmp_path: Path) -> None:
    run, child = tmp_path / "run", tmp_path / "child"
    saved(run, 1, 2, 3, 4, 5, 6)
    child.mkdir()
    lines = [
        {"event": "start", "resumed_from": str(run / "checkpoint-2")},
        {"event": "step", "step": 3},
        {"event": "start", "resumed_from": str(run / "checkpoint-3")},  # no start of this run: it had steps of its own
    ]
    (child / "journal.jsonl").write_text('{"event": "sta\n[]\n{}\n' + "\n".join(json.dumps(line) for line in lines))
    (run / "checkpoint-4" / "manifest.json").unlink()
    removed = checkpoint.prune(run, 2)
    assert [path.name for path in removed] == ["checkpoint-1", "checkpoint-3"]
    assert [path.name for path in checkpoint.listing(run)] == [f"checkpoint-{n}" for n in (2, 4, 5, 6)]
    assert [name for name in names(run) if name.startswith("step")] == [f"step-{n}.safetensors" for n in (2, 4, 5, 6)]
    assert checkpoint.prune(run, 0) == []


def test_prune_never_removes_the_last_that_verifies(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    for step in (2, 3):
        file = tmp_path / f"checkpoint-{step}" / "state" / "trainer.pt"
        file.write_bytes(bytes(file.stat().st_size))
    assert checkpoint.prune(tmp_path, 1) == [tmp_path / "checkpoint-2"]
    assert checkpoint.newest_good(tmp_path) == tmp_path / "checkpoint-1"


def test_the_writer_prunes_and_goes_on_when_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = make(tmp_path, keep=1, background=False)
    one.save(1, contents(), {})
    one.save(2, contents(), {})
    assert [path.name for path in checkpoint.listing(tmp_path)] == ["checkpoint-2"]

    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(files, "remove_folder", busy)
    one.save(3, contents(), {})
    assert "could not be removed" in caplog.text and [done.step for done in one.finished()] == [1, 2, 3]


def test_links_follow_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.relink(tmp_path) is None
    saved(tmp_path, 1, 2, 3)
    assert checkpoint.relink(tmp_path) == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-3" / "ema.safetensors").write_bytes(b"")
    (tmp_path / "step-2.safetensors").unlink()
    assert checkpoint.relink(tmp_path) == tmp_path / "checkpoint-2"
    for name in ("latest", "step-2"):
        assert (tmp_path / f"{name}.safetensors").samefile(tmp_path / "checkpoint-2" / "ema.safetensors")
    assert not [name for name in names(tmp_path) if name.startswith(files.STAGING_PREFIX)]


def test_too_little_room_is_known_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage, mib = shutil.disk_usage(tmp_path), 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60 * mib))
    later = tmp_path / "not" / "yet"
    assert checkpoint.space_problem(later, 10 * mib, 5) is None
    problem = checkpoint.space_problem(later, 11 * mib, 5)
    assert problem is not None
    for words in (
        "60.0 MiB free",
        "need 66.0 MiB",
        "5 of about 11.0 MiB",
        "checkpoints_total_limit to 4",
        "run.output_dir",
    ):
        assert words in problem
    assert "total_limit" not in str(checkpoint.space_problem(later, 61 * mib, 1))
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_bytes(bytes(6 * mib))
    assert checkpoint.space_problem(tmp_path, 11 * mib, 5) is None


def test_the_estimate_is_what_a_checkpoint_takes(tmp_path: Path) -> None:
    weights = {f"w{index}": torch.zeros(2**16) for index in range(4)}
    moments = [{name: tensor.clone() for name, tensor in weights.items()} for _ in ("exp_avg", "exp_avg_sq")]
    one = make(tmp_path, background=False)
    names = ("model.safetensors", "ema.safetensors")
    one.save(1, Contents({n: lambda path: save_file(weights, path) for n in names}, {"trainer": moments}, {}), {})
    (done,) = one.finished()
    need = checkpoint.bytes_of(checkpoint.tensor_bytes(weights), average=True)
    assert 0 <= need - done.bytes <= checkpoint.SMALL_FILES
