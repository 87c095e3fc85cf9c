"""The memory plan: what it counts, that it has the shape of what a user measured, and that what it proposes fits."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.teachers import make_teacher
from tinyworld.cli.flags import parse_overrides
from tinyworld.config.batch import clips_per_step
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core import host_memory
from tinyworld.core.errors import ConfigError
from tinyworld.models.teachers import SUPPORTED
from tinyworld.tasks import build
from tinyworld.tasks.build import checked_plan
from tinyworld.tasks.memory_advice import apply
from tinyworld.tasks.memory_plan import ALLOWANCE, STEP, TEACHING, VALIDATION
from tinyworld.tasks.taehv.memory_parts import EmptyReference, EmptySeraena, empty_reference, stepping
from tinyworld.tasks.taehv.memory_proposals import proposals
from tinyworld.tasks.taehv.plan_memory import ENCODING, LEARNING, plan_memory

GUIDE = {12: 18, 16: 25, 20: 32, 24: 40, 28: 48}
"""GB that the user's notes give for n_frames at 480 x 480, one clip, with Seraena (single frames) and a reference VAE."""


def small(**changes: Any) -> TaehvRecipe:
    values = {"height": 64, "width": 64, "train_batch_size": 4, "gradient_accumulation_steps": 2, "run_name": "x"}
    return load_recipe("taehv_demo", {**values, **changes})


@pytest.fixture(scope="module")
def wan_config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A full-size reference VAE of which only the config is there."""
    folder = tmp_path_factory.mktemp("wan")
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    return str(folder)


def distil(reference: str, **changes: Any) -> TaehvRecipe:
    return small(use_ref_vae=True, ref_vae_path=reference, **changes)


def test_checkpointing_and_size_count() -> None:
    plain, checkpointed, larger = (
        stepping(made, (made.training.train_batch_size, 64, 64, 12), None, None)
        for made in (small(), small(gradient_checkpointing=True), small(train_batch_size=8))
    )
    assert checkpointed.held < plain.held / 2
    assert plain.held / 4 < checkpointed.working < plain.held  # a decoder segment at full size, anew
    assert checkpointed.total < plain.total
    assert larger.held == pytest.approx(2 * plain.held, rel=0.05)


def test_the_plan_has_the_shape_of_the_guide(wan_config: str) -> None:
    """The user's table in ratios to its value at 20 frames.

    It trims every count to n - 3 frames, the plain law (taew2_1 here, with a VAE that takes 9, 13, … frames), and judges
    single frames (group size 1), all of a clip at once. In bytes it is about twice ours at 20 frames; and it bends upwards a
    little, which no step does whose tensors all grow with the frames.
    """
    keys = {
        "data_root": "rooms", "ref_vae_path": wan_config, "variant": "taew2_1", "pretrained_model_path": None,
        "n_seraena_frames": 1, "gradient_checkpointing": False, "validation_frames": 12, "validation_batch_size": 1,
        "perceptual_loss_weight": 0.0,
        "latent_cache": "cache",  # the VAE's encoding, 3 GiB whatever the frames, is never the most here
    }  # fmt: skip
    totals = {}
    for frames in GUIDE:
        plan = plan_memory(load_recipe("taehv_h100_1gpu", {**keys, "n_frames": frames}), 1)
        assert plan.clips == (1, 480, 480, frames)
        totals[frames] = plan.training - ALLOWANCE
    for frames, gigabytes in GUIDE.items():
        assert totals[frames] / totals[20] == pytest.approx(gigabytes / GUIDE[20], abs=0.08)
    steps = [totals[frames + 4] - totals[frames] for frames in (12, 16, 20, 24)]
    assert max(steps) < 1.05 * min(steps)


def test_every_part_is_counted(wan_config: str) -> None:
    alone, taught = plan_memory(small(), 1), plan_memory(distil(wan_config), 1)
    assert set(alone.moments) == {STEP, VALIDATION}
    assert set(taught.moments) == {TEACHING, ENCODING, STEP, VALIDATION}
    assert taught.standing["reference VAE"] == pytest.approx(126.9e6 * 2, rel=0.01)  # bf16
    judged = plan_memory(distil(wan_config, decoder_loss_weight=0.1), 1)
    assert judged.moments[STEP] > 1.5 * taught.moments[STEP]  # the VAE's encoder forward and backward
    seraena = plan_memory(small(use_seraena=True, seraena_buffer_device="training"), 1)
    assert seraena.moments[LEARNING] > alone.moments[STEP] < seraena.moments[STEP]
    assert seraena.standing["Seraena's replay buffer"] == 256 * 2**20
    cached = plan_memory(distil(wan_config, latent_cache="cache"), 1)
    assert ENCODING not in cached.moments and "reference VAE" not in cached.standing
    assert all(size >= sum(taught.standing.values()) for name, size in taught.moments.items() if name != TEACHING)


def test_what_is_not_counted_is_said() -> None:
    (missing,) = plan_memory(distil("nobody/knows-it"), 1).not_counted
    assert "nobody/knows-it" in missing and "not on this machine" in missing


def test_the_dearest_stage_is_the_one_that_is_shown() -> None:
    stage = {"from_step": 10, "height": 96, "width": 128, "n_frames": 12, "train_batch_size": 3}
    plan = plan_memory(small(stages=[stage]), 1)
    assert (plan.clips, plan.key) == ((3, 96, 128, 12), "data.stages[0]")
    assert "3 clips of 96 x 128 x 12 (key: data.stages[0])" in plan.lines()[0]


@pytest.mark.parametrize("kind", ["cogvideox", "wan", "hunyuan", "hunyuan1_5", "ltx", "ltx2"])
def test_every_class_of_reference_vae_is_counted(kind: str, tmp_path: Path) -> None:
    assert len(SUPPORTED) == 6
    folder = make_teacher(tmp_path / kind, kind)
    reference = EmptyReference(folder, torch.bfloat16, False, False)
    latents = reference.facts.latent_count(9)
    side = 2 * reference.facts.spatial_compression
    encoding, teaching = reference.encoding(2, side, side, 9), reference.teaching(side, side, latents, 9)
    assert encoding.peak >= 2 * 9 * 3 * side * side * 2 and encoding.held == 0
    assert teaching.peak > 0


STAGE = {"from_step": 9, "height": 96, "width": 64, "n_frames": 16, "train_batch_size": 4}
LIMITS: dict[str, tuple[dict[str, Any], float]] = {
    "Seraena": ({"use_seraena": True, "seraena_buffer_device": "training", "seraena_buffer_mb": 64}, 0.5),
    "global batch": ({"global_batch_size": 32, "gradient_accumulation_steps": 1, "validation_height": 64}, 0.8),
    "stages": ({"stages": [STAGE], "validation_height": 64, "validation_width": 64}, 0.6),
}


@pytest.mark.parametrize("case", LIMITS)
def test_what_is_proposed_fits_and_keeps_the_clips_per_step(case: str) -> None:
    changes, share = LIMITS[case]
    recipe = small(**changes)
    plan = plan_memory(recipe, 2)
    limit = ALLOWANCE + int(share * (plan.total - ALLOWANCE))
    found = proposals(recipe, 2, limit)
    assert found
    for proposal in found:
        flags = parse_overrides(shlex.split(proposal.flags))
        typed = load_recipe("taehv_demo", {**recipe_values(recipe), **flags})
        assert typed == apply(recipe, proposal.changes)  # what is typed is what was tried
        assert plan_memory(typed, 2).total == proposal.total <= limit
        assert "instead of" in proposal.cost or clips_per_step(typed, 2) == clips_per_step(recipe, 2)


def recipe_values(recipe: TaehvRecipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    return {leaf: value for part in values.values() if isinstance(part, dict) for leaf, value in part.items()}


def test_a_plan_that_does_not_fit_is_refused_with_flags_to_type() -> None:
    recipe = small(validation_height=32, validation_width=32, gpu_memory="1700MiB")
    with pytest.raises(ConfigError, match=r"gpu_memory=1700MiB holds 1.66 GiB.*forward and backward pass") as refused:
        checked_plan(recipe, 1)
    assert "  --train_batch_size 2 --gradient_accumulation_steps 4  (the same clips per step)" in str(refused.value)
    with pytest.raises(ConfigError, match="No batch, clip size or setting"):
        checked_plan(small(gpu_memory="1GiB"), 1)
    assert checked_plan(small(gpu_memory="40GiB"), 1).total < 4 * 2**30


def test_a_reference_without_config_is_none(wan_config: str) -> None:
    assert empty_reference(small()) is None
    assert empty_reference(distil("nobody/knows-it")) is None
    assert empty_reference(distil(wan_config)) is not None
    assert EmptySeraena(small()).group == 3


def test_a_plan_for_a_cpu_is_made_where_it_may_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[int] = []
    monkeypatch.setattr(build, "checked_plan", lambda recipe, processes: planned.append(processes))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(host_memory, "available", lambda: 16 * 2**30)
    build.check_memory(small(), 1)
    assert planned == []
    build.check_memory(small(train_batch_size=4096), 1)
    build.check_memory(small(encoder_width=512), 1)
    build.check_memory(small(validation_height=512, validation_width=512), 1)
    build.check_memory(small(), 4)  # a quarter of it each
    assert planned == [1, 1, 1, 4]
    monkeypatch.setattr(host_memory, "available", lambda: None)
    build.check_memory(small(train_batch_size=4096), 1)
    assert len(planned) == 4


@pytest.mark.parametrize("text", ["MemTotal:  9 kB\nMemAvailable:   2048 kB\n", "MemTotal: 9 kB\n", None])
def test_free_main_memory_is_read_where_the_system_tells_it(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    assert host_memory.available() == (2**21 if text is not None and "Available" in text else None)


def test_what_is_surely_fine_is_above_the_plan() -> None:
    for changes in ({}, {"use_seraena": True}, {"encoder_width": 64, "decoder_widths": (256, 128, 64, 64)}):
        recipe = small(device="cpu", gradient_checkpointing=False, mixed_precision="no", **changes)
        assert build.surely_fits(recipe, 2**40)
        assert not build.surely_fits(recipe, plan_memory(recipe, 1).total)
