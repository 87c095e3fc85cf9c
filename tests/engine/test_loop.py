"""The engine with a fake task: what is written, skips, signals, early stopping."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.fake import FakeTask, fake_recipe
from tests.engine.run_files import assert_same, events
from tinyworld.core.errors import ConfigError, DataError, Interrupted, TrainingError
from tinyworld.engine import checkpoint
from tinyworld.engine.loop import run_training


def test_a_run_leaves_what_it_promises(tmp_path: Path) -> None:
    outcome = run_training(FakeTask(), fake_recipe(tmp_path))
    run = tmp_path / "run"
    assert (outcome.reason, outcome.step, outcome.folder) == ("finished", 20, run)
    assert [path.name for path in checkpoint.listing(run)] == [f"checkpoint-{n}" for n in (5, 10, 15, 20)]
    for name in ("config.yaml", "training.log", "validation_history.json", "best_model/model_info.json"):
        assert (run / name).stat().st_size > 0
    assert (run / "latest.safetensors").samefile(run / "step-20.safetensors")
    assert (run / "final_model.safetensors").samefile(run / "checkpoint-20" / "ema.safetensors")
    history = json.loads((run / "validation_history.json").read_text())
    assert [entry["step"] for entry in history] == [10, 20]
    assert history[-1]["lpips"] is None and len(history[-1]["by"]) == 2 and len(history[-1]["clips"]) == 3
    steps = events(run, "step")
    assert [line["step"] for line in steps] == [5, 10, 15, 20]
    assert steps[-1]["losses"]["total"] < steps[0]["losses"]["total"]
    assert events(run, "stop")[-1]["reason"] == "finished"
    assert sorted(p.name for p in (run / "previews").iterdir()) == ["step-20"]


def test_an_existing_run_is_not_written_over(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    with pytest.raises(ConfigError, match="already holds a run"):
        run_training(FakeTask(), fake_recipe(tmp_path))


def test_old_checkpoints_are_pruned_with_their_links(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"checkpoints_total_limit": 2}))
    run = tmp_path / "run"
    assert [path.name for path in checkpoint.listing(run)] == ["checkpoint-15", "checkpoint-20"]
    assert sorted(p.name for p in run.glob("step-*.safetensors")) == ["step-15.safetensors", "step-20.safetensors"]


def test_a_non_finite_step_is_skipped_and_recorded(tmp_path: Path) -> None:
    run_training(FakeTask(poison=frozenset({6})), fake_recipe(tmp_path))
    skips = events(tmp_path / "run", "skip")
    assert [(line["step"], line["ids"][0]) for line in skips] == [(7, "6-0")]
    assert all(torch.isfinite(v).all() for v in load_file(tmp_path / "run" / "final_model.safetensors").values())


def test_endless_non_finite_steps_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="4 steps in a row up to step 9.*max_skipped_steps=3"):
        run_training(FakeTask(poison=frozenset(range(5, 20))), fake_recipe(tmp_path, training={"max_skipped_steps": 3}))
    assert events(tmp_path / "run", "stop")[-1]["exit_code"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(tmp_path: Path, number: signal.Signals) -> None:
    straight = run_training(FakeTask(), fake_recipe(tmp_path / "a"))
    task = FakeTask()
    task.step_hook = lambda step: os.kill(os.getpid(), number) if step == 7 else None
    with pytest.raises(Interrupted, match=number.name):
        run_training(task, fake_recipe(tmp_path / "b"))
    run = tmp_path / "b" / "run"
    assert [path.name for path in checkpoint.listing(run)] == ["checkpoint-5", "checkpoint-8"]
    assert events(run, "stop")[-1] | {"time": 0} == {
        "event": "stop", "time": 0, "step": 8, "reason": "signal", "exit_code": 75,
        "message": f"stopped by {number.name}; saved {run / 'checkpoint-8'}",
    }  # fmt: skip
    run_training(FakeTask(), fake_recipe(tmp_path / "b", checkpoint={"resume_from_checkpoint": "latest"}))
    assert_same(straight.folder / "checkpoint-20", run / "checkpoint-20")


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    class Quiet(FakeTask):
        def step(self, model, batch, device, done):  # type: ignore[no-untyped-def]
            from tinyworld.engine.task import Losses

            return Losses({"fit": (model(batch.inputs) - batch.inputs.sum(1, keepdim=True)).square().mean()})

    one = run_training(Quiet(batch=8), fake_recipe(tmp_path / "a"))
    two = run_training(
        Quiet(batch=4, accumulation=2), fake_recipe(tmp_path / "b", training={"gradient_accumulation_steps": 2})
    )
    pairs = [load_file(outcome.folder / "final_model.safetensors") for outcome in (one, two)]
    for name, value in pairs[0].items():
        torch.testing.assert_close(value, pairs[1][name])


def test_early_stopping_counts_validations_without_improvement(tmp_path: Path) -> None:
    class Stuck(FakeTask):
        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            rows = super().evaluate(model, samples, device)
            for row in rows:
                row.metrics["psnr"] = 1.0
            return rows

    recipe = fake_recipe(tmp_path, validation={"validation_steps": 2, "early_stopping_patience": 3})
    outcome = run_training(Stuck(), recipe)
    assert (outcome.reason, outcome.step) == ("early_stopping", 8)
    info = json.loads((outcome.folder / "best_model" / "model_info.json").read_text())
    assert info["step"] == 2


def test_too_many_broken_clips_stop_the_run(tmp_path: Path) -> None:
    class Broken(FakeTask):
        def batches(self, *args):  # type: ignore[no-untyped-def]
            for step, batches in enumerate(super().batches(*args)):
                batches[0].faults.append((f"clip{step}.mp4", "cannot be decoded"))
                yield batches

    with pytest.raises(DataError):
        run_training(Broken(), fake_recipe(tmp_path))
    assert [line["path"] for line in events(tmp_path / "run", "quarantine")] == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]


def test_evaluation_leaves_training_untouched(tmp_path: Path) -> None:
    often = fake_recipe(tmp_path / "a", validation={"validation_steps": 1})
    never = fake_recipe(tmp_path / "b", validation={"validation_steps": 20})
    assert_same(
        run_training(FakeTask(), often).folder / "checkpoint-20",
        run_training(FakeTask(), never).folder / "checkpoint-20",
    )


def test_tensorboard_is_written(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path, run={"tracker_name": "tensorboard"}))
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


def test_a_signal_in_the_last_validation_is_not_swallowed(tmp_path: Path) -> None:
    class Stopped(FakeTask):
        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(model, samples, device)

    never = {"validation": {"validation_steps": 1000}}
    with pytest.raises(Interrupted):
        run_training(Stopped(), fake_recipe(tmp_path, **never))
    outcome = run_training(FakeTask(), fake_recipe(tmp_path, **never, checkpoint={"resume_from_checkpoint": "latest"}))
    assert [entry["step"] for entry in outcome.history] == [20]


def test_after_a_milestone_the_best_model_is_looked_for_anew(tmp_path: Path) -> None:
    class Worse(FakeTask):
        """Its metric falls from the milestone on, as PSNR does under an adversary."""

        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            rows = super().evaluate(model, samples, device)
            scores.append(-float(len(scores)))
            return [replace(row, metrics={**row.metrics, "psnr": scores[-1]}) for row in rows]

    def run(name: str, marks: list[int]) -> dict[str, Any]:
        scores.clear()
        task = Worse()
        task.marks = marks
        validation = {"validation_steps": 5, "early_stopping_patience": 3, "validation_batch_size": 3}
        outcome = run_training(task, fake_recipe(tmp_path / name, validation=validation))
        info = json.loads((outcome.folder / "best_model" / "model_info.json").read_text())
        return {"step": info["step"], "reason": outcome.reason}

    scores: list[float] = []
    assert run("plain", []) == {"step": 5, "reason": "early_stopping"}
    assert run("marked", [8]) == {"step": 10, "reason": "finished"}
