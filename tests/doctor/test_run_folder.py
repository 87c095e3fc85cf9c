"""Run folders: how they ended, what their journal and log show, damaged checkpoints."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.engine.fake import FakeTask, fake_recipe
from tinyworld.core.errors import Interrupted, MissingFileError, TrainingError
from tinyworld.core.files import staged_folder
from tinyworld.doctor import Finding, examine
from tinyworld.engine.loop import run_training


def slugs(findings: list[Finding]) -> list[str]:
    return [finding.cause.slug for finding in findings]


def journal(folder: Path, *events: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"event": "start", "step": 0}), *(json.dumps(event) for event in events), '{"event": "st']
    (folder / "journal.jsonl").write_text("\n".join(lines))
    return folder


def validation(step: int, psnr: float | None, best: bool = False, baseline: float = 9.0) -> dict[str, Any]:
    return {
        "event": "validation", "step": step, "metrics": {"psnr": psnr}, "baseline": {"psnr": baseline}, "best": best,
    }  # fmt: skip


STOP = {"event": "stop", "step": 9, "reason": "finished", "message": "", "exit_code": 0}


def test_a_healthy_run_has_no_findings(tmp_path: Path) -> None:
    run_training(FakeTask(), fake_recipe(tmp_path, validation={"validation_steps": 20}))
    assert examine(tmp_path / "run") == ("finished at step 20", [])


def test_a_stopped_run_says_so_and_a_finished_resume_is_healthy(tmp_path: Path) -> None:
    task = FakeTask()
    task.step_hook = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 7 else None
    sections = {"validation": {"validation_steps": 20}}
    with pytest.raises(Interrupted):
        run_training(task, fake_recipe(tmp_path, **sections))
    outcome, findings = examine(tmp_path / "run")
    assert outcome.startswith("ended by a signal, everything saved at step 8") and slugs(findings) == ["terminated"]
    run_training(FakeTask(), fake_recipe(tmp_path, **sections, checkpoint={"resume_from_checkpoint": "latest"}))
    assert examine(tmp_path / "run") == ("finished at step 20", [])


def test_skipped_steps_are_counted_with_their_clips(tmp_path: Path) -> None:
    sections = {"training": {"max_skipped_steps": 3}}
    with pytest.raises(TrainingError):
        run_training(FakeTask(poison=frozenset(range(5, 20))), fake_recipe(tmp_path, **sections))
    outcome, findings = examine(tmp_path / "run")
    assert outcome.startswith("ended by an error at step 8: TrainingError: 4 steps in a row")
    assert slugs(findings)[0] == "non-finite"
    run_training(FakeTask(poison=frozenset({6})), fake_recipe(tmp_path / "b"))
    finding = next(f for f in examine(tmp_path / "b" / "run")[1] if f.cause.slug == "non-finite")
    assert finding.evidence.startswith("1 steps skipped, the last one 7:") and "6-0" in finding.evidence


def test_an_error_in_the_journal_is_explained(tmp_path: Path) -> None:
    message = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    run = journal(tmp_path / "run", STOP | {"reason": "error", "message": message, "exit_code": 1})
    outcome, findings = examine(run)
    assert outcome == f"ended by an error at step 9: {message}" and slugs(findings) == ["gpu-memory"]


def test_a_run_without_a_last_word_is_told_from_one_that_resumed(tmp_path: Path) -> None:
    run = journal(tmp_path / "run", {"event": "step", "step": 5})
    outcome, (finding,) = examine(run)
    assert "no last word" in outcome and finding.cause.slug == "no-last-word" and "--run_name run" in finding.now
    assert examine(journal(run, {"event": "step", "step": 5}, {"event": "start", "step": 5}, STOP))[1] == []


def test_restarts_are_told_with_their_last_cause_and_the_goodput(tmp_path: Path) -> None:
    pace = {"seconds_per_step": 1.0, "data_seconds": 0.0}
    events = [{"event": "start", "step": 0, "time": 0}, {"event": "step", "step": 8, "time": 8, **pace}]
    events += [{"event": "restart", "step": 8, "time": 8, "cause": "killed by SIGKILL", "pause": 1.0}]
    events += [{"event": "start", "step": 8, "time": 9}, {"event": "step", "step": 9, "time": 10, **pace}]
    outcome, _ = examine(journal(tmp_path / "run", *events, STOP | {"time": 10}))
    assert outcome == "finished at step 9; restarted 1 time, the last time after killed by SIGKILL; goodput 90%"


def test_validations_without_improvement_and_below_the_baseline(tmp_path: Path) -> None:
    entries = [validation(10, 20.0, best=True), *(validation(10 * n, 19.0) for n in range(2, 5))]
    (finding,) = examine(journal(tmp_path / "a", *entries, STOP))[1]
    assert finding.cause.slug == "no-improvement" and "3 validations" in finding.why and "step 10" in finding.why
    assert examine(journal(tmp_path / "b", *entries[:3], STOP))[1] == []
    dark = [validation(10, 4.0, best=True), validation(20, 4.2, best=True)]
    (finding,) = examine(journal(tmp_path / "c", *dark, STOP))[1]
    assert finding.cause.slug == "below-baseline" and "4.2 dB against 9.0 dB" in finding.why
    unmeasured = [validation(10 * n, None) for n in range(1, 5)]
    assert slugs(examine(journal(tmp_path / "d", *unmeasured, STOP))[1]) == ["no-improvement"]


def test_a_clip_that_was_set_aside_is_named(tmp_path: Path) -> None:
    fault = {"event": "quarantine", "step": 3, "path": "cut.mp4", "reason": "the file ends early"}
    (finding,) = examine(journal(tmp_path / "run", fault, STOP))[1]
    assert finding.cause.slug == "broken-video" and "cut.mp4" in finding.evidence


def test_empty_and_damaged_checkpoints_are_found_and_good_ones_are_not(tmp_path: Path) -> None:
    run = journal(tmp_path / "run", STOP)
    with staged_folder(run / "checkpoint-3") as folder:
        (folder / "model.safetensors").write_bytes(b"weights")
    assert examine(run)[1] == []
    (run / "checkpoint-500").mkdir()
    (finding,) = examine(run)[1]
    assert finding.cause.guide_error == 7 and finding.evidence == "1 of 2 checkpoints: checkpoint-500 is empty"
    (run / "checkpoint-500").rmdir()
    (run / "checkpoint-3" / "model.safetensors").write_bytes(b"WEIGHTS")
    assert "SHA-256" in examine(run)[1][0].evidence


def test_only_the_last_process_of_a_log_counts(tmp_path: Path) -> None:
    run = journal(tmp_path / "run", STOP)
    old = "t INFO run folder: run\nt ERROR CUDA out of memory\n"
    (run / "training.log").write_text(old + "t INFO run folder: run\nt INFO fine\n")
    assert examine(run)[1] == []
    (run / "training.log").write_text("t INFO run folder: run\nt INFO fine\n" + old)
    (finding,) = examine(run)[1]
    assert finding.place == "training.log line 4"


def test_a_folder_of_another_program_is_read_by_its_logs(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("WARNING - Frame count 19 is not divisible by n_seraena_frames 4\n")
    assert [finding.cause.guide_error for finding in examine(tmp_path)[1]] == [15]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="not a run folder"):
        examine(tmp_path)
