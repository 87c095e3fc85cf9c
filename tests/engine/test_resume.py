"""The engine with a fake task: exact resume, what may not be resumed, branches of other runs."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.engine.fake import FakeTask, fake_recipe
from tests.engine.run_files import assert_same, events, state_of
from tinyworld.core.errors import CheckpointError, ConfigError, DataError, Interrupted
from tinyworld.core.version import __version__
from tinyworld.engine import checkpoint, schedule
from tinyworld.engine.loop import run_training


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


def test_a_checkpoint_of_another_version_is_said_to_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    manifest = tmp_path / "run" / "checkpoint-20" / "manifest.json"
    values = json.loads(manifest.read_text())
    assert values["tinyworld_version"] == __version__
    manifest.write_text(json.dumps(values | {"tinyworld_version": "0.0.1"}))
    run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "latest"}))
    assert f"checkpoint-20 was written by tinyworld 0.0.1, this is {__version__}" in caplog.text


def test_a_refused_resume_names_the_keys_that_were_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    again = fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "latest"}, training={"train_batch_size": 8})
    before = fake_recipe(tmp_path).training.train_batch_size
    with pytest.raises(CheckpointError, match=f"training.train_batch_size was {before}, is now 8") as refused:
        run_training(FakeTask(batch=8), again)
    assert (
        "batch was 4" not in str(refused.value).replace("train_batch_size was 4", "")
        and "stopped by" not in caplog.text
    )
    (tmp_path / "run" / "config.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match="batch was 4, is now 8"):
        run_training(FakeTask(batch=8), again)


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path))
    weights = tmp_path / "best_model"
    weights.mkdir()
    shutil.copy(tmp_path / "run" / "checkpoint-20" / "model.safetensors", weights)
    (weights / "manifest.json").write_text(json.dumps({"files": {}, "step": 20}))
    for path in (weights, weights / "model.safetensors"):
        with pytest.raises(CheckpointError, match=f"holds weights alone.*--pretrained_model_path {path}"):
            run_training(FakeTask(), fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": str(path)}))
