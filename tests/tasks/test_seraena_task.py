"""Seraena in the taehv task: the size of its gradient, its start, its memory over a resume, and its failures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.tasks.conftest import MakeRecipe
from tinyworld.core.errors import TrainingError
from tinyworld.engine.loop import run_training
from tinyworld.tasks.taehv import TaehvTask

CPU = torch.device("cpu")
SERAENA = {"use_seraena": True, "seraena_width": 8, "seraena_buffer_mb": 1, "seraena_ramp_steps": 4}


def test_its_gradient_is_the_stated_multiple_of_the_reconstructions(distil: MakeRecipe) -> None:
    task = TaehvTask(distil(**SERAENA, seraena_loss_weight=0.3, flicker_loss_weight=0.0))
    plan = task.plan(12)
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 12, 3, 32, 32, generator=generator)
    decoded = torch.rand(2, plan.decoded_frames, 3, 32, 32, generator=generator).requires_grad_()
    taught = torch.randn(2, plan.latent_frames, 16, 4, 4, generator=generator)
    assert task.seraena is not None
    for learned, ramp in ((0, 0.25), (1, 0.5), (3, 1.0), (100, 1.0)):
        task.seraena.learned = learned
        terms = task.objective(frames, plan, None, decoded, taught, 0).terms
        (pixels,) = torch.autograd.grad(terms["reconstruction"], decoded, retain_graph=True)
        (push,) = torch.autograd.grad(terms["seraena"], decoded)
        assert push.norm() / pixels.norm() == pytest.approx(0.3 * ramp, rel=1e-3)


def test_it_starts_when_it_is_told_to(distil: MakeRecipe) -> None:
    task = TaehvTask(distil(**SERAENA, seraena_start_step=3))
    (batch,) = next(iter(task.batches(0, 1, 0, 1)))
    assert "seraena" not in task.step(task.model, batch, CPU, 2).terms
    assert "seraena" in task.step(task.model, batch, CPU, 3).terms


@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_any_group_size_trains_and_loses_no_frame(distil: MakeRecipe, group: int) -> None:
    task = TaehvTask(distil(**SERAENA, n_seraena_frames=group, flicker_loss_weight=0.0, use_ref_vae=False))
    plan = task.plan(12)
    frames = torch.rand(1, 12, 3, 32, 32)
    decoded = torch.rand(1, 9, 3, 32, 32, requires_grad=True)
    encoded = torch.randn(1, plan.latent_frames, 16, 4, 4)
    (push,) = torch.autograd.grad(task.objective(frames, plan, encoded, decoded, None, 9).terms["seraena"], decoded)
    assert (push.abs().amax(dim=(0, 2, 3, 4)) > 0).all()  # 9 frames, every one is corrected


def test_a_resumed_run_goes_on_with_the_same_discriminator_and_buffer(distil: MakeRecipe, tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> Path:
        recipe = distil(
            **SERAENA, run_name=name, max_train_steps=8, checkpointing_steps=4, validation_steps=8, **changes
        )
        return run_training(TaehvTask(recipe), recipe).folder

    straight = run("straight")
    broken = run("broken", resume_from_checkpoint=str(straight / "checkpoint-4"))
    for name in ("seraena.pt", "seraena-rank0.pt"):
        one, other = (
            torch.load(folder / "checkpoint-8" / "state" / name, weights_only=True) for folder in (straight, broken)
        )
        assert equal(one, other), name
    weights = [load_file(folder / "checkpoint-8" / "model.safetensors") for folder in (straight, broken)]
    assert equal(*weights)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def test_what_it_does_is_logged(distil: MakeRecipe) -> None:
    recipe = distil(**SERAENA, max_train_steps=4, log_steps=2, run_name="logged")
    folder = run_training(TaehvTask(recipe), recipe).folder
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    step = [line for line in lines if line["event"] == "step"][-1]
    for name in (
        "discriminator_loss",
        "accuracy_real",
        "accuracy_fresh",
        "correction_scale",
        "gradient_ratio",
        "buffer_mb",
    ):
        assert isinstance(step[f"seraena/{name}"], float), name


def test_an_error_inside_it_stops_the_run(distil: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = distil(**SERAENA, max_train_steps=4, run_name="fails")
    task = TaehvTask(recipe)
    assert task.seraena is not None

    def fail(*_: Tensor) -> None:
        raise RuntimeError("the size of tensor a (38) must match the size of tensor b (32)")

    monkeypatch.setattr(task.seraena, "correct", fail)
    with pytest.raises(RuntimeError, match="38"):
        run_training(task, recipe)


def test_a_discriminator_that_explodes_stops_the_run(distil: MakeRecipe) -> None:
    recipe = distil(**SERAENA, max_train_steps=4, run_name="explodes")
    task = TaehvTask(recipe)
    assert task.seraena is not None
    with torch.no_grad():
        next(iter(task.seraena.discriminator.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError):
        run_training(task, recipe)
