"""The engine with a fake task at its limits: memory, time, losses that change."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.fake import FakeBatch, FakeTask, fake_recipe
from tests.engine.run_files import assert_same, events
from tinyworld.core.errors import TrainingError
from tinyworld.engine import preflight
from tinyworld.engine.loop import run_training


def test_too_little_memory_for_the_table_of_shares_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def short(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(preflight, "measure", short)
    run = run_training(FakeTask(), fake_recipe(tmp_path / "a")).folder
    assert "could not be measured: too little memory" in caplog.text and not events(run, "preflight")
    monkeypatch.undo()
    assert_same(run_training(FakeTask(), fake_recipe(tmp_path / "b")).folder / "checkpoint-20", run / "checkpoint-20")


def test_a_validation_that_was_given_up_is_not_tried_again(tmp_path: Path) -> None:
    class Slow(FakeTask):
        calls = 0

        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            self.calls += 1
            time.sleep(1.1)
            return super().evaluate(model, samples, device)

    task = Slow()
    assert run_training(task, fake_recipe(tmp_path, validation={"validation_time_limit": 1})).history == []
    assert task.calls == 2, "one batch at step 10 and one at step 20"


def test_a_loss_that_is_another_from_a_milestone_on_is_no_spike(tmp_path: Path) -> None:
    class Changed(FakeTask):
        def step(self, model, batch, device, done):  # type: ignore[no-untyped-def]
            losses = super().step(model, batch, device, done)
            return replace(losses, terms={"fit": losses.terms["fit"] + (1e5 if done >= 50 else 0.0)})

    task = Changed()
    task.marks = [50]
    run = run_training(task, fake_recipe(tmp_path, training={"max_train_steps": 60})).folder
    assert not events(run, "skip")


class Measurable(FakeTask):
    """Has a memory limit to try its largest micro-batch against; at most as many samples fit as `room` says."""

    room = 99

    def dearest(self):  # type: ignore[no-untyped-def]
        return FakeBatch(torch.zeros(32, 8), ["made up"] * 32), 20

    def memory_advice(self) -> str:
        return " What fits: --train_batch_size 1"

    def step(self, model, batch, device, done):  # type: ignore[no-untyped-def]
        if len(batch.ids) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().step(model, batch, device, done)


def test_the_dearest_micro_batch_is_tried_before_step_1_and_leaves_no_trace(tmp_path: Path) -> None:
    run = run_training(Measurable(), fake_recipe(tmp_path / "a")).folder
    assert [line["step"] for line in events(run, "memory")] == [0]
    assert_same(run_training(FakeTask(), fake_recipe(tmp_path / "b")).folder / "checkpoint-20", run / "checkpoint-20")
    run_training(Measurable(), fake_recipe(tmp_path / "a", checkpoint={"resume_from_checkpoint": "checkpoint-10"}))
    assert len(events(run, "memory")) == 1, "a run that has come so far has fitted"


def test_what_does_not_fit_is_refused_before_step_1_with_what_would(tmp_path: Path) -> None:
    task = Measurable()
    task.room = 16
    with pytest.raises(TrainingError, match=r"ran out before step 1.*What fits: --train_batch_size 1"):
        run_training(task, fake_recipe(tmp_path))
    assert not events(tmp_path / "run", "step")
