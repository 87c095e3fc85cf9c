"""The loop in one file: short, aligned for every variant, and it learns."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.examples.conftest import EXAMPLES, Run
from tinyworld import Taehv
from tinyworld.cli.main import main
from tinyworld.core.variants import VARIANTS

FILE = EXAMPLES / "minimal_taehv.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(FILE))


def test_it_is_short() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 120


def test_a_few_steps_and_the_weights_reconstruct(
    run_example: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run_example("minimal_taehv.py", "--steps", "3", "--data", str(clips), "--output", "made")
    assert "3 videos to train on, 2 held out" in said
    losses = [float(number) for number in re.findall(r"loss (\S+)", said)]
    assert len(losses) == 2 and all(0 < loss < 1 for loss in losses)
    trained, untrained, baseline = map(float, re.findall(r"(\S+) dB", said))
    assert abs(trained - untrained) < 6 and 5 < baseline < 30
    assert (
        main(["reconstruct", str(clips / "clip0.mp4"), "--model", str(tmp_path / "made"), "--output", str(tmp_path)])
        == 0
    )


@pytest.mark.parametrize("name", ["minimal_taehv.py", "custom_teacher.py"])
def test_what_the_user_can_mend_is_told_in_words(run_example: Run, name: str) -> None:
    assert run_example(name, "--data", "nowhere", code=1).startswith("error: ")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_loss_compares_each_frame_with_the_one_it_is_about(example: dict[str, Any], name: str) -> None:
    """A model that gives every frame back, and anything at all where there is nothing to compare, has no pixel loss."""
    plan = example["nearest_plan"](VARIANTS[name])
    frames = torch.rand(1, plan.n_frames, 3, 32, 32)
    latents = torch.randn(1, 64, 4, 8, 8)
    latents = (latents - latents.mean((0, 1, 3, 4), keepdim=True)) / latents.std((0, 1, 3, 4), keepdim=True)

    class Perfect(nn.Module):
        def forward(self, given: Tensor, plan: Any) -> tuple[Tensor, Tensor]:
            junk = torch.full((1, plan.decoded_frames - plan.target_frames, 3, 32, 32), 9.0)
            return latents, torch.cat([given[:, : plan.target_frames], junk], 1)

    assert example["loss_of"](Perfect(), frames, plan) < 1e-6
    assert example["loss_of"](Perfect(), frames, plan) < example["loss_of"](Perfect(), frames.flip(1), plan) + 1e-6


@pytest.mark.parametrize("name", ["taew2_1", "taecvx", "taeh3", "taeltx_2", "taew2_2_super"])
def test_steps_on_one_batch_lower_the_loss_of_any_variant(example: dict[str, Any], name: str) -> None:
    torch.manual_seed(0)
    model = Taehv.from_variant(name, encoder_width=8, decoder_widths=(16, 8, 8, 8))
    plan = example["nearest_plan"](model.spec)
    frames = torch.rand(1, 1, 3, 64, 64).expand(-1, plan.n_frames, -1, -1, -1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        loss = example["loss_of"](model, frames, plan)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for part in (model.encoder, model.decoder):
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())
