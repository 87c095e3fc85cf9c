"""Shares of the loss terms in the first gradient."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.engine.fake import FakeTask, fake_recipe
from tinyworld.engine import preflight
from tinyworld.engine.loop import run_training
from tinyworld.engine.task import Losses
from tinyworld.engine.trainer import Trainer


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 1, bias=False)
        self.decoder = nn.Linear(1, 2, bias=False)


def rows(strong: float, weak: float) -> list[preflight.TermShare]:
    """A term on the decoder through the encoder, and one on the encoder alone."""
    model = TwoParts()
    with torch.no_grad():
        model.encoder.weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.decoder.weight.copy_(torch.tensor([[1.0], [0.0]]))
    x: Tensor = torch.tensor([[1.0, 1.0]])
    code = model.encoder(x)
    terms = {"pixels": strong * model.decoder(code).sum(), "code": weak * code.sum(), "off": 0.0 * code.sum().detach()}
    return preflight.measure(model, Losses(terms))


def test_shares_are_those_of_the_gradient_norms_in_each_part() -> None:
    pixels, code, off = rows(strong=3.0, weak=1.0)
    assert pixels.shares == pytest.approx({"encoder": 0.75, "decoder": 1.0})  # d/d encoder: 3·(1, 1) against (1, 1)
    assert code.shares == pytest.approx({"encoder": 0.25})
    assert off.shares == {} and off.value == 0
    assert preflight.warnings([pixels, code]) == []


def test_a_drowned_term_and_the_one_that_drowns_it_are_named() -> None:
    found = preflight.warnings(rows(strong=1000.0, weak=1.0))
    assert len(found) == 2
    assert "pixels term has 99.9% of the encoder's gradient" in found[0]
    assert "code term has 0.10% of the gradient" in found[1]


def test_a_term_on_its_ramp_is_not_called_weak() -> None:
    weak = preflight.TermShare("seraena", 1e-6, {"decoder": 0.002}, rising=True)
    assert preflight.warnings([weak]) == [] and "still rises" in preflight.table([weak])


def test_the_table_names_terms_and_parts() -> None:
    text = preflight.table(rows(3.0, 1.0))
    assert text.splitlines()[0].split() == ["loss", "term", "value", "encoder", "decoder"]
    assert "75.0%" in text and "–" in text


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def test_it_comes_before_step_1_and_at_milestones(tmp_path: Path) -> None:
    task = FakeTask()
    task.marks = [7]
    run_training(task, fake_recipe(tmp_path))
    found = events(tmp_path / "run", "preflight")
    assert [line["step"] for line in found] == [0, 7]
    assert found[0]["terms"][0]["shares"] == {"weight": 1.0, "bias": 1.0}


def test_a_run_is_not_changed_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task draws noise in its step and shows each batch to an auxiliary: both would drift."""
    run_training(FakeTask(), fake_recipe(tmp_path / "with"))
    monkeypatch.setattr(Trainer, "_preflight", lambda self, batch: None)
    run_training(FakeTask(), fake_recipe(tmp_path / "without"))
    one, other = (tmp_path / name / "run" / "checkpoint-20" for name in ("with", "without"))
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for name in ("helper", "helper-rank0"):
        states = [torch.load(folder / "state" / f"{name}.pt", weights_only=True) for folder in (one, other)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
