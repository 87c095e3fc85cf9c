"""The tokens of text and first frames in the cache of conditions."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tasks.fantasy.cache.helpers import CLIPS, entries, published, recipe_of
from tinyworld.core.errors import DataError, MissingFileError, WeightsError
from tinyworld.core.pixels import to_unit_range
from tinyworld.data.worlds.condition_cache import read_makers
from tinyworld.infer.codec import open_codec
from tinyworld.models.fantasy import encoders
from tinyworld.tasks.fantasy import fill_cache as filling
from tinyworld.tasks.fantasy.conditions import condition_cache, encoder_digest, filling_cache
from tinyworld.tasks.fantasy.fill_cache import fill_cache
from tinyworld.tasks.fantasy.sources import dataset_of, find_sources, order_of
from tinyworld.tasks.fantasy.task import FantasyTask


class FakeText:
    """As many tokens as the prompt has letters, and one more."""

    shape = (512, 4096)

    def encode(self, prompts: list[str]) -> Tensor:
        text = torch.zeros(len(prompts), *self.shape, dtype=torch.bfloat16)
        for row, prompt in enumerate(prompts):
            text[row, : len(prompt) + 1] = 1 + len(prompt) / 64
        return text


class FakeImage:
    """Every token is the picture's mean colour."""

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures.mean((1, 2, 3))[:, None, None].expand(-1, 257, 1280).bfloat16()


@pytest.fixture
def world_flags(flags: dict[str, Any], worlds: Path, tmp_path: Path) -> dict[str, Any]:
    """Samples with two captions between them, and a folder that looks like encoders."""
    file = worlds / "metadata.json"
    listed = json.loads(file.read_text())
    samples = listed["samples"] if isinstance(listed, dict) else listed
    for number, sample in enumerate(samples):
        sample["caption"] = ["a room", "another room"][number % 2]
    file.write_text(json.dumps(listed))
    for name in ("text_encoder", "tokenizer", "image_encoder"):
        (tmp_path / "encoders" / name).mkdir(parents=True)
        (tmp_path / "encoders" / name / "config.json").write_text(name)
    return {**flags, "encoders_path": str(tmp_path / "encoders")}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was opened. No text encoder may live while the codec does."""
    names: list[str] = []
    texts: list[weakref.ref[FakeText]] = []
    real = open_codec

    def text(path: Path, device: torch.device) -> FakeText:
        names.append("text")
        encoder = FakeText()
        encoder.circle = encoder  # type: ignore[attr-defined]  # as models of transformers are
        texts.append(weakref.ref(encoder))
        return encoder

    def image(path: Path, device: torch.device) -> FakeImage:
        names.append("image")
        return FakeImage()

    def codec(*arguments: Any) -> Any:
        assert all(encoder() is None for encoder in texts)
        names.append("codec")
        return real(*arguments)

    for name, replacement in (("text_encoder", text), ("image_encoder", image), ("codec", codec)):
        monkeypatch.setattr(filling, f"open_{name}", replacement)
    return names


def test_text_and_image_tokens(world_flags: dict[str, Any], opened: list[str]) -> None:
    recipe = published(world_flags)
    done = fill_cache(recipe)
    assert opened == ["text", "codec", "image"]
    assert (done.prompts.made, done.clips.made) == (3, CLIPS)  # two captions and the empty prompt
    sizes = [file.stat().st_size for file in entries(recipe, "texts")]
    assert sum(sizes) == done.prompts.bytes and min(sizes) < 9000 and max(sizes) < 14 * 4096 * 2
    cache = condition_cache(published(world_flags, codec_path=None, encoders_path=None))
    assert cache is not None
    dataset = dataset_of(recipe, find_sources(recipe).train, cache)
    sample = dataset[order_of(recipe, dataset, 2).batch(0)[0]]
    known = sample.conditions
    assert known is not None and known.text is not None and known.clip is not None
    assert torch.equal(known.text, FakeText().encode([sample.caption])[0])
    draw = order_of(recipe, dataset, 2).batch(0)[0]
    expected = FakeImage().encode(to_unit_range(dataset.pictures(dataset.plan(draw)[0])[:1]))[0]
    assert known.clip.shape == (257, 1280) and torch.equal(known.clip, expected)
    assert torch.equal(cache.text(""), FakeText().encode([""])[0])


def test_only_the_encoder_of_what_is_missing_is_opened(
    world_flags: dict[str, Any], opened: list[str], tmp_path: Path
) -> None:
    recipe = published(world_flags)
    fill_cache(recipe)
    opened.clear()
    fill_cache(recipe)
    assert opened == []
    entries(recipe, "texts")[0].unlink()
    assert fill_cache(recipe).prompts.made == 1 and opened == ["text"]
    opened.clear()
    entries(recipe, "clips")[0].unlink()
    assert fill_cache(recipe).clips.made == 1 and opened == ["codec", "image"]
    (tmp_path / "encoders" / "image_encoder" / "config.json").write_text("another")
    for action in (fill_cache, condition_cache):
        with pytest.raises(DataError, match=r"another image encoder than model\.encoders_path names"):
            action(recipe)
    assert condition_cache(published(world_flags, encoders_path=None)) is not None


def test_a_demo_cache_is_not_taken_for_the_published_transformers(
    flags: dict[str, Any], world_flags: dict[str, Any], opened: list[str]
) -> None:
    fill_cache(recipe_of(flags))
    with pytest.raises(
        DataError, match=r"no text and image tokens.*`tinyworld data cache RECIPE`.*model\.encoders_path"
    ):
        condition_cache(published(world_flags, encoders_path=None))
    assert fill_cache(published(world_flags)).clips.made == CLIPS
    makers = read_makers(Path(flags["condition_cache"]))
    assert makers is not None and makers.text and makers.image
    FantasyTask(recipe_of(flags))  # its own entries are still there


def test_encoders_of_another_size_are_refused(
    world_flags: dict[str, Any], opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeText, "shape", (512, 1024))
    with pytest.raises(WeightsError, match=r"512x1024 .* takes 512x4096 .*model\.encoders_path"):
        fill_cache(published(world_flags))
    assert entries(published(world_flags), "texts") == []
    monkeypatch.setattr(FakeText, "shape", (512, 4096))
    (tmp_path / "encoders" / "text_encoder" / "config.json").write_text("the right one")
    assert fill_cache(published(world_flags)).prompts.made == 3  # the wrong one has not claimed the folder


def test_encoder_digests(
    world_flags: dict[str, Any], opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the opened encoders state; the files are read once, not once for every run."""
    folder, remembered = tmp_path / "encoders", filling_cache(published(world_flags)).makers
    assert remembered.text == encoders._digest(folder / "text_encoder", folder / "tokenizer")
    assert remembered.image == encoders._digest(folder / "image_encoder")
    monkeypatch.setattr("tinyworld.data.video_digests.sha256", None)
    assert filling_cache(published(world_flags)).makers.text == remembered.text
    (folder / "tokenizer").rename(folder / "words")
    with pytest.raises(MissingFileError, match=r"no tokenizer/.*model\.encoders_path"):
        encoder_digest(folder, ("text_encoder", "tokenizer"), filling_cache(published(world_flags)).videos)
