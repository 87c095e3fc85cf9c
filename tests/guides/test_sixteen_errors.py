"""The sixteen errors that the TAEHV guide records: each test makes the old failure's conditions and looks at what happens now."""

import math
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from tests.cli.helpers import SMALL, refused
from tests.clips import make_clips
from tests.engine.fake import FakeTask, fake_recipe
from tests.guides.helpers import events, prepared_as_zero_stage_2_demands, small_recipe, small_seraena
from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.config.dump import flatten
from tinyworld.config.load import load_recipe
from tinyworld.core import dist
from tinyworld.core.errors import EXIT_INTERRUPTED, CheckpointError, FramePlanError, MissingFileError
from tinyworld.core.files import verify_folder
from tinyworld.core.frames import decoded_count, latent_count, round_trip_plan, seraena_groups, training_plan
from tinyworld.core.variants import variant
from tinyworld.engine import accelerate_setup, checkpoint, parallel
from tinyworld.engine.evaluate import evaluate
from tinyworld.engine.loop import run_training
from tinyworld.engine.signals import StopRequest
from tinyworld.engine.task import Roles
from tinyworld.engine.verdict import fault_in
from tinyworld.losses.seraena import Seraena
from tinyworld.losses.seraena.correction import to_contexts, to_groups
from tinyworld.tasks.taehv import TaehvTask

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"), count=3, frames=20, height=32, width=32)


@pytest.fixture(autouse=True)
def _own_working_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


def test_error_01_paths_are_found_beside_the_recipe_and_missing_ones_name_the_places(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "checkpoints" / "taecvx.pth"
    weights.parent.mkdir()
    weights.touch()
    (tmp_path / "configs").mkdir()
    recipe = tmp_path / "configs" / "mine.yaml"
    model, data = "pretrained_model_path: ../checkpoints/taecvx.pth", f"data_root: {clips}, height: 32, width: 32"
    sections = f"data: {{{data}}}\nmodel: {{{model}}}\nteacher: {{use_ref_vae: false}}\n"
    recipe.write_text("extends: taehv_small\n" + sections)
    assert load_recipe(recipe).find("model.pretrained_model_path") == weights  # from a folder that knows nothing of it
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        plain = load_recipe("taehv_h100", {"data_root": str(clips)})
        assert plain.find("model.pretrained_model_path") == weights
    weights.unlink()
    said = refused(capsys, "train", recipe, "--output_dir", tmp_path / "output")
    for place in (Path.cwd(), recipe.parent):
        assert str(place / "../checkpoints/taecvx.pth") in said
    assert "model.pretrained_model_path" in said and not list(tmp_path.glob("output/*/journal.jsonl"))


class WithTeacher(FakeTask):
    """As a recipe with a reference VAE: a module that is used and never trained."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(8, 8)

    def roles(self) -> Roles:
        return Roles(self.model, super().roles().auxiliary, frozen={"teacher": self.teacher})


def test_error_02_a_frozen_module_is_never_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepared_as_zero_stage_2_demands(monkeypatch)
    task = WithTeacher()
    before = task.teacher.weight.clone()
    run = run_training(task, fake_recipe(tmp_path)).folder
    assert prepared == [task.model]
    assert not task.teacher.training and not any(p.requires_grad for p in task.teacher.parameters())
    assert torch.equal(task.teacher.weight, before)
    assert not list(run.rglob("*teacher*"))
    with pytest.raises(AssertionError, match="zero stage 2 requires an optimizer"):
        parallel.build(fake_recipe(tmp_path), task.teacher, CPU)  # the old call still fails under this rule


def test_error_03_every_setting_is_stored_in_tensorboard(clips: Path, tmp_path: Path) -> None:
    recipe = load_recipe("taehv_h100_1gpu", {"data_root": str(clips), "buckets": [[64, 64, 12]], "frame_steps": [1, 2]})
    nested = recipe.model_dump(mode="json")["data"]
    with SummaryWriter(tmp_path / "old") as writer, pytest.raises(ValueError, match="value should be one of"):
        writer.add_hparams(nested, {})
    flat = flatten(recipe)
    assert {type(value) for value in flat.values()} <= {int, float, str, bool}
    assert flat["data.buckets"] == "[[64, 64, 12]]" and flat["run.run_name"] == "null"
    tracker = accelerate_setup.build_tracker(recipe, tmp_path / "new", 0)
    assert tracker is not None
    tracker.finish()
    assert list((tmp_path / "new").rglob("events.out.tfevents.*"))


def test_error_04_bf16_arithmetic_on_fp32_weights_and_batches(clips: Path, tmp_path: Path) -> None:
    recipe = small_recipe(clips, tmp_path, mixed_precision="bf16")
    task = TaehvTask(recipe)
    first = next(module for module in task.model.modules() if isinstance(module, nn.Conv2d))
    seen: list[tuple[torch.dtype, ...]] = []
    first.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].dtype, module.weight.dtype, output.dtype))  # type: ignore
    )
    assert run_training(task, recipe).step == 1
    assert (torch.float32, torch.float32, torch.bfloat16) in seen
    assert {p.dtype for p in task.model.parameters()} == {torch.float32}
    with pytest.raises(RuntimeError, match="should be the same"):
        first.bfloat16()(torch.zeros(1, first.in_channels, 8, 8))  # what the old trainer did


@pytest.mark.parametrize("world", [2, 3, 8])
def test_error_05_no_rank_validates_alone_or_leaves_a_step_alone(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, each rank in turn: samples are shared out evenly, and all ranks meet equally often, those without
    a sample included. tests/faults has the same with real processes."""
    task, samples = FakeTask(), list(range(7))
    shares, meetings = [], set()
    for rank in range(world):
        polls = []
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(dist, "world_size", lambda: world)
        monkeypatch.setattr(dist, "total", lambda values, polls=polls: polls.append(values) or [0.0] * len(values))
        measured = evaluate(task, task.model, samples, 2, CPU, StopRequest())
        shares.append([row.id for row in measured.rows.values()])
        meetings.add(len(polls))
    assert sorted(name for share in shares for name in share) == [f"clip{i}" for i in samples]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(meetings) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_error_06_one_check_judges_every_number_of_a_step(value: float) -> None:
    assert fault_in(value, [], 0) is not None and fault_in(1.0, [], 0) is None
    with pytest.raises(TypeError, match="must be Tensor, not float"):
        torch.isfinite(1.0)  # type: ignore[arg-type]


class DiskFull(FakeTask):
    """Weights are cut off half-way when the checkpoint of step 10 is written."""

    written = 0

    def write_weights(self, weights: Mapping[str, Tensor], file: Path) -> None:
        super().write_weights(weights, file)
        self.written += 1
        if "checkpoint-10" in file.parent.name:
            file.write_bytes(file.read_bytes()[:20])
            raise OSError(28, "No space left on device", str(file))


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from tests.engine.fake import FakeTask, fake_recipe
from tests.guides.helpers import events, prepared_as_zero_stage_2_demands, small_recipe, small_seraena
from tinyworld.engine.loop import run_training

class Killed(FakeTask):
    def write_weights(self, weights, file):
        super().write_weights(weights, file)
        if "checkpoint-10" in file.parent.name:
            os.kill(os.getpid(), signal.SIGKILL)

run_training(Killed(), fake_recipe(Path(sys.argv[1]), validation={"validation_steps": 20}))
"""


@pytest.mark.parametrize("how", ["failed", "killed"])
def test_error_07_a_checkpoint_is_complete_or_absent(how: str, tmp_path: Path) -> None:
    sections = {"validation": {"validation_steps": 20}}
    if how == "failed":
        with pytest.raises(CheckpointError, match="is full"):
            run_training(DiskFull(), fake_recipe(tmp_path, **sections))
    else:
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path)], cwd=root)
        assert done.returncode == -signal.SIGKILL
    run = tmp_path / "run"
    assert [path.name for path in checkpoint.listing(run)] == ["checkpoint-5"]
    assert verify_folder(run / "checkpoint-5") == []
    (run / "checkpoint-500").mkdir()  # as the old trainer left it
    run_training(FakeTask(), fake_recipe(tmp_path, **sections, checkpoint={"resume_from_checkpoint": "latest"}))
    assert events(run, "start")[-1]["resumed_from"] == str(run / "checkpoint-5")
    assert [path.name for path in checkpoint.listing(run)] == [f"checkpoint-{n}" for n in (5, 10, 15, 20)]


def test_error_08_sigterm_saves_and_the_run_goes_on(clips: Path, tmp_path: Path) -> None:
    endless = ["--max_train_steps=1000000", "--log_steps=1"]
    flags = [flag for flag in SMALL if not flag.startswith(("--max_train_steps", "--validation", "--checkpointing"))]
    where = [f"--data_root={clips}", f"--output_dir={tmp_path}"]
    command = [sys.executable, "-m", "tinyworld", "train", "taehv_demo", *flags, *where, *endless]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = tmp_path / "run"
    while process.poll() is None and not ((run / "journal.jsonl").exists() and events(run, "step")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == EXIT_INTERRUPTED
    (saved,) = checkpoint.listing(run)
    step = checkpoint.step_of(saved)
    assert verify_folder(saved) == [] and step >= 1
    assert (events(run, "stop")[-1]["reason"], events(run, "stop")[-1]["step"]) == ("signal", step)
    again = load_recipe(run / "config.yaml", {"resume_from_checkpoint": "latest", "max_train_steps": step + 1})
    assert run_training(TaehvTask(again), again).step == step + 1
    assert events(run, "start")[-1]["step"] == step and (run / "final_model.safetensors").exists()


def test_error_09_a_checkpoint_is_found_by_path_name_and_latest_and_never_replaced_by_a_fresh_start(
    tmp_path: Path,
) -> None:
    def resume(wanted: str, name: str | None) -> dict[str, Any]:
        checkpoints = {"resume_from_checkpoint": wanted}
        outcome = run_training(FakeTask(), fake_recipe(tmp_path, run={"run_name": name}, checkpoint=checkpoints))
        return events(outcome.folder, "start")[-1]

    first = run_training(FakeTask(), fake_recipe(tmp_path, run={"run_name": "2025-09-29"})).folder
    middle, last = str(first / "checkpoint-10"), str(first / "checkpoint-20")
    assert resume(middle, "2025-09-30")["resumed_from"] == middle  # another run's folder does not come into it
    assert resume(last, None)["resumed_from"] == last
    assert resume("checkpoint-20", "2025-09-29")["resumed_from"] == last
    assert resume("latest", "2025-09-29")["resumed_from"] == last
    for wanted in ("checkpoint-5500", str(tmp_path / "2025-09-30" / "checkpoint-5500")):
        with pytest.raises(MissingFileError, match="checkpoint-5500"):
            resume(wanted, "2025-09-29")


def test_error_10_seraena_is_never_prepared_trains_itself_and_is_saved(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_as_zero_stage_2_demands(monkeypatch)
    recipe = small_recipe(clips, tmp_path, use_seraena=True)
    task = TaehvTask(recipe)
    run = run_training(task, recipe).folder
    assert prepared == [task.model]
    saved = checkpoint.read_state(run / "checkpoint-1", "seraena")
    assert saved, "the discriminator is part of the checkpoint"
    assert events(run, "step")[-1]["losses"]["seraena"] > 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_error_11_grouping_is_undone_exactly_for_every_count(size: int) -> None:
    for count in range(1, 41):
        frames = torch.arange(2 * count * 3 * 4.0).reshape(2, count, 3, 2, 2)
        groups = to_groups(frames, size)
        assert groups.shape == (2 * -(-count // size), size * 3, 2, 2)
        assert torch.equal(groups.reshape(2, -1, 3, 2, 2)[:, :count], frames)
    real, fake = clip(12, 32, 32, clips=8, seed=1), clip(12, 32, 32, clips=8, seed=2)  # the guide's batch
    correction = small_seraena(size).correct(real, fake, torch.randn(8, 3, 16, 4, 4))
    assert correction.direction.shape == fake.shape and correction.direction.isfinite().all()


@pytest.mark.parametrize("name", ["taew2_1", "taecvx", "taeltx_2", "taeh3"])
def test_error_12_decoded_and_target_agree_for_every_frame_count(name: str) -> None:
    model = formula_model(small_spec(name))
    side = model.spec.size_multiple
    for count in range(1, 41):
        for pad in (False, True):
            try:
                plan = training_plan(count, model.spec, pad)
            except FramePlanError as error:
                assert not pad and error.nearest and count not in error.nearest
                continue
            frames = clip(count, side, side)
            with torch.no_grad():
                _, decoded = model(frames, plan)
            made, wanted = decoded[:, : plan.target_frames], frames[:, : plan.target_frames]
            assert made.shape == wanted.shape and plan.target_frames >= 1
            assert not pad or plan.target_frames == count


def test_error_12_n_frames_19_is_refused_before_start_or_trains_padded(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("check", "train"):
        said = refused(capsys, command, "taehv_demo", f"--data_root={clips}", "--n_frames=19")
        assert "Use 16 or 20" in said and "data.n_frames" in said and "data.pad_frames=true" in said
    recipe = small_recipe(clips, tmp_path, n_frames=19, pad_frames=True)
    assert run_training(TaehvTask(recipe), recipe).reason == "finished"


def test_error_13_no_frame_is_lost_when_the_group_does_not_divide() -> None:
    target = training_plan(20, variant("taew2_1")).target_frames
    assert target == 17
    with pytest.raises(FramePlanError, match="1 or 17") as refusal:
        seraena_groups(target, 8)
    assert refusal.value.nearest == (1, 17)
    plan = seraena_groups(target, 8, pad=True)
    pairs = zip(sum(plan.indices, ()), sum(plan.mask, ()), strict=True)
    assert [index for index, own in pairs if own] == list(range(17))
    assert (plan.groups, plan.padding) == (3, 7)
    real, fake = clip(17, 32, 32, seed=1), clip(17, 32, 32, seed=2)
    direction = small_seraena(8).correct(real, fake, torch.randn(1, 5, 16, 4, 4)).direction
    assert direction.shape == fake.shape
    assert (direction.abs().sum(dim=(0, 2, 3, 4)) > 0).all()  # each of the 17 frames is told where to go


def test_error_14_an_even_number_of_cogvideox_latents_trains_on_as_many_frames_as_it_decodes(
    clips: Path, tmp_path: Path
) -> None:
    model = formula_model(small_spec("taecvx"))
    plan = training_plan(16, model.spec)
    with torch.no_grad():
        latents, decoded = model(clip(16, 16, 16), plan)
    assert (latents.shape[1], decoded.shape[1], plan.target_frames) == (4, 16, 16)
    recipe = small_recipe(clips, tmp_path, variant="taecvx", n_frames=16)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size")
        run = run_training(TaehvTask(recipe), recipe).folder
    assert math.isfinite(events(run, "step")[-1]["losses"]["total"])


def test_error_15_sixteen_frames_come_back_as_sixteen() -> None:
    model = formula_model(small_spec("taecvx"))
    frames = clip(16, 16, 16)
    with torch.no_grad():
        assert model.decode(model.encode(frames)).shape[1] == 16
        assert model.reconstruct(frames).shape == frames.shape
    assert decoded_count(latent_count(16, model.spec), model.spec) == 16
    assert round_trip_plan(16, model.spec).target_frames == 16
    groups = to_groups(frames, 4)  # and nothing is added to them on the way to the corrector
    assert groups.shape == (4, 12, 16, 16) and torch.equal(groups.reshape(frames.shape), frames)


@pytest.mark.parametrize(("count", "size"), [(16, 1), (19, 1), (9, 3), (17, 4)])
def test_error_16_the_context_follows_the_frames_that_are_there(count: int, size: int) -> None:
    """It is each clip's mean over time, once for each of its groups, whatever n_frames was configured."""
    latents = torch.randn(2, 4, 16, 4, 4)
    groups = to_groups(clip(count, 32, 32, clips=2), size)
    per_clip = len(groups) // 2
    contexts = to_contexts(latents, per_clip)
    assert contexts.shape == (len(groups), 16, 4, 4)
    for index in range(2):
        for context in contexts[index * per_clip : (index + 1) * per_clip]:
            torch.testing.assert_close(context, latents[index].mean(0))
    real, fake = clip(count, 32, 32, clips=2, seed=1), clip(count, 32, 32, clips=2, seed=2)
    assert small_seraena(size).correct(real, fake, latents).direction.shape == fake.shape
    with pytest.raises(ValueError, match="same clips"):
        small_seraena(size).correct(real, fake, latents[:1])


def test_error_16_an_error_in_the_adversarial_part_stops_the_run(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("The size of tensor a (38) must match the size of tensor b (32)")

    recipe = small_recipe(clips, tmp_path, use_seraena=True)
    task = TaehvTask(recipe)
    monkeypatch.setattr(Seraena, "correct", broken)
    with pytest.raises(RuntimeError, match="tensor a"):
        run_training(task, recipe)
    assert events(tmp_path / "run", "stop")[-1]["reason"] == "error"
    assert not checkpoint.listing(tmp_path / "run")


def test_the_documentation_names_every_test_of_an_error() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "from-the-guides.md").read_text(encoding="utf-8")
    named = {f"test_error_{name}" for name in re.findall(r"`(\d\d_\w+)`", page)}
    assert named == {name for name in globals() if name.startswith("test_error_")}
    assert {name[11:13] for name in named} == {f"{number:02}" for number in range(1, 17)}
