"""`tinyworld check`: processes, clips per step and memory as a user sees them."""

from pathlib import Path

import pytest

from tests.cli.helpers import refused
from tinyworld.cli.main import main
from tinyworld.tasks.taehv import plan_memory as planning


def test_processes_and_memory_are_told(capsys: pytest.CaptureFixture[str], clips: Path) -> None:
    given = ["check", "taehv_demo", f"--data_root={clips}", "--gpu_memory", "40GiB", "--processes", "2"]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "8 clips per optimizer step: 4 (train_batch_size) x 1 (gradient_accumulation_steps) x 2 (processes)" in said
    assert "the largest micro-batch is 4 clips of 64 x 64 x 12 (key: data)" in said
    assert "it fits: gpu_memory=40GiB leaves 38." in said


def test_what_does_not_fit_or_divide_is_refused(capsys: pytest.CaptureFixture[str], clips: Path) -> None:
    demo = ["check", "taehv_demo", f"--data_root={clips}"]
    assert "No batch, clip size or setting" in refused(capsys, *demo, "--gpu_memory=1GiB")
    assert "Use global_batch_size=24 or 36" in refused(capsys, *demo, "--global_batch_size=32", "--processes=3")
    assert "--processes is 'x'" in refused(capsys, *demo, "--processes", "x")
    assert "given 2 times" in refused(capsys, *demo, "--processes=1", "--processes=2")


def test_the_plan_is_that_of_the_processes_that_are_named(
    capsys: pytest.CaptureFixture[str], clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    plan = planning.plan_memory
    monkeypatch.setattr(planning, "plan_memory", lambda recipe, count: asked.append(count) or plan(recipe, count))
    given = ["check", "taehv_demo", f"--data_root={clips}", "--gpu_memory=40GiB", "--processes=8", "--strategy=fsdp2"]
    assert main(given) == 0, capsys.readouterr().err
    assert asked == [8], "once, and not for the one process that checks"


def test_a_cpu_is_compared_with_its_free_memory(
    capsys: pytest.CaptureFixture[str], clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = ["check", "taehv_demo", f"--data_root={clips}"]
    monkeypatch.setattr("tinyworld.core.host_memory.available", lambda: 2**35)
    assert main([*demo, "--device=cpu"]) == 0
    said = capsys.readouterr().out
    assert "it fits: this machine's free main memory leaves 28." in said and "CUDA" not in said
    monkeypatch.setattr("tinyworld.core.host_memory.available", lambda: 2**27)
    assert "free main memory leaves it 0.11 GiB" in refused(capsys, *demo, "--device=cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(demo) == 0  # the recipe may be meant for a GPU elsewhere
    assert "warning: this machine's CPU cannot train it" in capsys.readouterr().out
