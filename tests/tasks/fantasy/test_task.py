"""The world's three tasks, trained: what a run leaves behind, how stages follow one another, what belongs to a sample."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.tasks.fantasy.conftest import Small
from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.data.worlds.dataset import WorldSample
from tinyworld.engine.evaluate import mean_metrics
from tinyworld.engine.loop import Outcome, run_training
from tinyworld.models.fantasy.backbone_weights import open_backbone
from tinyworld.tasks.fantasy import measure
from tinyworld.tasks.fantasy.inputs import drawn
from tinyworld.tasks.fantasy.task import FantasyTask

CPU = torch.device("cpu")
STAGE_ONE = {
    "latent_bridge", "geo_blocks", "head_depth", "head_point", "head_camera", "pose_enc", "token_camera", "tokens_register",
}  # fmt: skip


def trained(small: Small, name: str, output: Path, run: str, **flags: Any) -> Outcome:
    recipe = small.recipe(name, output, run, **flags)
    return run_training(FantasyTask(recipe), recipe)


@pytest.fixture(scope="module")
def stage1(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of stage 1."""
    return trained(small, "fantasy_demo_stage1", tmp_path_factory.mktemp("runs"), "stage1").folder


def parts(file: Path) -> set[str]:
    with safe_open(str(file), framework="pt") as content:
        return {key.split(".")[0] for key in content.keys()}  # noqa: SIM118


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_the_base_learns_and_its_best_model_is_a_base(small: Small, tmp_path: Path) -> None:
    outcome = trained(small, "fantasy_demo_base", tmp_path, "base")
    entry = outcome.history[-1]
    assert entry["diffusion"] > 0 and entry["baseline"]["diffusion"] > 0
    assert (
        open_backbone(outcome.folder / "best_model", torch.float32).spec
        == small.recipe("fantasy_demo_base", tmp_path, "x").spec().backbone
    )
    next_stage = small.recipe("fantasy_demo_stage1", tmp_path, "y", backbone_path=str(outcome.folder / "best_model"))
    assert FantasyTask(next_stage).networks.base_digest


def test_stage_one_leaves_what_the_guide_names(stage1: Path) -> None:
    for name in ("step-1.safetensors", "step-2.safetensors", "latest.safetensors", "training.log"):
        assert (stage1 / name).is_file(), name
    assert (stage1 / "latest.safetensors").samefile(stage1 / "step-2.safetensors")
    assert parts(stage1 / "latest.safetensors") == STAGE_ONE
    first = events(stage1, "step")[0]
    assert {"loss/depth", "loss/point", "loss/camera", "loss/diffusion", "learning_rate"} <= first.keys()
    assert set(first["losses"]) == {"total", "depth", "point", "camera"}  # diffusion is no term of stage 1
    assert any(name.startswith("sigma_") for name in first)
    (video,) = (stage1 / "previews").glob("step-2/*.mp4")
    assert video.stat().st_size > 0


def test_geometry_is_measured_beside_trivial_baselines_and_without_the_cameras(stage1: Path) -> None:
    entry = json.loads((stage1 / "validation_history.json").read_text(encoding="utf-8"))[-1]
    assert {
        "abs_rel",
        "delta1",
        "abs_rel_scaled",
        "point_error",
        "consistency",
        "ate",
        "auc30",
        "given_auc30",
    } <= entry.keys()
    assert {"abs_rel", "auc30", "ate", "mean_map_abs_rel", "mean_map_delta1", "mean_track_auc30", "diffusion"} <= entry[
        "baseline"
    ].keys()


def test_stage_two_goes_on_from_stage_one(small: Small, stage1: Path, tmp_path: Path) -> None:
    parent = str(stage1 / "step-2.safetensors")
    recipe = small.recipe("fantasy_demo_stage2", tmp_path, "stage2", stage1_checkpoint=parent)
    task = FantasyTask(recipe)
    fates = {row.group: row.fate for row in task.networks.parent}
    assert {name for name, fate in fates.items() if fate == "loaded"} == STAGE_ONE
    assert fates["camera_adapters"] == fates["irg_cross_attns"] == "new"

    before = FantasyTask(small.recipe("fantasy_demo_stage1", tmp_path, "again"))
    before.networks.trainable.load_state_dict(load_file(parent))
    (window,) = task.held_out()
    old = before.evaluate(before.networks.trainable.eval(), [window], CPU)
    new = task.evaluate(task.networks.trainable.eval(), [window], CPU)
    assert old == new  # closed gates: bit for bit, velocity and geometry alike

    outcome = run_training(task, recipe)
    assert parts(outcome.folder / "latest.safetensors") == STAGE_ONE | {"camera_adapters", "irg_cross_attns"}
    (start,) = events(outcome.folder, "start")
    assert start["parent"] == parent and start["lineage"]


def test_stage_two_refuses_a_parent_that_is_absent_or_of_another_base(
    small: Small, stage1: Path, tmp_path: Path
) -> None:
    absent = small.recipe("fantasy_demo_stage2", tmp_path, "a", stage1_checkpoint=str(tmp_path / "step-9.safetensors"))
    with pytest.raises(MissingFileError, match="stage1_checkpoint"):
        FantasyTask(absent)
    from tests.infer.world.small import make_base

    other = {"backbone_path": str(make_base(tmp_path / "other", seed=9))}
    parent = str(stage1 / "latest.safetensors")
    with pytest.raises(WeightsError, match="transformer"):
        FantasyTask(small.recipe("fantasy_demo_stage2", tmp_path, "b", stage1_checkpoint=parent, **other))


@pytest.mark.parametrize("stage", ["fantasy_demo_base", "fantasy_demo_stage2"])
def test_a_resumed_run_is_the_same_run(small: Small, stage1: Path, tmp_path: Path, stage: str) -> None:
    flags = {"stage1_checkpoint": str(stage1 / "latest.safetensors")} if stage.endswith("2") else {}
    whole = trained(small, stage, tmp_path, "whole", max_train_steps=3, validation_steps=9, **flags)
    half = trained(small, stage, tmp_path, "half", max_train_steps=3, validation_steps=9, **flags)
    for name in ("checkpoint-3", "step-3.safetensors"):
        path = half.folder / name
        path.rename(half.folder / f"gone-{name}")
    again = trained(
        small,
        stage,
        tmp_path,
        "half",
        max_train_steps=3,
        validation_steps=9,
        resume_from_checkpoint="checkpoint-2",
        **flags,
    )
    a, b = load_file(whole.folder / "latest.safetensors"), load_file(again.folder / "latest.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_held_out_clip_without_depth_is_measured_as_far_as_it_goes(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = FantasyTask(
        small.recipe("fantasy_demo_stage1", tmp_path, "f", num_validation_samples=2, held_out_fraction=0.6)
    )
    first, second = task.held_out()[:2]
    whole = measure.Window.sample

    def blind(window: measure.Window) -> WorldSample:
        sample = whole(window)
        if window.id != second.id:
            return sample
        return replace(sample, mask=torch.zeros_like(sample.mask), depth=torch.zeros_like(sample.depth), usable=False)

    monkeypatch.setattr(measure.Window, "sample", blind)
    with torch.no_grad():
        good, bad = task.evaluate(task.networks.trainable.eval(), [first, second], CPU)
    assert good.metrics["abs_rel"] is not None and bad.metrics["abs_rel"] is None and bad.metrics["ate"] is None
    assert bad.metrics["diffusion"] is not None and bad.metrics["rpe_rotation"] is not None
    assert mean_metrics([good.baseline, bad.baseline])["abs_rel"] == good.baseline["abs_rel"]
    assert {"point_error", "delta1_scaled", "auc30"} <= good.baseline.keys()


def test_other_held_out_scenes_than_the_parents_are_warned_of(
    small: Small, stage1: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent = str(stage1 / "latest.safetensors")
    FantasyTask(small.recipe("fantasy_demo_stage2", tmp_path, "g", stage1_checkpoint=parent))
    assert "would flatter" not in caplog.text
    FantasyTask(small.recipe("fantasy_demo_stage2", tmp_path, "h", stage1_checkpoint=parent, seed=5))
    assert "would flatter" in caplog.text


def test_a_batch_is_the_mean_of_its_samples(small: Small, stage1: Path, tmp_path: Path) -> None:
    parent = str(stage1 / "latest.safetensors")
    task = FantasyTask(small.recipe("fantasy_demo_stage2", tmp_path, "c", stage1_checkpoint=parent, train_batch_size=3))
    (batch,) = next(iter(task.batches(0, 1, 0, 1)))
    model = task.networks.trainable
    with torch.no_grad():
        whole = task.step(model, batch, CPU, 0)
        single = [task.step(model, piece, CPU, 0) for piece in batch.split(3)]
    for name, value in whole.terms.items():
        torch.testing.assert_close(
            value, torch.stack([part.terms[name] for part in single]).mean(), rtol=1e-4, atol=1e-5
        )


def test_what_a_sample_does_without_is_its_own(small: Small, tmp_path: Path) -> None:
    loss = small.recipe("fantasy_demo_stage1", tmp_path, "d", text_dropout=0.5, interaction_dropout=1).loss
    seeds = list(range(400))
    given = drawn(loss, seeds, CPU)
    assert torch.equal(drawn(loss, seeds[100:200], CPU).camera, given.camera[100:200])
    assert 0.4 < given.camera.float().mean() < 0.6 and 0.4 < given.text.float().mean() < 0.6
    assert not torch.equal(given.camera, given.text)
    assert not given.interaction.any()


def test_the_guides_thresholds_are_watched_late_in_stage_one(small: Small, tmp_path: Path) -> None:
    task = FantasyTask(small.recipe("fantasy_demo_stage1", tmp_path, "e", max_train_steps=100))
    high = {"loss/depth": 0.3, "loss/point": 0.4, "loss/camera": 0.2}
    assert task.remarks(50, high) == []
    found = task.remarks(80, high)
    assert [remark.split()[0] for remark in found] == ["loss/depth", "loss/camera"]
