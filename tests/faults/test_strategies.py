"""Two processes under each strategy: the fake task and the real one learn what one process learns, and change places."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.clips import make_clips
from tests.faults import tasks
from tests.faults.processes import MakeTask, Run, events, finished, quiet_recipe
from tests.faults.real import make_task
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.errors import EXIT_USER_ERROR

STRATEGIES = ["ddp", "zero2", "zero3", "fsdp2"]
SMALL: dict[str, Any] = {
    "height": 32, "width": 32, "n_frames": 8, "global_batch_size": 4, "train_batch_size": 1, "max_train_steps": 4,
    "encoder_width": 8, "decoder_widths": [16, 8, 8, 8], "checkpointing_steps": 2, "validation_steps": 4,
    "num_preview_clips": 0, "log_steps": 1, "lr_warmup_steps": 0, "device": "cpu", "cpu_threads": 1, "run_name": "run",
    "tracker_name": "none", "num_workers": 1, "mixed_precision": "no",
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"), count=6, frames=12, height=32, width=32)


def recipe(clips: Path, output: Path, **changes: Any) -> TaehvRecipe:
    return load_recipe("taehv_demo", {**SMALL, "data_root": str(clips), "output_dir": str(output), **changes})


def losses(run: Path) -> list[float]:
    return [line["losses"]["total"] for line in events(run, "step")]


@pytest.fixture(scope="module")
def alone(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real task on one process."""
    one = recipe(clips, tmp_path_factory.mktemp("alone"))
    return finished(make_task(one), one, world=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_the_real_task_as_one_does(strategy: str, clips: Path, tmp_path: Path, alone: Path) -> None:
    two = recipe(clips, tmp_path, strategy=strategy)
    run = finished(make_task(two), two)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)
    assert [line["draws"] for line in events(run, "step")] == [line["draws"] for line in events(alone, "step")]
    torch.testing.assert_close(
        load_file(run / "final_model.safetensors"), load_file(alone / "final_model.safetensors"), rtol=1e-3, atol=2e-5
    )
    measured = [events(folder, "validation")[-1]["metrics"]["psnr"] for folder in (run, alone)]
    assert measured[0] == pytest.approx(measured[1], abs=0.01)


def test_a_run_moves_from_strategy_to_strategy(tmp_path: Path) -> None:
    constant: dict[str, Any] = {"optimizer": {"lr_scheduler": "constant"}}
    whole = finished(tasks.quiet, quiet_recipe(tmp_path / "whole", **constant), world=1)
    latest = {"checkpoint": {"resume_from_checkpoint": "latest"}}
    for last, strategy, world in ((3, "zero2", 2), (6, "zero3", 1), (9, "fsdp2", 2), (12, "ddp", 1)):
        changed = {"training": {"max_train_steps": last}, "parallel": {"strategy": strategy}}
        parts = finished(tasks.quiet, quiet_recipe(tmp_path / "parts", **constant, **changed, **latest), world)
    torch.testing.assert_close(
        load_file(whole / "final_model.safetensors"), load_file(parts / "final_model.safetensors"), rtol=1e-5, atol=1e-6
    )
    assert events(whole, "step")[-1]["draws"] == events(parts, "step")[-1]["draws"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resumed_runs_are_bit_identical_under_each_strategy(strategy: str, tmp_path: Path) -> None:
    same: dict[str, Any] = {"parallel": {"strategy": strategy}, "optimizer": {"lr_scheduler": "constant"}}
    whole = finished(tasks.noisy, quiet_recipe(tmp_path / "whole", **same))
    finished(tasks.noisy, quiet_recipe(tmp_path / "parts", **same, training={"max_train_steps": 4}))
    latest = {"checkpoint": {"resume_from_checkpoint": "latest"}}
    parts = finished(tasks.noisy, quiet_recipe(tmp_path / "parts", **same, **latest))
    for name in ("model.safetensors", "ema.safetensors"):
        one, other = (load_file(run / "checkpoint-12" / name) for run in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
@pytest.mark.parametrize(
    ("make", "words"),
    [(tasks.data, "the disk with the videos is gone"), (tasks.full_disk, "is full")],
    ids=["data", "disk"],
)
def test_what_one_rank_lacks_before_a_pass_ends_both_with_its_words(
    make: MakeTask, words: str, strategy: str, tmp_path: Path
) -> None:
    with Run(make, quiet_recipe(tmp_path, parallel={"strategy": strategy})) as run:
        assert run.codes() == [EXIT_USER_ERROR] * 2, run.said(0) + run.said(1)
        assert sum(words in run.said(rank) for rank in range(2)) == 1
