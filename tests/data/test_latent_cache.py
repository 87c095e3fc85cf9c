"""The latent cache: a name for all that the latents depend on, and clips that bring their latents along."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tinyworld.core.errors import DataError
from tinyworld.core.rng import normal
from tinyworld.data import latent_cache, video_digests
from tinyworld.data.augment import Colour
from tinyworld.data.clips import ClipDataset
from tinyworld.data.cut import Cut
from tinyworld.data.entries import IncompleteCacheError
from tinyworld.data.latent_cache import LatentCache
from tinyworld.data.loader import ClipBatch, train_batches
from tinyworld.data.order import Order
from tinyworld.data.scan import ClipRef


@pytest.fixture
def own_clips(clip_refs: list[ClipRef], tmp_path: Path) -> list[ClipRef]:
    """Copies that a test may change."""
    (tmp_path / "videos").mkdir()
    return [replace(ref, path=shutil.copy(ref.path, tmp_path / "videos" / ref.path.name)) for ref in clip_refs]


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    return LatentCache(tmp_path / "cache", "teacher")


def cut_of(clip: ClipRef, **changes: Any) -> Cut:
    plain = Cut(clip, (3, 4, 5), (2, 4, 32, 48), 32, 48, False, None, 3, 1)
    return replace(plain, **changes)


def latents(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    mean, logvar = normal([seed, seed + 1], (2, 4, 4, 6)).unbind(0)
    return 3 * mean, 5 * logvar - 8


def test_what_is_read_is_what_was_written(own_clips: list[ClipRef], cache: LatentCache) -> None:
    cut, (mean, logvar) = cut_of(own_clips[0]), latents()
    assert cache.read(cut) is None and cache.missing([cut]) == [cut]
    size = cache.write(cut, mean, logvar)
    assert size == cache.path(cut).stat().st_size
    found = cache.read(cut)
    assert found is not None and found[0].dtype == found[1].dtype == torch.float32
    for one, other in zip(found, (mean, logvar), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert cache.missing([cut]) == cache.missing([cut], deep=True) == []
    cache.write(cut, mean + 1, logvar)
    assert float((cache.get(cut)[0] - mean).mean()) == pytest.approx(1, abs=1e-2)


def test_certain_latents_stay_certain(own_clips: list[ClipRef], cache: LatentCache) -> None:
    cut, mean = cut_of(own_clips[0]), torch.zeros(1, 1, 1, 2)
    cache.write(cut, mean, torch.tensor([-1e5, 1e5]).view_as(mean))
    assert cache.get(cut)[1].flatten().tolist() == [-30, 20]
    for broken in (torch.full_like(mean, 1e5), torch.full_like(mean, float("nan"))):
        with pytest.raises(DataError, match=r"not finite in fp16 .*teacher\.ref_vae_dtype"):
            cache.write(cut, broken, mean)
    with pytest.raises(DataError, match="not finite"):
        cache.write(cut, mean, torch.full_like(mean, float("nan")))


INGREDIENTS: dict[str, dict[str, Any]] = {
    "frames": {"numbers": (3, 4, 4)},
    "fewer frames": {"numbers": (3, 4)},
    "step": {"numbers": (3, 5, 7)},
    "region": {"region": (2, 5, 32, 48)},
    "scale": {"region": (2, 4, 64, 96)},
    "height": {"height": 16},
    "width": {"width": 16},
    "mirror": {"mirror": True},
    "colour": {"colour": Colour(1.0, 1.0, 1.0, 0.0)},
    "brightness": {"colour": Colour(1.1, 1.0, 1.0, 0.0)},
    "contrast": {"colour": Colour(1.0, 1.1, 1.0, 0.0)},
    "saturation": {"colour": Colour(1.0, 1.0, 1.1, 0.0)},
    "hue": {"colour": Colour(1.0, 1.0, 1.0, 0.1)},
}


def test_the_key_changes_with_each_ingredient(
    own_clips: list[ClipRef], cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = cut_of(own_clips[0])
    keys = [cache.key(plain), *(cache.key(replace(plain, **changes)) for changes in INGREDIENTS.values())]
    keys += [cache.key(cut_of(own_clips[1])), LatentCache(cache.root, "other teacher").key(plain)]
    monkeypatch.setattr(latent_cache, "FORMAT", latent_cache.FORMAT + 1)
    keys.append(LatentCache(cache.root, "teacher").key(plain))
    assert len(set(keys)) == len(keys) == len(INGREDIENTS) + 4


def test_the_key_changes_with_nothing_else(own_clips: list[ClipRef], cache: LatentCache, tmp_path: Path) -> None:
    plain = cut_of(own_clips[0])
    key = cache.key(plain)
    shutil.copy(own_clips[0].path, tmp_path / "elsewhere.mp4")
    moved = ClipRef("other id", tmp_path / "elsewhere.mp4", 99, 960, 640, 60.0, "a caption")
    assert cache.key(replace(plain, clip=moved, start=0, step=7)) == key
    os.utime(own_clips[0].path)
    assert cache.key(plain) == LatentCache(tmp_path / "other cache", "teacher").key(plain) == key


def test_a_clip_end_is_told_apart_where_the_reference_vae_sees_it(own_clips: list[ClipRef], cache: LatentCache) -> None:
    straight = cut_of(own_clips[2], numbers=tuple(range(8)))
    ended = straight.first(5).first(8)
    assert cache.key(straight) != cache.key(ended)
    assert cache.key(straight.first(5)) == cache.key(ended.first(5))


def test_a_changed_video_makes_only_its_own_entries_missing(own_clips: list[ClipRef], cache: LatentCache) -> None:
    cuts = [cut_of(clip, mirror=mirror) for clip in own_clips for mirror in (False, True)]
    for number, cut in enumerate(cuts):
        cache.write(cut, *latents(number))
    assert cache.missing(cuts, deep=True) == []
    os.utime(own_clips[2].path, (1, 1))  # the same content: its digest is taken again, its entries stay
    assert cache.missing(cuts, deep=True) == []
    with own_clips[2].path.open("ab") as video:
        video.write(b"more")
    for reader in (cache, LatentCache(cache.root, "teacher")):
        assert reader.missing(cuts, deep=True) == reader.missing(cuts) == cuts[4:6]
    own_clips[0].path.unlink()
    assert cache.missing(cuts) == [*cuts[:2], *cuts[4:6]]


def test_a_video_is_read_once_for_its_digest(
    own_clips: list[ClipRef], cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(video_digests, "sha256", lambda path: (read.append(path), path.name)[1])
    for reader in (cache, cache, LatentCache(cache.root, "other")):
        assert [reader.videos.digest(clip.path) for clip in own_clips] == [clip.path.name for clip in own_clips]
    assert read == [clip.path for clip in own_clips]
    for record in (cache.root / "videos").iterdir():
        record.write_text(record.read_text()[:10])
    assert LatentCache(cache.root, "other").videos.digest(own_clips[0].path) == own_clips[0].path.name
    assert len(read) == len(own_clips) + 1


def test_what_nobody_needs_is_swept(own_clips: list[ClipRef], cache: LatentCache) -> None:
    cuts = [cut_of(clip) for clip in own_clips]
    for cut in cuts:
        cache.write(cut, *latents())
    old = LatentCache(cache.root, "a teacher of long ago")
    size = old.write(cuts[0], *latents())
    wanted = {cache.key(cut) for cut in cuts[:4]}
    gone = size + sum(cache.path(cut).stat().st_size for cut in cuts[4:])
    assert cache.sweep(wanted) == (3, gone)
    assert cache.missing(cuts) == cuts[4:] and old.missing(cuts) == cuts


# ---------------------------------------------------------------------------------------------------------------------
# in training


def posterior_of(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A stand-in for the reference VAE: uint8 T C H W to L c h w, different for every clip."""
    small = torch.nn.functional.avg_pool2d(frames[::4].float() / 255, 8)
    return 4 * small - 2, -small


@pytest.fixture
def filled(own_clips: list[ClipRef], cache: LatentCache) -> tuple[ClipDataset, Order]:
    dataset = ClipDataset(
        own_clips, [(32, 32, 8), (48, 32, 4)], [1, 2], "random", colour_jitter=0.1, clip_ends=0.3, lookahead=[3, 3],
        teacher_frames=[5, 1], cache=cache,
    )  # fmt: skip
    order = Order(dataset.bucket_of, 4, 3, 2, [clip.id for clip in own_clips])
    for draw in order.every_cut():
        view = dataset.teacher_view(draw)
        cache.write(view, *posterior_of(dataset.read(view)))
    return dataset, order


def same(one: list[list[ClipBatch]], other: list[list[ClipBatch]]) -> bool:
    return all(
        torch.equal(a.frames, b.frames)
        and all(torch.equal(x, y) for x, y in zip(a.posterior or (), b.posterior or (), strict=True))
        and a.posterior is not None
        and (a.ids, a.starts, a.noise_seeds) == (b.ids, b.starts, b.noise_seeds)
        for ours, theirs in zip(one, other, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_cached_latents_are_those_of_the_clip(filled: tuple[ClipDataset, Order]) -> None:
    dataset, order = filled
    for step in range(3 * order.round_length):
        draws = order.batch(step)
        for sample, draw in ((dataset[draw], draw) for draw in draws):
            expected = posterior_of(sample.frames[: dataset.teacher_frames[draw.bucket]])
            assert sample.posterior is not None and sample.noise_seed == draw.noise_seed
            for one, other in zip(sample.posterior, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_the_same_clip_and_noise_with_and_without_the_cache(filled: tuple[ClipDataset, Order]) -> None:
    dataset, order = filled
    without = ClipDataset(
        dataset.clips, dataset.buckets, [1, 2], "random", colour_jitter=0.1, clip_ends=0.3, lookahead=[3, 3]
    )
    batches = [train_batches(source, order, 0, 6) for source in (dataset, without)]
    for (one,), (other,) in zip(*batches, strict=True):
        assert torch.equal(one.frames, other.frames) and other.posterior is None
        assert one.noise_seeds == other.noise_seeds and len(set(one.noise_seeds)) == 4
        assert one.posterior is not None and one.posterior[0].shape[0] == 4
        shape = one.posterior[0].shape[1:]
        assert torch.equal(normal(one.noise_seeds, shape), normal(other.noise_seeds, shape))


def test_epochs_show_the_same_cuts_with_other_noise(filled: tuple[ClipDataset, Order]) -> None:
    dataset, order = filled
    seen: dict[tuple[int, str, int], tuple[torch.Tensor, torch.Tensor]] = {}
    noise: set[int] = set()
    samples = 0
    for step in range(5 * order.round_length):
        for draw in order.batch(step):
            sample = dataset[draw]
            assert sample.posterior is not None
            noise.add(sample.noise_seed)
            samples += 1
            key = (draw.bucket, sample.id, draw.epoch % 2)
            frames, mean = seen.setdefault(key, (sample.frames, sample.posterior[0]))
            assert torch.equal(frames, sample.frames) and torch.equal(mean, sample.posterior[0])
    assert len(noise) == samples
    assert len(seen) == len(order.every_cut())


def test_neither_workers_nor_the_start_change_a_batch(filled: tuple[ClipDataset, Order]) -> None:
    straight = list(train_batches(*filled, 0, 6, micro_batches=2))
    assert same(straight, list(train_batches(*filled, 0, 6, micro_batches=2, num_workers=2)))
    assert same(straight[4:], list(train_batches(*filled, 4, 6, micro_batches=2, num_workers=1, prefetch=1)))
    ranks = [list(train_batches(*filled, 2, 4, rank=rank, world=2)) for rank in range(2)]
    assert same(straight[2:4], [[one[0], two[0]] for one, two in zip(*ranks, strict=True)])


def test_a_batch_moves_as_a_whole(filled: tuple[ClipDataset, Order]) -> None:
    ((batch,),) = train_batches(*filled, 0, 1)
    moved = batch.to("meta")
    assert moved.posterior is not None
    assert {tensor.device.type for tensor in (moved.frames, *moved.posterior)} == {"meta"}
    assert (moved.ids, moved.noise_seeds) == (batch.ids, batch.noise_seeds)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_gap_ends_training_with_the_command(
    num_workers: int, filled: tuple[ClipDataset, Order], cache: LatentCache
) -> None:
    dataset, order = filled
    views = [dataset.teacher_view(draw) for draw in order.every_cut()]
    cache.require(views)
    for view in views[:3]:
        cache.path(view).unlink()
    with pytest.raises(
        IncompleteCacheError, match=rf"3 of {len(views)} latents are missing .*`tinyworld data cache RECI"
    ):
        cache.require(views)
    with pytest.raises(DataError, match="missing or damaged in .*`tinyworld data cache RECIPE`"):
        list(train_batches(dataset, order, 0, 2 * order.round_length, num_workers=num_workers))


def test_a_video_that_cannot_be_read_needs_no_latents(
    filled: tuple[ClipDataset, Order], cache: LatentCache, make_ref: Callable[..., ClipRef]
) -> None:
    dataset, order = filled
    dataset.clips[1].path.write_bytes(b"no longer a video")
    dataset.clips[2].path.unlink()
    views = [dataset.teacher_view(draw) for draw in order.every_cut()]
    cache.videos.mark(dataset.clips[1].path, "cannot be opened")
    cache.videos.mark(dataset.clips[2].path, "gone")
    LatentCache(cache.root, "teacher").require(views)
    assert cache.missing(views)
    faults = set()
    for ((batch,),) in zip(train_batches(dataset, order, 0, 2 * order.round_length), strict=True):
        assert batch.posterior is not None and not {"clip_1", "clip_2"} & set(batch.ids)
        faults |= {path for path, _ in batch.faults}
    assert faults == {str(dataset.clips[1].path), str(dataset.clips[2].path)}
    assert json.loads(next((cache.root / "videos").glob("*.json")).read_text()).keys() >= {"path", "state", "sha256"}
    with dataset.clips[1].path.open("ab") as video:
        video.write(b"mended")
    assert cache.videos.fault(dataset.clips[1].path) is None
