"""Filling the cache of conditions: what training asks for, once; resumable, shared; and training from it without encoders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from tests.tasks.fantasy.cache.helpers import CLIPS, CUTS, HELD_OUT, TRAINED, entries, published, recipe_of
from tinyworld.cli.main import main
from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.pixels import to_unit_range
from tinyworld.data.entries import IncompleteCacheError
from tinyworld.data.worlds.dataset import WorldDataset
from tinyworld.infer.codec import TaehvCodec, open_codec
from tinyworld.tasks.fantasy import fill_cache as filling
from tinyworld.tasks.fantasy.conditions import PRECISION, codec_digest, condition_cache, filling_cache
from tinyworld.tasks.fantasy.fill_cache import fill_cache
from tinyworld.tasks.fantasy.sources import dataset_of, find_sources, order_of, wanted
from tinyworld.tasks.fantasy.task import FantasyTask


@pytest.mark.parametrize("codec", [0, 2])
def test_training_gets_what_the_codec_would_give(codec: int, flags: dict[str, Any], codecs: list[Path]) -> None:
    flags["codec_path"] = str(codecs[codec])
    done = fill_cache(recipe_of(flags))
    assert (done.clips.there, done.clips.made, done.prompts.made) == (0, CLIPS, 0)
    sizes = [entry.stat().st_size for entry in entries(recipe_of(flags), "clips")]
    assert len(sizes) == CLIPS and sum(sizes) == done.clips.bytes
    without = FantasyTask(recipe_of(flags, condition_cache=None))
    cached = FantasyTask(recipe_of(flags, codec_path=None))
    assert cached.codec is None and without.codec is not None
    draws = order_of(cached.recipe, cached.dataset, 2)
    plain = WorldDataset(cached.dataset.worlds, cached.dataset.buckets, cached.dataset.frame_steps)
    batches = cached.batches(0, 4, 0, 1)
    for step, (batch,) in enumerate(batches):
        shown = [plain.pictures(cached.dataset.plan(draw)[0]) for draw in draws.batch(step)]
        batch.frames = torch.stack(shown)
        assert batch.ids == [cached.dataset.worlds[draw.index].id for draw in draws.batch(step)]
        _same(cached._encode(batch), without.codec.encode(to_unit_range(batch.frames)), without, batch)
    batch = filling_batch(cached)
    _same(cached._encode(batch), without.codec.encode(to_unit_range(batch.frames)), without, batch)


def filling_batch(task: FantasyTask) -> Any:
    from tinyworld.tasks.fantasy.measure import batch_of

    return batch_of(task.held_out(), torch.device("cpu"))


def _same(found: Any, latents: Tensor, without: FantasyTask, batch: Any) -> None:
    """Equal up to bf16: half a unit in the last of 8 bits, and what another batch size changes in fp32."""
    known = without._encode(type(batch)(**{**vars(batch), "conditions": None}))
    assert torch.equal(known.latents, latents) and found.latents.dtype == torch.float32
    for one, other in ((found.latents, known.latents), (found.first, known.first)):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=2**-8, atol=1e-5)
    assert torch.equal(found.text, known.text) and torch.equal(found.empty, known.empty) and found.clip is None


def test_a_step_and_a_validation_run_without_a_codec(
    flags: dict[str, Any], codecs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_cache(recipe_of(flags))
    monkeypatch.setattr("tinyworld.tasks.fantasy.task.open_codec", None)
    task = FantasyTask(recipe_of(flags, codec_path=None))
    ((batch,),) = task.batches(0, 1, 0, 1)
    cpu = torch.device("cpu")
    losses = task.step(task.networks.trainable, batch, cpu, 0)
    assert all(value.isfinite() for value in losses.terms.values()) and losses.terms
    (found,) = task.evaluate(task.networks.trainable, task.held_out(), cpu)
    assert found.metrics["diffusion"] is not None
    assert task.fingerprint(0)["cached cuts"] == CUTS


def test_only_what_is_missing_is_computed(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(flags)
    fill_cache(recipe)
    before = {entry: load(entry.read_bytes()) for entry in entries(recipe, "clips")}
    first, second, *_ = before
    first.write_bytes(first.read_bytes()[:-10])
    second.unlink()
    shown: list[int] = []
    encode = TaehvCodec.encode
    monkeypatch.setattr(TaehvCodec, "encode", lambda self, x: (shown.append(x.shape[1]), encode(self, x))[1])
    done = fill_cache(recipe)
    assert (done.clips.there, done.clips.made, shown) == (CLIPS - 2, 2, [5, 1, 5, 1])
    assert entries(recipe, "clips") == list(before)
    for entry, tensors in before.items():
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in load(entry.read_bytes()).items())
    monkeypatch.setattr(filling, "open_codec", None)  # nothing missing, nothing loaded
    assert fill_cache(recipe).clips.there == CLIPS


def test_a_failure_in_the_middle_keeps_what_was_made(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = TaehvCodec.encode, iter(range(5))
    monkeypatch.setattr(TaehvCodec, "encode", lambda self, frames: (next(calls), encode(self, frames))[1])
    with pytest.raises(StopIteration):
        fill_cache(recipe_of(flags))
    monkeypatch.undo()
    with pytest.raises(IncompleteCacheError, match=rf"{CLIPS - 2} of {CLIPS} clips"):
        FantasyTask(recipe_of(flags, codec_path=None))
    done = fill_cache(recipe_of(flags)).clips
    assert (done.there, done.made) == (2, CLIPS - 2)


def test_processes_share_the_work(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(flags)
    monkeypatch.setenv("WORLD_SIZE", "3")
    made = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        done = fill_cache(recipe).clips
        assert (done.there, done.by_others) == (0, 0)
        made.append(done.made)
    assert sum(made) == CLIPS and min(made) > 0
    monkeypatch.undo()
    assert fill_cache(recipe).clips.there == CLIPS


def test_what_another_process_made_meanwhile_is_not_made_again(
    flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, encode, others = recipe_of(flags), TaehvCodec.encode, []

    def slowly(codec: TaehvCodec, frames: Tensor) -> Tensor:
        if not others:
            others.append(None)
            others.append(fill_cache(recipe).clips)
        return encode(codec, frames)

    monkeypatch.setattr(TaehvCodec, "encode", slowly)
    done = fill_cache(recipe).clips
    assert others[1].made == CLIPS and (done.made, done.by_others) == (1, CLIPS - 1)


def test_a_cache_of_others_is_noticed_before_training(
    flags: dict[str, Any], codecs: list[Path], worlds: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"never filled\. Fill it with `tinyworld data cache RECIPE`"):
        FantasyTask(recipe_of(flags, codec_path=None))
    fill_cache(recipe_of(flags))
    for number in (1, 2):
        for action in (FantasyTask, fill_cache):
            with pytest.raises(
                DataError, match=r"another codec than model\.codec_path .*`tinyworld data cache RECIPE`"
            ):
                action(recipe_of(flags, codec_path=str(codecs[number])))
    shutil.copytree(codecs[0], tmp_path / "moved")
    FantasyTask(recipe_of(flags, codec_path=str(tmp_path / "moved")))
    for changes in (
        {"height": 16}, {"num_frames": 9}, {"frame_steps": [2]}, {"cached_crops": CUTS + 1}, {"seed": 7},
    ):  # fmt: skip
        with pytest.raises(
            IncompleteCacheError, match=r"of \d+ clips are not in the cache .*tinyworld data cache RECIPE"
        ):
            FantasyTask(recipe_of(flags, codec_path=None, **changes))
    FantasyTask(recipe_of(flags, cached_crops=1))
    video = find_sources(recipe_of(flags)).train[0].entry.video
    with video.open("ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(IncompleteCacheError, match=rf"{CUTS} of {CLIPS} clips"):
        FantasyTask(recipe_of(flags))
    assert fill_cache(recipe_of(flags)).clips.made == CUTS
    FantasyTask(recipe_of(flags))


def test_prune_keeps_what_the_recipe_needs(flags: dict[str, Any]) -> None:
    fill_cache(recipe_of(flags))
    done = fill_cache(recipe_of(flags, cached_crops=1), prune=True).clips
    assert (done.there, done.made, done.removed) == (TRAINED + HELD_OUT, 0, TRAINED)
    assert fill_cache(recipe_of(flags)).clips.made == TRAINED


def test_an_unreadable_video_is_left_out_within_the_budget(
    flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(flags, quarantine_budget=0.5)
    sources = find_sources(recipe)
    monkeypatch.setattr("tinyworld.tasks.fantasy.fill_cache.find_sources", lambda recipe: sources)
    victim = sources.train[1].entry.video
    victim.write_bytes(b"\0" * 100)  # damaged after the scan
    done = fill_cache(recipe).clips
    assert done.made == CLIPS - CUTS and list(done.faults) == [str(victim)]
    cache = condition_cache(recipe)
    assert cache is not None
    cache.require(*wanted(recipe, sources))
    dataset = dataset_of(recipe, sources.train, cache)
    for step in range(4):
        for draw in order_of(recipe, dataset, 2).batch(step):
            assert dataset[draw].id != sources.train[1].id
    with pytest.raises(DataError, match="unreadable"):
        fill_cache(recipe_of(flags, quarantine_budget=0.0))


def test_digests_are_those_of_what_is_opened(codecs: list[Path]) -> None:
    digests = [codec_digest(codec) for codec in codecs]
    assert digests == [open_codec(codec, PRECISION).digest for codec in codecs] and len(set(digests)) == 3


def test_a_recipe_that_names_too_little_is_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.codec_path is not set"):
        filling_cache(recipe_of(flags, codec_path=None))
    with pytest.raises(ConfigError, match=r"data\.condition_cache is not set"):
        fill_cache(recipe_of(flags, condition_cache=None))
    with pytest.raises(ConfigError, match=r"model\.encoders_path is not set"):
        filling_cache(published(flags, encoders_path=None))


def test_the_command(flags: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"--{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in flags.items()]
    assert main(["data", "cache", "fantasy_demo_base", *given]) == 0
    assert f"0 clips were there, {CLIPS} made (" in capsys.readouterr().out
    fewer = [flag.replace(f"cached_crops={CUTS}", "cached_crops=1") for flag in given]
    assert main(["data", "cache", "fantasy_demo_base", "--prune", *fewer]) == 0
    said = capsys.readouterr().out
    assert f"{TRAINED + HELD_OUT} clips were there, 0 made" in said and f"{TRAINED} entries removed" in said
