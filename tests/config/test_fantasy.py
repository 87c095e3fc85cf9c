"""FantasyWorld's recipes: rules, warnings, and the guide's own flags."""

import pytest

from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe
from tinyworld.config.warnings import warnings
from tinyworld.core.errors import ConfigError
from tinyworld.core.world_sizes import SIZES, WorldSpec

STAGE1: dict[str, object] = {"dataset_base_path": "worlds", "condition_cache": "cache", "backbone_path": "wan"}
STAGE2 = {**STAGE1, "stage1_checkpoint": "step-20000.safetensors"}


def problems(name: str, flags: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_recipe(name, flags)
    return error.value.problems


def test_a_stage_runs_with_what_the_user_has_to_give() -> None:
    recipe = load_recipe("fantasy_stage2", STAGE2)
    assert isinstance(recipe, FantasyRecipe)
    assert recipe.stage == "stage2"
    (stage,) = recipe.stages()
    assert stage.buckets == ((592, 336, 81),)
    assert recipe.training.train_batch_size * recipe.training.gradient_accumulation_steps * 8 == 112


def test_everything_that_is_missing_is_said_at_once() -> None:
    found = problems("fantasy_stage2", {"dataset_base_path": "worlds"})
    for key in ("model.codec_path", "data.condition_cache", "model.backbone_path", "model.stage1_checkpoint"):
        assert any(key in problem for problem in found), key


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"height": 330}, "Use 320 or 336 (key: data.height)"),
        ({"num_frames": 20}, "Use 17 or 21 (key: data.num_frames)"),
        ({"stage1_checkpoint": "a"}, "does not start from one"),
        ({"geometry_loss_weight": 0}, "stage 1 learns nothing else"),
        ({"metric_for_best_model": "diffusion"}, "never changes in stage 1"),
        ({"dataset_base_path": "rooms", "dataset_metadata_path": "m.json"}, "takes no dataset_metadata_path"),
    ],
)
def test_a_slip_is_told_with_what_is_valid(flags: dict[str, object], named: str) -> None:
    (problem,) = problems("fantasy_stage1", {**STAGE1, **flags})
    assert named in problem


def test_the_published_transformer_is_not_trained_from_scratch() -> None:
    (problem,) = problems("fantasy_demo_base", {"size": "wan_fun_1_3b", "condition_cache": "cache"})
    assert "model.size=demo" in problem


def test_the_guides_flags_are_taken_as_they_are_written_there() -> None:
    guide = {
        "task": "fantasy_world:stage1", "dataset_base_path": "D", "dataset_metadata_path": "D/metadata.json",
        "output_path": "runs/mine", "num_steps": "20000", "batch_size_per_gpu": "8", "learning_rate": "1e-5",
        "gradient_accumulation": "1", "height": "336", "width": "592", "num_frames": "21", "mixed_precision": "bf16",
        "trainable_models": "dit", "find_unused_parameters": True, "save_every": "500", "resume_from_checkpoint": "latest",
    }  # fmt: skip
    recipe = load_recipe("fantasy_stage1", {**STAGE1, **guide})
    assert (recipe.run.output_dir, recipe.run.run_name) == ("runs", "mine")
    assert (recipe.training.max_train_steps, recipe.training.train_batch_size) == (20_000, 8)
    assert recipe.checkpoint.checkpointing_steps == 500


def test_flags_of_the_guide_that_mean_something_else_here_are_refused() -> None:
    assert "only value is dit" in problems("fantasy_stage1", {**STAGE1, "trainable_models": "vae"})[0]
    assert "Give one of them" in problems("fantasy_stage1", {**STAGE1, "output_path": "a/b", "run_name": "c"})[0]


def test_cameras_that_are_always_given_are_warned_of() -> None:
    recipe = load_recipe("fantasy_stage1", {**STAGE1, "camera_dropout": 0})
    assert any("copies them" in warning for warning in warnings(recipe))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_read_back_from_json(name: str) -> None:
    import json

    spec = SIZES[name]
    assert WorldSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.geo_blocks == spec.backbone.layers - spec.branch.split
    assert max(spec.branch.collect) == spec.geo_blocks - 1
