"""What a task tells beside its losses: numbers of some samples alone, and remarks; and a checkpoint named by its link."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.fake import FakeTask, fake_recipe
from tinyworld.core.errors import CheckpointError
from tinyworld.engine import checkpoint
from tinyworld.engine.loop import run_training
from tinyworld.engine.meters import COUNT, SUM, quotients
from tinyworld.engine.task import Losses


class Telling(FakeTask):
    """Every other micro-batch has one sample that tells 3 and one that tells 5; the others none."""

    calls = 0

    def step(self, model: nn.Module, batch: Any, device: torch.device, done: int) -> Losses:
        losses = super().step(model, batch, device, done)
        self.calls += 1
        some = float(self.calls % 2)
        losses.levels = {"odd": (torch.tensor(8.0 * some), torch.tensor(2.0 * some)), "never": (torch.zeros(()),) * 2}
        return losses

    def remarks(self, step: int, means: Mapping[str, float]) -> list[str]:
        return [f"odd is {means['odd']:g}"] if step >= 10 else []


def test_what_only_some_samples_tell_is_a_mean_over_them(tmp_path: Path) -> None:
    run_training(Telling(), fake_recipe(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert {line["odd"] for line in steps} == {4.0}
    assert all("never" not in line and not any(name.endswith((SUM, COUNT)) for name in line) for line in steps)
    log = (tmp_path / "run" / "training.log").read_text()
    assert log.count("warning: odd is 4") == 1


def test_quotients_leave_out_what_was_not_counted() -> None:
    assert quotients({"a": 1.0, f"b{SUM}": 6.0, f"b{COUNT}": 3.0, f"c{SUM}": 0.0, f"c{COUNT}": 0.0}) == {
        "a": 1.0,
        "b": 2.0,
    }


def test_a_checkpoint_may_be_named_by_the_link_to_its_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_training(FakeTask(), fake_recipe(tmp_path, training={"max_train_steps": 10}))
    assert checkpoint.linked_to(run / "step-5.safetensors") == run / "checkpoint-5"
    link = str(run / "latest.safetensors")
    outcome = run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": link}))
    assert (outcome.folder, outcome.step) == (run, 20)
    starts = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines() if '"start"' in line]
    assert starts[-1]["resumed_from"].endswith("checkpoint-10")
    (tmp_path / "alone.safetensors").write_bytes((run / "latest.safetensors").read_bytes())
    alone = {"resume_from_checkpoint": str(tmp_path / "alone.safetensors")}
    with pytest.raises(CheckpointError, match="holds weights alone and cannot be resumed"):
        run_training(FakeTask(), fake_recipe(tmp_path / "c", checkpoint=alone))


class Following(FakeTask):
    """A stage that begins from the weights of another run."""

    parent: Path

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "parent_checkpoint": str(checkpoint.linked_to(self.parent))}


def test_the_weights_that_a_later_stage_began_from_are_not_pruned(tmp_path: Path) -> None:
    first = fake_recipe(tmp_path, run={"run_name": "first"}, training={"max_train_steps": 10})
    run_training(FakeTask(), first)
    second = Following()
    second.parent = tmp_path / "first" / "step-5.safetensors"
    run_training(second, fake_recipe(tmp_path, run={"run_name": "second"}, training={"max_train_steps": 5}))
    more = {"resume_from_checkpoint": "latest", "checkpoints_total_limit": 1}
    run_training(FakeTask(), fake_recipe(tmp_path, run={"run_name": "first"}, checkpoint=more))
    assert [path.name for path in checkpoint.listing(tmp_path / "first")] == ["checkpoint-5", "checkpoint-20"]
    assert second.parent.is_file()
