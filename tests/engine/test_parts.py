"""Schedule, averaging, meters, signals, journal, run folder lock, evaluation means."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.engine.fake import fake_recipe
from tinyworld.config.sections import OptimizerConfig
from tinyworld.core.errors import ConfigError, MissingFileError
from tinyworld.engine import run as run_module
from tinyworld.engine.averaging import averaged, warmed_decay
from tinyworld.engine.evaluate import mean_metrics
from tinyworld.engine.journal import Journal
from tinyworld.engine.memory import estimate
from tinyworld.engine.meters import Window
from tinyworld.engine.schedule import learning_rate


@pytest.mark.parametrize(("kind", "middle"), [("constant", 1.0), ("cosine", 0.55), ("linear", 0.55)])
def test_learning_rate_rises_and_falls(kind: str, middle: float) -> None:
    config = OptimizerConfig(learning_rate=1.0, lr_scheduler=kind, lr_warmup_steps=10, lr_end_factor=0.1)
    assert learning_rate(0, 111, config) == pytest.approx(0.1)
    assert learning_rate(9, 111, config) == pytest.approx(1.0)
    assert learning_rate(60, 111, config) == pytest.approx(middle)
    assert learning_rate(110, 111, config) == pytest.approx(1.0 if kind == "constant" else 0.1)


def test_average_follows_in_steps() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    copy = averaged(model, 0.9)
    expected = 0.0
    for update in range(50):
        nn.init.constant_(model.weight, float(update))
        copy.update_parameters(model)
        decay = 0.0 if update == 0 else warmed_decay(update, 0.9)
        expected = decay * expected + (1 - decay) * update
    assert copy.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not copy.module.weight.requires_grad


def test_window_forgets_after_means() -> None:
    window = Window()
    window.add({"a": 1.0})
    window.add({"a": 3.0, "b": 5.0})
    assert window.means() == {"a": 2.0, "b": 5.0}
    assert window.means() == {}


def test_mean_metrics_leave_out_what_is_not_available() -> None:
    rows = [{"psnr": 1.0, "lpips": None, "by": [1.0, None]}, {"psnr": 3.0, "lpips": None, "by": [3.0, 5.0]}]
    assert mean_metrics(rows) == {"psnr": 2.0, "lpips": None, "by": [2.0, 5.0]}


def test_journal_goes_on_after_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "step", "st')
    journal = Journal(path)
    journal.write("stop", 3, value=float("nan"))
    journal.close()
    assert json.loads(path.read_text().splitlines()[1])["value"] is None


HOLDER = """
import os, sys, time
from pathlib import Path
from tinyworld.engine.run import lock
held = lock(Path(sys.argv[1]))
if os.fork() == 0:
    time.sleep(30)  # a loader process that outlives its parent
    os._exit(0)
print("held", flush=True)
time.sleep(30)
"""


def test_one_run_folder_has_one_writer_until_it_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(ConfigError, match="in use by another"):
            run_module.lock(tmp_path)
        holder.kill()
        holder.wait()
        run_module.lock(tmp_path).close()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_latest_without_any_run_starts_fresh_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = fake_recipe(tmp_path, run={"run_name": None}, checkpoint={"resume_from_checkpoint": "latest"})
    folder = run_module.run_folder(recipe)
    assert run_module.prepare_run(recipe, folder).checkpoint is None
    assert "starting from step 0" in caplog.text


def test_latest_finds_the_newest_run_of_this_recipe_only(tmp_path: Path) -> None:
    for number, name in enumerate(["fake-20260101-000000", "fake-20260102-000000", "fake-b-20260103-000000"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "journal.jsonl").touch()
        os.utime(tmp_path / name / "journal.jsonl", (number, number))
    recipe = fake_recipe(tmp_path, run={"run_name": None}, checkpoint={"resume_from_checkpoint": "latest"})
    assert run_module.run_folder(recipe).name == "fake-20260102-000000"


def test_missing_checkpoints_say_where_was_looked(tmp_path: Path) -> None:
    named = fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "checkpoint-7"})
    with pytest.raises(MissingFileError, match="No checkpoint-7 in .*; there: none"):
        run_module.prepare_run(named, run_module.run_folder(named))
    with pytest.raises(MissingFileError, match="looked at .*elsewhere/checkpoint-7"):
        run_module.run_folder(fake_recipe(tmp_path, checkpoint={"resume_from_checkpoint": "elsewhere/checkpoint-7"}))


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "a b", ""])
def test_names_stay_inside_the_output_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        fake_recipe(tmp_path, run={"run_name": name})


def test_memory_estimate_counts_each_saved_tensor_once() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(10, 20, bias=False), nn.Tanh(), nn.Linear(20, 5, bias=False))
    found = estimate(model, lambda network: network(torch.empty(3, 10, device="meta")).sum(), half=False, average=True)
    assert found.weights == (200 + 100) * 20
    assert found.activations == 4 * (3 * 10 + 3 * 20)  # the input, and the tanh's output that the second layer shares
    assert all(parameter.grad is None for parameter in model.parameters())


class Deep(nn.Module):
    """Segments that each double what they are given `inner` times over and hand on one tensor of `size` floats."""

    def __init__(self, inner: int, checkpointing: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1, device="meta"))
        self.inner, self.checkpointing = inner, checkpointing

    def segment(self, x: Tensor) -> Tensor:
        for _ in range(self.inner):
            x = (x * self.scale).exp()
        return x

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = checkpoint(self.segment, x, use_reentrant=False) if self.checkpointing else self.segment(x)
        return x.sum()


def test_memory_estimate_counts_what_a_segment_holds_when_it_is_computed_again() -> None:
    size, inner = 1000, 10

    def tensors(checkpointing: bool) -> tuple[float, float]:
        made = estimate(
            Deep(inner, checkpointing), lambda m: m(torch.empty(size, device="meta")), half=False, average=False
        )
        return made.activations / (4 * size), made.working / (4 * size)

    held, working = tensors(checkpointing=False)
    assert held == 4 * inner + 1  # every exp's output, and the input of the first product
    assert working < 6
    held, working = tensors(checkpointing=True)
    assert held == 4  # the input of each segment
    assert inner <= working < inner + 6  # one segment's inner tensors, a few gradients, a kernel's copies


def test_memory_estimate_counts_large_tensors_that_nobody_saves() -> None:
    """A picture that only a sum follows is not kept for the backward pass, but it exists."""

    def forward(network: nn.Module) -> Tensor:
        return network(torch.empty(1, 10, device="meta")).expand(50, 10).clone().sum()

    with torch.device("meta"):
        model = nn.Linear(10, 10, bias=False)
    found = estimate(model, forward, half=False, average=False)
    assert found.activations == 4 * 10
    assert found.working >= 4 * 500
