"""The cache of conditions: a name for all that an entry depends on, and samples that bring their conditions along."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.core.rng import normal
from tinyworld.data.cut import Cut
from tinyworld.data.entries import IncompleteCacheError
from tinyworld.data.loader import step_batches
from tinyworld.data.order import Order
from tinyworld.data.worlds import condition_cache
from tinyworld.data.worlds.batch import stack_worlds
from tinyworld.data.worlds.condition_cache import ConditionCache, Makers, read_makers, write_makers
from tinyworld.data.worlds.cut import draw_cut
from tinyworld.data.worlds.dataset import WorldDataset
from tinyworld.data.worlds.scan import WorldRef

SIZE = (16, 32, 5)
ALL = Makers("codec", "text", "image")


@pytest.fixture
def own(worlds: list[WorldRef], tmp_path: Path) -> list[WorldRef]:
    """Samples whose videos a test may change."""
    copies = []
    for world in worlds:
        video = shutil.copy(world.entry.video, tmp_path / f"{world.id}.mp4")
        copies.append(replace(world, entry=replace(world.entry, video=video, caption=f"a room, {world.id}")))
    return copies


@pytest.fixture
def cache(tmp_path: Path) -> ConditionCache:
    return ConditionCache(tmp_path / "cache", ALL, text_tokens=6)


def cut_of(world: WorldRef, seed: int = 0) -> Cut:
    return draw_cut(world, SIZE, [1, 2], random.Random(seed))[0].picture


def made(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return normal([seed], (16, 2, 2, 4))[0], normal([seed + 1], (16, 1, 2, 4))[0], normal([seed + 2], (7, 8))[0]


def words(seed: int, tokens: int) -> Tensor:
    text = torch.zeros(6, 4)
    text[:tokens] = normal([seed], (tokens, 4))[0]
    return text


def test_what_is_read_is_what_was_written(own: list[WorldRef], cache: ConditionCache) -> None:
    cut, (latents, first, clip) = cut_of(own[0]), made()
    assert cache.missing_cuts([cut]) == [cut] and cache.missing_texts(["a", ""]) == ["a", ""]
    size = cache.write_clip(cut, latents, first, clip)
    cache.write_text("a", words(0, 3))
    cache.write_text("", words(0, 0))
    found = cache.get(cut, "a")
    assert found.text is not None and found.clip is not None
    for one, other in zip(found, (latents, first, words(0, 3), clip), strict=True):
        assert one is not None and torch.equal(one, other.bfloat16())
    assert torch.equal(cache.text(""), torch.zeros(6, 4).bfloat16())
    (entry,) = (cache.root / "clips").rglob("*.safetensors")
    assert entry.stat().st_size == size
    cache.require([cut], ["a", ""])
    assert cache.missing_cuts([cut], deep=True) == cache.missing_texts(["a", ""], deep=True) == []


def test_zeros_behind_a_prompt_are_not_kept_and_those_within_are(cache: ConditionCache) -> None:
    text = words(1, 4)
    text[1] = 0
    sizes = [cache.write_text("four tokens", text), cache.write_text("six tokens!", words(2, 6))]
    assert sizes[1] - sizes[0] == 2 * 4 * 2
    assert torch.equal(cache.text("four tokens"), text.bfloat16())


def test_without_encoders_there_are_latents_alone(own: list[WorldRef], tmp_path: Path) -> None:
    cache, cut = ConditionCache(tmp_path / "cache", Makers("codec"), 6), cut_of(own[0])
    assert cache.missing_texts(["", "a"]) == []
    cache.write_clip(cut, *made()[:2], None)
    found = cache.get(cut, "a caption that nobody encodes")
    assert found.text is None and found.clip is None
    cache.require([cut], ["", "a"])


def test_the_key_changes_with_each_ingredient(
    own: list[WorldRef], cache: ConditionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = cut_of(own[0])
    cache.write_clip(cut, *made())
    cache.write_text("a", words(0, 2))
    numbers = cut.numbers[:-1]
    others = [replace(cut, numbers=numbers), replace(cut, region=(0, 0, 16, 32)), replace(cut, height=32)]
    others += [replace(cut, width=16), cut_of(own[1])]
    assert cache.missing_cuts([cut, *others]) == others
    for makers in (replace(ALL, codec="other"), replace(ALL, image="other")):
        assert ConditionCache(cache.root, makers, 6).missing_cuts([cut]) == [cut]
        assert ConditionCache(cache.root, makers, 6).missing_texts(["a", "b"]) == ["b"]
    other_text = ConditionCache(cache.root, replace(ALL, text="other"), 6)
    assert other_text.missing_cuts([cut]) == [] and other_text.missing_texts(["a"]) == ["a"]
    moved = replace(cut, clip=replace(cut.clip, id="elsewhere", fps=1.0), start=99, step=7)
    assert cache.missing_cuts([moved], deep=True) == []
    monkeypatch.setattr(condition_cache, "FORMAT", condition_cache.FORMAT + 1)
    later = ConditionCache(cache.root, ALL, 6)
    assert later.missing_cuts([cut]) == [cut] and later.missing_texts(["a"]) == ["a"]


def test_a_changed_video_is_noticed(own: list[WorldRef], cache: ConditionCache) -> None:
    cuts = [cut_of(world) for world in own]
    for cut in cuts:
        cache.write_clip(cut, *made())
    os.utime(own[0].entry.video, (1, 1))  # the same content
    cache.require(cuts, [])
    with own[0].entry.video.open("ab") as video:
        video.write(b"more")
    with pytest.raises(IncompleteCacheError, match=r"1 of 3 clips .*tinyworld data cache RECIPE"):
        cache.require(cuts, [])
    with pytest.raises(IncompleteCacheError, match=r"missing or damaged.*tinyworld data cache RECIPE"):
        cache.get(cuts[0], "")
    own[1].entry.video.unlink()
    with pytest.raises(OSError, match="No such file"):
        cache.get(cuts[1], "")


def test_numbers_that_are_not_finite_are_refused(own: list[WorldRef], cache: ConditionCache) -> None:
    latents, first, clip = made()
    latents[3, 1, 0, 0] = float("nan")
    with pytest.raises(DataError, match=r"latents of .* not finite.*model\.codec_path"):
        cache.write_clip(cut_of(own[0]), latents, first, clip)
    with pytest.raises(DataError, match="the prompt 'a'"):
        cache.write_text("a", torch.full((2, 4), float("inf")))
    assert cache.missing_cuts([cut_of(own[0])]) and cache.missing_texts(["a"])


def test_what_nobody_needs_is_swept(own: list[WorldRef], cache: ConditionCache) -> None:
    cuts = [cut_of(world) for world in own]
    for number, cut in enumerate(cuts):
        cache.write_clip(cut, *made(number))
    for prompt in ("", "a", "b"):
        cache.write_text(prompt, words(0, 2))
    assert cache.sweep(cuts[:2], ["", "b"])[0] == 2
    assert cache.missing_cuts(cuts) == cuts[2:] and cache.missing_texts(["", "a", "b"]) == ["a"]


def test_whose_entries_they_are(tmp_path: Path) -> None:
    assert read_makers(tmp_path) is None
    write_makers(tmp_path, Makers("one"))
    assert read_makers(tmp_path) == Makers("one")
    write_makers(tmp_path, Makers("one", "text", "image"))
    write_makers(tmp_path, Makers("one"))  # a recipe without text forgets nothing
    assert read_makers(tmp_path) == Makers("one", "text", "image")
    write_makers(tmp_path, Makers(text="text"))
    assert read_makers(tmp_path) == Makers("one", "text", "image")
    assert Makers("one").differing(Makers("one", "text")) == Makers().differing(Makers("one")) == []
    assert Makers("one", "text").differing(Makers("two", "other", "image")) == ["codec", "text encoder"]
    (tmp_path / "made_by.json").write_text(json.dumps(["no"]))
    assert read_makers(tmp_path) is None


# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(own: list[WorldRef], cache: ConditionCache) -> WorldDataset:
    """A data set whose two cuts of each sample are all in the cache."""
    dataset = WorldDataset(own, [SIZE], frame_steps=[1, 2], cache=cache)
    for number, draw in enumerate(order_of(dataset).every_cut()):
        cache.write_clip(dataset.plan(draw)[0].picture, *made(number))
    for world in own:
        cache.write_text(world.entry.caption, words(3, 5))
    return dataset


def order_of(dataset: WorldDataset) -> Order:
    return Order(dataset.bucket_of, 2, seed=4, cuts=2, ids=[world.id for world in dataset.worlds])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_bring_their_conditions_along(filled: WorldDataset, num_workers: int) -> None:
    plain = WorldDataset(filled.worlds, [SIZE], frame_steps=[1, 2])
    order = order_of(filled)
    cached = step_batches(filled, stack_worlds, order, 0, 6, num_workers=num_workers)
    for step, ((one,), (other,)) in enumerate(zip(cached, step_batches(plain, stack_worlds, order, 0, 6), strict=True)):
        assert one.frames.shape[:2] == (2, 0)  # nobody looks at the pictures of cached latents
        assert torch.equal(one.points, other.points)
        assert one.draws == other.draws and other.conditions is None and one.conditions is not None
        for place, draw in enumerate(order.batch(step)):
            expected = filled.cache.get(plain.plan(draw)[0].picture, one.captions[place])  # type: ignore[union-attr]
            for mine, true in zip(one.conditions, expected, strict=True):
                assert mine is not None and true is not None and torch.equal(mine[place], true)


def test_batches_split_and_move_with_their_conditions(filled: WorldDataset) -> None:
    batch = stack_worlds([filled[draw] for draw in order_of(filled).batch(0)])
    assert batch.conditions is not None and batch.conditions.text is not None
    assert batch.conditions.latents.shape == (2, 16, 2, 2, 4) and batch.conditions.text.shape == (2, 6, 4)
    pieces = batch.split(2)
    for number, tensor in enumerate(batch.conditions):
        parts = [piece.conditions[number] for piece in pieces if piece.conditions is not None]
        assert tensor is not None and torch.equal(torch.cat([part for part in parts if part is not None]), tensor)
    moved = batch.to("meta").conditions
    assert moved is not None and all(tensor is not None and tensor.device.type == "meta" for tensor in moved)


def test_a_gap_is_no_unreadable_sample(filled: WorldDataset) -> None:
    """Another sample in its place would hide that the cache is incomplete."""
    draw = order_of(filled).batch(0)[0]
    assert filled.cache is not None
    filled.cache.sweep([], [world.entry.caption for world in filled.worlds])
    with pytest.raises(IncompleteCacheError, match="tinyworld data cache"):
        filled[draw]
    with pytest.raises(DataError, match="tinyworld data cache"):
        next(step_batches(filled, stack_worlds, order_of(filled), 0, 1, num_workers=1))


def test_an_unreadable_sample_is_replaced_by_one_that_is_in_the_cache(filled: WorldDataset) -> None:
    victim = filled.worlds[1]
    victim.entry.video.write_bytes(b"no video")
    assert filled.cache is not None
    filled.cache.videos.mark(victim.entry.video, "no video")
    cuts = [filled.plan(draw)[0].picture for draw in order_of(filled).every_cut()]
    filled.cache.require(cuts, [])
    batches = [batch for (batch,) in step_batches(filled, stack_worlds, order_of(filled), 0, 6)]
    assert all(victim.id not in batch.ids and batch.conditions is not None for batch in batches)
    assert {path for batch in batches for path, _ in batch.faults} == {str(victim.entry.video)}
