"""Rules over several keys, and warnings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.config.load import bundled_recipes, load_recipe
from tinyworld.config.rules import check_rules
from tinyworld.config.schema import TaehvRecipe
from tinyworld.config.warnings import warnings
from tinyworld.core.errors import FramePlanError
from tinyworld.core.frames import training_plan
from tinyworld.core.variants import VARIANTS


def recipe(**values: dict[str, object]) -> TaehvRecipe:
    """A recipe that breaks no rule and deserves no warning, with `section={key: value}` over it."""
    draft: dict[str, dict[str, object]] = {
        "data": {"data_root": "clips", "height": 64, "width": 64, "n_frames": 36},
        "model": {"variant": "taew2_1"},
        "training": {"max_train_steps": 5000},
    }
    for section, changed in values.items():
        draft[section] = {**draft.get(section, {}), **changed}
    return TaehvRecipe.model_validate({"name": "test", **draft})


def only(**values: dict[str, object]) -> str:
    (problem,) = check_rules(recipe(**values))
    return problem


def test_a_good_recipe_has_no_problems_and_no_warnings() -> None:
    assert check_rules(recipe()) == []
    assert warnings(recipe()) == []


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if name.startswith("taehv")])
def test_every_bundled_recipe_runs(name: str) -> None:
    loaded = load_recipe(name, {"data_root": "clips"})
    assert check_rules(loaded) == []
    assert loaded.name == name
    assert loaded.validation.num_validation_samples > 0
    for warning in warnings(loaded):
        assert "latents" in warning  # short windows are what these recipes are known by


def test_the_known_recipes_hold_the_known_numbers() -> None:
    rows = {
        "taehv_small": (128, 128, 12, 2, 2, 3e-4, 10_000),
        "taehv_a800": (480, 720, 12, 2, 8, 1e-4, 5_000),
        "taehv_h100": (480, 720, 12, 2, 8, 1e-4, 100_000),
        "taehv_h100_1gpu": (480, 480, 20, 1, 16, 1e-4, 100_000),
    }
    for name, row in rows.items():
        r = load_recipe(name, {"data_root": "clips"})
        clip = (r.data.height, r.data.width, r.data.n_frames)
        batch = (r.training.train_batch_size, r.training.gradient_accumulation_steps)
        assert (*clip, *batch, r.optimizer.learning_rate, r.training.max_train_steps) == row, name
        assert (r.loss.reconstruction_loss_weight, r.model.variant) == (10, "taecvx")
        assert r.model.pretrained_model_path == "checkpoints/taecvx.pth"
        assert r.training.gradient_checkpointing is (r.data.height == 480)
        validation = r.validation
        assert (validation.validation_steps, validation.num_validation_samples, validation.validation_batch_size) == (
            1000,
            20,
            2,
        )
        assert (validation.early_stopping_patience, r.checkpoint.checkpointing_steps) == (5, 500)


def test_frame_counts_name_the_nearest_valid_ones() -> None:
    problem = only(data={"n_frames": 19})
    assert "n_frames=19" in problem and "16 or 20" in problem and "data.n_frames" in problem
    assert "22" in only(data={"n_frames": 20}, model={"variant": "taeh3"})
    assert check_rules(recipe(data={"n_frames": 19, "pad_frames": True})) == []


@given(st.integers(1, 120), st.sampled_from(sorted(VARIANTS)), st.booleans())
def test_the_frame_rule_is_the_frame_plan(n: int, name: str, pad: bool) -> None:
    made = recipe(data={"n_frames": n, "pad_frames": pad, "height": 64, "width": 64}, model={"variant": name})
    try:
        training_plan(n, made.spec(), pad)
    except FramePlanError as error:
        assert check_rules(made) == [str(error)]
    else:
        assert check_rules(made) == []
        warnings(made)


def test_sizes_name_the_nearest_multiples() -> None:
    assert "height=470 is not a multiple of 8, as taew2_1 needs. Use 464 or 472 (key: data.height)." in only(
        data={"height": 470}
    )
    assert "Use 704 or 736 (key: data.width)" in only(
        data={"width": 720, "n_frames": 40}, model={"variant": "taeltx_2"}
    )
    assert "Use 8 (key: data.height)" in only(data={"height": 5}, validation={"validation_height": 16})


def test_measured_clips_are_large_enough_for_ssim() -> None:
    height, width = check_rules(recipe(data={"height": 8, "width": 8}))
    assert "height=8 is too small" in height and "Use 16 or more (key: data.height)" in height
    assert "Use 16 or more (key: data.width), or set validation.validation_width=16" in width
    assert check_rules(recipe(data={"height": 16, "width": 16})) == []
    own = {"validation_height": 16, "validation_width": 16}
    assert check_rules(recipe(data={"height": 8, "width": 8}, validation=own)) == []


def test_buckets_are_checked_one_by_one() -> None:
    buckets = [[64, 64, 13], [60, 64, 36], [64, 64, 36], [64, 64, 36]]
    problems = check_rules(recipe(data={"buckets": buckets}))
    assert len(problems) == 3
    assert "data.buckets[0]" in problems[0] and "data.n_frames" not in problems[0]
    assert "Use 56 or 64 (key: data.buckets[1])" in problems[1]
    assert "[64, 64, 36] more than once" in problems[2]


def test_all_rules_speak_at_once() -> None:
    problems = check_rules(
        recipe(
            data={"n_frames": 19, "width": 63, "data_root": "rooms", "annotation_file": "a.json"},
            optimizer={"lr_warmup_steps": 5001},
            validation={"metric_for_best_model": "lpips"},
        )
    )
    assert len(problems) == 5
    also = check_rules(recipe(model={"variant": "taew21"}, optimizer={"lr_warmup_steps": 5001}))
    assert len(also) == 2 and "taew2_1" in also[0]


def test_warm_up_fits_into_the_run() -> None:
    assert check_rules(recipe(optimizer={"lr_warmup_steps": 5000})) == []
    assert "Use at most 5000" in only(optimizer={"lr_warmup_steps": 5001})


def test_held_out_videos_are_not_the_training_videos() -> None:
    assert "is data_root itself" in only(data={"held_out_root": "./clips/"})
    assert check_rules(recipe(data={"held_out_root": "clips/held_out"})) == []


def test_lpips_as_the_measure_needs_its_weights() -> None:
    assert "validation.lpips_backbone" in only(validation={"metric_for_best_model": "lpips"})
    chosen = {"metric_for_best_model": "lpips", "lpips_backbone": "vgg16.pth"}
    assert check_rules(recipe(validation=chosen)) == []


def test_published_weights_keep_their_widths() -> None:
    model = {"pretrained_model_path": "taew2_1.pth", "encoder_width": 32, "decoder_widths": [256, 128, 64, 64]}
    assert "model.encoder_width=32 does not fit taew2_1.pth: a published taew2_1 has 64" in only(model=model)
    assert check_rules(recipe(model={**model, "encoder_width": 64})) == []
    assert check_rules(recipe(model={**model, "pretrained_model_path": "output/demo/best_model"})) == []


def test_warnings_name_what_is_rarely_meant() -> None:
    (weight,) = warnings(recipe(loss={"reconstruction_loss_weight": 0.1}))
    assert "reconstruction_loss_weight=0.1 is below flicker_loss_weight=5" in weight
    (window,) = warnings(recipe(data={"n_frames": 32}))
    assert "n_frames=32 makes 8 latents" in window and "n_frames=36" in window
    (late,) = warnings(recipe(validation={"validation_steps": 5001}))
    assert "validation.validation_steps=5001 is beyond max_train_steps=5000" in late
    (late,) = warnings(recipe(checkpoint={"checkpointing_steps": 5001}))
    assert "nothing is saved before the end" in late
    (high,) = warnings(recipe(optimizer={"lr_warmup_steps": 1667}))
    assert "lr_warmup_steps=1667 of max_train_steps=5000 are warm-up" in high and "about 250" in high
    assert any("flicker_loss_weight has no effect" in w for w in warnings(recipe(data={"n_frames": 4})))
    assert warnings(recipe(data={"n_frames": 12, "buckets": [[64, 64, 12], [32, 32, 36]]})) == []


DISTIL = {"use_ref_vae": True, "ref_vae_path": "wan"}


def test_a_reference_vae_is_needed_to_distil_and_its_cache_only_then() -> None:
    assert "teacher.ref_vae_path" in only(teacher={"use_ref_vae": True})
    assert check_rules(recipe(teacher=DISTIL)) == []
    assert "teacher.use_ref_vae=true" in only(data={"latent_cache": "cache"})


def test_what_is_trained_has_something_to_learn() -> None:
    loss = {"encoder_loss_weight": 0.0}
    assert "model.train_part=decoder" in only(teacher=DISTIL, loss=loss)
    start = {"pretrained_model_path": "run/best_model"}
    assert check_rules(recipe(teacher=DISTIL, loss=loss, model={"train_part": "decoder", **start})) == []
    assert "at random" in only(teacher=DISTIL, model={"train_part": "decoder"})
    adversary = {"use_seraena": True}
    assert "train_part=encoder" in only(teacher=DISTIL, seraena=adversary, model={"train_part": "encoder", **start})


def test_loss_terms_name_what_they_need() -> None:
    assert "validation.lpips_backbone" in only(loss={"perceptual_loss_weight": 0.1, "perceptual_kind": "lpips"})
    fp16 = {**DISTIL, "ref_vae_dtype": "fp16"}
    assert "teacher.ref_vae_dtype" in only(teacher=fp16, loss={"decoder_loss_weight": 0.1})
    small = {"buckets": [[8, 8, 12]]}
    assert "too few for the perceptual loss" in only(data=small, loss={"perceptual_loss_weight": 0.1})


def test_the_replay_buffer_holds_a_group_of_the_largest_clip() -> None:
    stages = {"stages": [{"from_step": 10, "height": 480, "width": 720, "n_frames": 12}]}
    problem = only(data=stages, seraena={"use_seraena": True, "seraena_buffer_mb": 2})
    assert "Use at least 4" in problem and "480 x 720" in problem
    assert check_rules(recipe(data=stages, seraena={"use_seraena": True, "seraena_buffer_mb": 4})) == []


def test_stages_follow_one_another_within_the_run() -> None:
    def stage(step: int, n_frames: int = 12) -> dict[str, int]:
        return {"from_step": step, "height": 64, "width": 64, "n_frames": n_frames}

    assert "not after the stage before it" in only(data={"stages": [stage(9), stage(9)]})
    assert "the run ends at 5000" in only(data={"stages": [stage(5000)]})
    assert "data.stages[0].n_frames" in only(data={"stages": [stage(9, n_frames=13)]})


def test_warnings_of_the_modes() -> None:
    (own,) = warnings(recipe(model={"variant": "taecvx"}))
    assert "cannot decode what CogVideoX makes" in own
    (single,) = warnings(recipe(seraena={"use_seraena": True, "n_seraena_frames": 1}))
    assert "nothing in it watches flicker" in single
    (never,) = warnings(recipe(seraena={"use_seraena": True, "seraena_start_step": 5000}))
    assert "never starts" in never
    (idle,) = warnings(recipe(loss={"encoder_loss_weight": 1.0}))
    assert "encoder_loss_weight has no effect in mode autoencode" in idle
