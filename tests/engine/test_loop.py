"""The engine with a fake task: what is written, exact resume, skips, signals, early stopping."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.fake import FakeTask, fake_recipe
from tinyworld.core.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError
from tinyworld.engine import checkpoint, schedule
from tinyworld.engine.loop import run_training


def events(run: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a checkpoint holds, as tensors by name."""
    found = {}
    for name in ("model", "ema"):
        found |= {f"{name}.{k}": v for k, v in load_file(folder / f"{name}.safetensors").items()}
    optimizer = torch.load(folder / "state" / "optimizer.pt", weights_only=True)
    for kind, moments in optimizer["moments"].items():
        found |= {f"adam.{kind}.{k}": v for k, v in moments.items()}
    found["updates"] = torch.tensor(optimizer["updates"])
    for name in ("helper", "helper-rank0"):
        state = torch.load(folder / "state" / f"{name}.pt", weights_only=True)
        found |= {f"{name}.{k}": torch.as_tensor(v) for k, v in state.items()}
    found["rng"] = torch.load(folder / "state" / "rng-rank0.pt", weights_only=True)["torch"]
    return found


def assert_same(first: Path, second: Path) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


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


def test_resume_is_bit_identical(tmp_path: Path) -> None:
    straight, broken = tmp_path / "a", tmp_path / "b"
    first = FakeTask()
    run_training(first, fake_recipe(straight))

    def crash(step: int) -> None:
        if step == 13:
            raise RuntimeError("power cut")

    interrupted = FakeTask()
    interrupted.step_hook = crash
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(interrupted, fake_recipe(broken))
    assert events(broken / "run", "stop")[-1]["reason"] == "error"
    torch.manual_seed(999)
    resumed = FakeTask()
    run_training(resumed, fake_recipe(broken, checkpoint={"resume_from_checkpoint": "latest"}))
    assert_same(straight / "run" / "checkpoint-20", broken / "run" / "checkpoint-20")
    assert resumed.order == first.order[-10 * first.batch :]
    histories = [json.loads((f / "run" / "validation_history.json").read_text()) for f in (straight, broken)]
    for one, other in zip(*histories, strict=True):
        assert {**one, "time": 0} == {**other, "time": 0}


@pytest.mark.parametrize("wanted", ["checkpoint-10", "path"])
def test_resume_by_name_and_path(tmp_path: Path, wanted: str) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    run = tmp_path / "run"
    before = state_of(run / "checkpoint-20")
    name = str(run / "checkpoint-10") if wanted == "path" else wanted
    run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": name}))
    after = state_of(run / "checkpoint-20")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert events(run, "start")[-1]["resumed_from"] == str(run / "checkpoint-10")


def test_latest_passes_over_a_damaged_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    run = tmp_path / "run"
    before = state_of(run / "checkpoint-20")
    with (run / "checkpoint-20" / "state" / "trainer.pt").open("r+b") as file:
        file.seek(100)
        file.write(b"\x00\x01\x02")
    run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "latest"}))
    assert "checkpoint-20 is damaged" in caplog.text
    after = state_of(run / "checkpoint-20")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_resuming_from_a_damaged_checkpoint_by_name_is_refused(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    (tmp_path / "run" / "checkpoint-10" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be resumed from.*model.safetensors has 0 bytes"):
        run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "checkpoint-10"}))


def test_other_settings_are_not_a_resume(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    with pytest.raises(CheckpointError, match="batch was 4, is now 8"):
        run_training(FakeTask(batch=8), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "latest"}))


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


def test_a_validation_cut_short_by_a_signal_is_made_up_for(tmp_path: Path) -> None:
    class Stopped(FakeTask):
        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(model, samples, device)

    with pytest.raises(Interrupted):
        run_training(Stopped(), fake_recipe(tmp_path))
    assert not (tmp_path / "run" / "validation_history.json").exists()
    outcome = run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "latest"}))
    assert [entry["step"] for entry in outcome.history] == [10, 20]


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


def test_going_back_sets_later_checkpoints_aside(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    run = tmp_path / "run"
    task = FakeTask()
    task.step_hook = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 11 else None
    back = {"resume_from_checkpoint": "checkpoint-10", "checkpoints_total_limit": 1}
    with pytest.raises(Interrupted, match="checkpoint-12"):
        run_training(task, fake_recipe(tmp_path, checkpoint=back))
    assert [path.name for path in checkpoint.listing(run)] == ["checkpoint-12"]
    assert sorted(path.name for path in run.glob("abandoned/*/*")) == ["checkpoint-15", "checkpoint-20"]
    assert not (run / "step-20.safetensors").exists()
    assert events(run, "set_aside")[0]["checkpoints"] == ["checkpoint-15", "checkpoint-20"]
    run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "latest"}))
    assert events(run, "start")[-1]["step"] == 12


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    class Stuck(FakeTask):
        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            rows = super().evaluate(model, samples, device)
            for row in rows:
                row.metrics["psnr"] = None
            return rows

    sections = {"validation": {"validation_steps": 2, "early_stopping_patience": 3}}
    assert run_training(Stuck(), fake_recipe(tmp_path, **sections)).step == 6
    again = run_training(Stuck(), fake_recipe(tmp_path, **sections, checkpoint={"resume_from_checkpoint": "latest"}))
    assert (again.reason, again.step) == ("early_stopping", 6)


def test_a_refused_resume_leaves_the_settings_of_the_run(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    before = (tmp_path / "run" / "config.yaml").read_text()
    sections = {"checkpoint": {"resume_from_checkpoint": "latest"}, "optimizer": {"learning_rate": 0.01}}
    with pytest.raises(CheckpointError):
        run_training(FakeTask(batch=8), fake_recipe(tmp_path, **sections))
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert events(tmp_path / "run", "stop")[-1]["reason"] == "error"


def test_a_start_that_failed_does_not_block_its_name(tmp_path: Path) -> None:
    class Unbuildable(FakeTask):
        def roles(self):  # type: ignore[no-untyped-def]
            raise DataError("no model")

    with pytest.raises(DataError, match="no model"):
        run_training(Unbuildable(), fake_recipe(tmp_path))
    assert events(tmp_path / "run", "stop")[0]["exit_code"] == 2
    assert run_training(FakeTask(), fake_recipe(tmp_path)).step == 20


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


def test_changed_optimizer_settings_apply_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = schedule.build_optimizer
    run_training(FakeTask(), fake_recipe(tmp_path))
    changed = {
        "optimizer": {"weight_decay": 0.5, "adam_beta2": 0.5},
        "checkpoint": {"resume_from_checkpoint": "checkpoint-10"},
    }
    made: list[torch.optim.Optimizer] = []
    monkeypatch.setattr(schedule, "build_optimizer", lambda *args: made.append(build(*args)) or made[-1])
    run_training(FakeTask(), fake_recipe(tmp_path, **changed))
    (group,) = made[0].param_groups
    assert (group["weight_decay"], group["betas"][1]) == (0.5, 0.5)


def test_averages_must_be_there_to_go_on_with_them(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path, training={"ema_decay": 0.0}))
    assert not (tmp_path / "run" / "checkpoint-20" / "ema.safetensors").exists()
    assert (tmp_path / "run" / "final_model.safetensors").samefile(
        tmp_path / "run" / "checkpoint-20" / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="--ema_decay 0"):
        run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "checkpoint-10"}))


def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    run = tmp_path / "run"
    for path in checkpoint.listing(run)[:-1]:
        shutil.rmtree(path)
    (run / "checkpoint-20").rename(run / f".staging-{2**22 + 1}-old-checkpoint-20")
    run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "latest"}))
    assert events(run, "start")[-1]["step"] == 20


def test_a_branch_of_another_run_finds_its_own_best_model(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    source = str(tmp_path / "run" / "checkpoint-10")
    branch = fake_recipe(tmp_path, run={"run_name": "branch"}, checkpoint={"resume_from_checkpoint": source})
    outcome = run_training(FakeTask(), branch)
    assert outcome.folder == tmp_path / "branch" and (outcome.folder / "best_model" / "model.safetensors").exists()
    assert [path.name for path in checkpoint.listing(tmp_path / "run")] == [f"checkpoint-{n}" for n in (5, 10, 15, 20)]
    with pytest.raises(ConfigError, match="already holds a run"):
        run_training(FakeTask(), branch)


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


def test_a_validation_that_two_signals_cut_short_is_made_up_for(tmp_path: Path) -> None:
    class Stopped(FakeTask):
        def evaluate(self, model, samples, device):  # type: ignore[no-untyped-def]
            os.kill(os.getpid(), signal.SIGTERM)
            return super().evaluate(model, samples, device)

    one_by_one = {"validation": {"validation_batch_size": 1}}
    for again in ({}, {"checkpoint": {"resume_from_checkpoint": "latest"}}):
        with pytest.raises(Interrupted, match="checkpoint-10"):
            run_training(Stopped(), fake_recipe(tmp_path, **one_by_one, **again))
    outcome = run_training(FakeTask(), fake_recipe(tmp_path, **one_by_one, **again))
    straight = run_training(FakeTask(), fake_recipe(tmp_path / "straight", **one_by_one))
    assert [entry["clips"] for entry in outcome.history] == [entry["clips"] for entry in straight.history]
    assert_same(straight.folder / "checkpoint-20", outcome.folder / "checkpoint-20")


def test_a_branch_that_ended_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    def crash(step: int) -> None:
        if step == 12:
            raise RuntimeError("power cut")

    run_training(FakeTask(), fake_recipe(tmp_path))
    source = {"checkpoint": {"resume_from_checkpoint": str(tmp_path / "run" / "checkpoint-10")}}
    branch = fake_recipe(tmp_path, run={"run_name": "branch"}, training={"log_steps": 1}, **source)
    broken = FakeTask()
    broken.step_hook = crash
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(broken, branch)
    assert events(tmp_path / "branch", "step") and not checkpoint.listing(tmp_path / "branch")
    assert run_training(FakeTask(), branch).step == 20
    with pytest.raises(ConfigError, match="already holds a run"):
        run_training(FakeTask(), branch)
