"""One rank of two meets a fault in a step: both do the same, and both end with the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.faults import tasks
from tests.faults.processes import Run, events, finished, quiet_recipe, weights_of
from tinyworld.core.errors import EXIT_USER_ERROR
from tinyworld.engine import checkpoint


def weights(run: Path, name: str = "final_model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(run / name)


def close(one: Path, other: Path) -> None:
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-5, atol=1e-6)


def both_hold_the_same(folder: Path) -> bool:
    """Whether both ranks ended with equal weights, bit for bit."""
    one, two = (torch.load(weights_of(quiet_recipe(folder), rank), weights_only=True) for rank in range(2))
    return all(torch.equal(one[name], two[name]) for name in one)


def test_two_processes_train_as_one_does_on_the_same_global_batches(tmp_path: Path) -> None:
    one = finished(tasks.quiet, quiet_recipe(tmp_path / "one"), world=1)
    two = finished(tasks.quiet, quiet_recipe(tmp_path / "two"))
    close(one, two)
    steps = [events(run, "step") for run in (one, two)]
    assert [line["draws"] for line in steps[0]] == [line["draws"] for line in steps[1]], "the same samples in each step"
    assert [line["samples_seen"] for line in steps[0]] == [line["samples_seen"] for line in steps[1]]
    for mine, theirs in zip(*steps, strict=True):
        assert mine["losses"]["total"] == pytest.approx(theirs["losses"]["total"], rel=1e-5)


@pytest.mark.parametrize("first, second", [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, first: int, second: int) -> None:
    whole = finished(tasks.quiet, quiet_recipe(tmp_path / "whole"), world=1)
    start = {"training": {"max_train_steps": 4}}
    finished(tasks.quiet, quiet_recipe(tmp_path / "parts", **start), world=first)
    again = {"checkpoint": {"resume_from_checkpoint": "latest"}}
    parts = finished(tasks.quiet, quiet_recipe(tmp_path / "parts", **again), world=second)
    close(whole, parts)
    assert events(whole, "step")[-1]["draws"] == events(parts, "step")[-1]["draws"]


def test_a_broken_number_on_one_rank_skips_the_step_on_both(tmp_path: Path) -> None:
    run = finished(tasks.nan, quiet_recipe(tmp_path))
    (skip,) = events(run, "skip")
    assert skip["step"] == 7 and len(skip["ids"]) == 8 and skip["capsule"] == "step-7"
    assert all(value.isfinite().all() for value in weights(run).values()) and both_hold_the_same(tmp_path)
    straight = finished(tasks.quiet, quiet_recipe(tmp_path / "straight"))
    assert not torch.equal(weights(run)["weight"], weights(straight)["weight"])


def test_too_little_memory_on_one_rank_makes_both_take_smaller_parts(tmp_path: Path) -> None:
    run = finished(tasks.memory, quiet_recipe(tmp_path))
    (shrink,) = events(run, "shrink")
    assert (shrink["step"], shrink["clips"], shrink["clips_at_once"]) == (7, 4, 2) and both_hold_the_same(tmp_path)
    close(run, finished(tasks.quiet, quiet_recipe(tmp_path / "straight")))


@pytest.mark.parametrize(
    "make, code, words",
    [
        (tasks.no_memory_at_all, EXIT_USER_ERROR, "does not fit into memory even with one clip"),
        (tasks.code, 1, "shapes do not fit"),
        (tasks.data, EXIT_USER_ERROR, "the disk with the videos is gone"),
        (tasks.cannot_evaluate, 1, "a held-out clip of another shape"),
    ],
    ids=["memory", "code", "data", "validation"],
)
def test_an_error_on_one_rank_ends_both_and_is_told_once(tmp_path: Path, make, code: int, words: str) -> None:  # type: ignore[no-untyped-def]
    with Run(make, quiet_recipe(tmp_path)) as run:
        assert run.codes() == [code, code], run.said(0) + run.said(1)
        told = [run.said(rank).count(words) for rank in range(2)]
    assert sum(count > 0 for count in told) >= 1
    if code == EXIT_USER_ERROR:
        assert sum("error: " in run.said(rank) for rank in range(2)) == 1
    (stop,) = events(run.folder, "stop")
    assert (stop["reason"], stop["exit_code"]) == ("error", code) and words in stop["message"]
    assert checkpoint.newest_good(run.folder) == run.folder / "checkpoint-4"


def test_a_full_disk_ends_both_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    with Run(tasks.full_disk, quiet_recipe(tmp_path)) as run:
        assert run.codes() == [EXIT_USER_ERROR] * 2
        told = [run.said(rank).count("is full. A checkpoint needs") for rank in range(2)]
        assert sorted(told) == [0, 1]
    assert [path.name for path in checkpoint.listing(run.folder)] == ["checkpoint-4"]
    assert not list(run.folder.glob(".staging*"))
