"""Filling the latent cache: what training asks for, once; resumable, shared between processes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.clips import make_clips
from tests.teachers import make_teacher
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.rng import normal
from tinyworld.data.loader import train_batches
from tinyworld.models.teachers import Teacher
from tinyworld.tasks.taehv.clips import cached_views, clip_dataset, latent_cache, order, uses_cache
from tinyworld.tasks.taehv.fill_cache import batches, fill_cache, wanted
from tinyworld.tasks.taehv.reference import open_reference, reference_digest
from tinyworld.tasks.taehv.sources import find_sources


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher"), "wan")


@pytest.fixture
def recipe(teacher_folder: Path, tmp_path: Path) -> TaehvRecipe:
    (tmp_path / "videos").mkdir()
    make_clips(tmp_path / "videos", count=5)
    return make_recipe(tmp_path, teacher_folder)


def make_recipe(tmp_path: Path, teacher: Path, **changes: Any) -> TaehvRecipe:
    values = {
        "data_root": str(tmp_path / "videos"), "height": 32, "width": 32, "n_frames": 8, "train_batch_size": 2,
        "num_workers": 0, "output_dir": str(tmp_path), "variant": "taew2_1", "held_out_fraction": 0.3, "device": "cpu",
        "use_ref_vae": True, "ref_vae_path": str(teacher), "ref_vae_dtype": "fp32", "cached_crops": 2,
        "latent_cache": str(tmp_path / "cache"), "colour_jitter": 0.1, "clip_ends": 0.3, "validation_height": 32,
        "validation_width": 32,
    }  # fmt: skip
    return load_recipe("taehv_demo", {**values, **changes})


def training_set(recipe: TaehvRecipe, stage: int = 0, cached: bool = True) -> Any:
    clips = find_sources(recipe).train
    dataset = clip_dataset(recipe, clips, recipe.stages()[stage], latent_cache(recipe) if cached else None)
    return dataset, order(recipe, dataset, 2)


def test_training_finds_what_the_teacher_in_the_loop_would_give(recipe: TaehvRecipe) -> None:
    done = fill_cache(recipe)
    entries = list((Path(recipe.data.latent_cache or "") / "latents").rglob("*.safetensors"))
    assert (done.there, done.made, done.bytes) == (0, 6, sum(entry.stat().st_size for entry in entries))
    assert len(entries) == 6  # 3 training clips, 2 cuts each
    cached, plain = training_set(recipe), training_set(recipe, cached=False)
    cache = latent_cache(recipe)
    assert cache is not None
    cache.require(cached_views(recipe, cached[0]))
    teacher = open_reference(recipe)
    for (one,), (other,) in zip(train_batches(*cached, 0, 8), train_batches(*plain, 0, 8), strict=True):
        assert torch.equal(one.frames, other.frames) and one.posterior is not None and other.posterior is None
        expected = teacher.encode(other.frames[:, :5].float() / 255)  # 8 frames decode to 5
        mean, logvar = one.posterior
        assert mean.shape == (2, 2, 16, 4, 4)
        torch.testing.assert_close(mean, expected.mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(logvar, expected.logvar, rtol=1e-3, atol=1e-3)
        assert one.noise_seeds == other.noise_seeds
        assert torch.equal(normal(one.noise_seeds, mean.shape[1:]), normal(other.noise_seeds, mean.shape[1:]))


def test_padded_clips_are_given_padded(teacher_folder: Path, recipe: TaehvRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, teacher_folder, n_frames=7, pad_frames=True, cached_crops=1)
    assert fill_cache(recipe).made == 3
    ((batch,),) = train_batches(*training_set(recipe), 0, 1)
    frames = torch.cat([batch.frames, batch.frames[:, -1:], batch.frames[:, -1:]], 1).float() / 255  # 9 are decoded
    torch.testing.assert_close(batch.posterior[0], open_reference(recipe).encode(frames).mean, rtol=1e-3, atol=1e-3)


def test_only_what_is_missing_is_computed(recipe: TaehvRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fill_cache(recipe).made == 6
    cache = latent_cache(recipe)
    views = cached_views(recipe, training_set(recipe)[0])
    assert cache is not None
    cache.path(views[1]).write_bytes(cache.path(views[1]).read_bytes()[:-10])
    with views[2].clip.path.open("ab") as video:
        video.write(b"\0" * 8)  # another file, the same pictures
    shown: list[int] = []
    encode = Teacher.encode
    monkeypatch.setattr(Teacher, "encode", lambda self, frames: (shown.append(len(frames)), encode(self, frames))[1])
    done = fill_cache(recipe)
    assert (done.there, done.made, sum(shown)) == (3, 3, 3)
    monkeypatch.setattr("tinyworld.tasks.taehv.fill_cache.open_reference", None)  # nothing missing, nothing loaded
    assert fill_cache(recipe).there == 6


def test_a_failure_in_the_middle_keeps_what_was_made(recipe: TaehvRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = Teacher.encode, iter(range(2))
    monkeypatch.setattr(Teacher, "encode", lambda self, frames: (next(calls), encode(self, frames))[1])
    with pytest.raises(StopIteration):
        fill_cache(recipe)
    monkeypatch.undo()
    done = fill_cache(recipe)
    assert (done.there, done.made) == (4, 2)


def test_all_stages_and_buckets_are_filled(teacher_folder: Path, recipe: TaehvRecipe, tmp_path: Path) -> None:
    stages = [{"from_step": 10, "height": 48, "width": 48, "n_frames": 12}]
    recipe = make_recipe(tmp_path, teacher_folder, buckets=[[32, 32, 8], [32, 48, 4]], stages=stages)
    assert fill_cache(recipe).made == 18
    cache = latent_cache(recipe)
    assert cache is not None
    for stage in (0, 1):
        dataset, dealt = training_set(recipe, stage)
        cache.require(cached_views(recipe, dataset))
        for ((batch,),) in zip(train_batches(dataset, dealt, 0, dealt.round_length), strict=True):
            assert batch.posterior is not None


def test_another_teacher_or_precision_has_its_own_entries(
    teacher_folder: Path, recipe: TaehvRecipe, tmp_path: Path
) -> None:
    assert fill_cache(recipe).made == 6
    other = make_teacher(tmp_path / "other", "wan", seed=1)
    for changes in ({"ref_vae_path": str(other)}, {"ref_vae_dtype": "bf16"}, {"latent_convention": "raw"}):
        changed = make_recipe(tmp_path, teacher_folder, **changes)
        assert reference_digest(changed) == open_reference(changed).digest != reference_digest(recipe)
        with pytest.raises(DataError, match="6 of 6 latents are missing"):
            latent_cache(changed).require(cached_views(changed, training_set(changed)[0]))  # type: ignore[union-attr]
    shutil.move(other, tmp_path / "moved")
    assert reference_digest(make_recipe(tmp_path, tmp_path / "moved")) != reference_digest(recipe)


def test_prune_keeps_what_the_recipe_needs(teacher_folder: Path, recipe: TaehvRecipe, tmp_path: Path) -> None:
    made = fill_cache(recipe)
    fewer = make_recipe(tmp_path, teacher_folder, cached_crops=1)
    kept = fill_cache(fewer)
    assert (kept.there, kept.made, kept.removed) == (3, 0, 0)
    pruned = fill_cache(fewer, prune=True)
    assert pruned.removed == 3 and 0 < pruned.removed_bytes < made.bytes
    again = fill_cache(recipe)
    assert (again.there, again.made) == (3, 3)


def test_an_unreadable_video_is_left_out_within_the_budget(recipe: TaehvRecipe, tmp_path: Path) -> None:
    victim = find_sources(recipe).train[1].path
    state = victim.stat()
    victim.write_bytes(b"\0" * state.st_size)  # damaged after the scan, which remembers files by size and time
    os.utime(victim, ns=(state.st_mtime_ns, state.st_mtime_ns))
    done = fill_cache(recipe)
    assert done.made == 4 and list(done.faults) == [str(victim)]
    dataset, dealt = training_set(recipe)
    dataset.cache.require(cached_views(recipe, dataset))
    assert all(victim.stem not in batch.ids for ((batch,),) in zip(train_batches(dataset, dealt, 0, 6), strict=True))
    strict = recipe.model_copy(update={"data": recipe.data.model_copy(update={"quarantine_budget": 0.0})})
    with pytest.raises(DataError, match="unreadable"):
        fill_cache(strict)


def test_the_processes_of_a_torchrun_share_the_work(recipe: TaehvRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank, share in enumerate((1, 2, 1, 2)):
        monkeypatch.setenv("RANK", str(rank))
        done = fill_cache(recipe)
        assert (done.there, done.made, done.by_others) == (0, share, 0)
    monkeypatch.undo()
    assert fill_cache(recipe).there == 6


def test_what_another_process_made_meanwhile_is_not_made_again(
    recipe: TaehvRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Teacher.encode
    others: list[Any] = []

    def encode_slowly(teacher: Teacher, frames: torch.Tensor) -> Any:
        """While the first batch is computed, another process does everything."""
        if not others:
            others.append("started")
            others.append(fill_cache(recipe))
        return encode(teacher, frames)

    monkeypatch.setattr(Teacher, "encode", encode_slowly)
    done = fill_cache(recipe)
    assert (others[1].there, others[1].made) == (0, 6)
    assert (done.there, done.made, done.by_others) == (0, 2, 4)
    assert fill_cache(recipe).there == 6


def test_groups_are_of_one_shape(recipe: TaehvRecipe) -> None:
    view = cached_views(recipe, training_set(recipe)[0])[0]
    views = [replace(view, start=n, height=32 * (1 + n % 3)) for n in range(10)]
    groups = list(batches(views, 2))
    assert sorted(v.start for group in groups for v in group) == list(range(10))
    assert all(len({v.shape for v in group}) == 1 for group in groups) and max(map(len, groups)) == 2
    assert len(groups) == 6


def test_what_is_wanted_is_listed_once(recipe: TaehvRecipe) -> None:
    repeated = recipe.model_copy(update={"data": recipe.data.model_copy(update={"buckets": ((32, 32, 8),)})})
    _, views = wanted(repeated, find_sources(recipe).train)
    assert len(set(views)) == len(views) == 6
    assert [str(view.clip.path) for view in views] == sorted(str(view.clip.path) for view in views)


def test_a_recipe_without_cache_is_refused(teacher_folder: Path, recipe: TaehvRecipe, tmp_path: Path) -> None:
    without = make_recipe(tmp_path, teacher_folder, latent_cache=None)
    assert not uses_cache(without) and latent_cache(without) is None
    with pytest.raises(ConfigError, match=r"data\.latent_cache"):
        fill_cache(without)
    alone = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"use_ref_vae": False})})
    assert not uses_cache(alone)
    for action in (fill_cache, open_reference, reference_digest):
        with pytest.raises(ConfigError, match=r"teacher\.use_ref_vae=true"):
            action(alone)  # type: ignore[operator]
