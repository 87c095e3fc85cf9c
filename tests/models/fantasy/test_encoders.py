"""What is done around umT5 and CLIP. The models themselves are stand-ins, or tiny real ones where transformers is installed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinyworld.core.errors import DataError, MissingExtraError, MissingFileError, WeightsError
from tinyworld.models.fantasy import encoders
from tinyworld.models.fantasy.encoders import (
    ImageEncoder,
    TextEncoder,
    cleaned,
    open_image_encoder,
    open_text_encoder,
    prepared,
)


class Letters:
    """A tokenizer: one token per letter."""

    def __call__(self, prompts: list[str], max_length: int, **options: Any) -> dict[str, Tensor]:
        assert options["padding"] == "max_length" and options["truncation"]
        ids = torch.zeros(len(prompts), max_length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            numbers = [ord(letter) for letter in prompt][:max_length]
            ids[row, : len(numbers)] = torch.tensor(numbers)
            mask[row, : len(numbers)] = 1
        return {"input_ids": ids, "attention_mask": mask}


class FakeText(nn.Module):
    """Never zero, padding included."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(300, 8)
        self.encoder = nn.Module()
        self.encoder.embed_tokens = nn.Embedding(300, 8)

    def forward(self, ids: Tensor, mask: Tensor) -> SimpleNamespace:
        assert mask.shape == ids.shape
        return SimpleNamespace(last_hidden_state=self.encoder.embed_tokens(ids) + 10)


class FakeImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, pictures: Tensor, output_hidden_states: bool) -> SimpleNamespace:
        assert output_hidden_states and pictures.shape[1:] == (3, 224, 224)
        tokens = pictures.flatten(2).mean(2)[:, None].expand(-1, 257, -1)
        return SimpleNamespace(hidden_states=(tokens, tokens * 2, tokens * 3))


def test_cleaning() -> None:
    assert cleaned("  a\n red\u00a0 &amp;amp; blue\tball ") == "a red & blue ball"
    assert cleaned("") == ""


def test_text_is_padded_and_zero_behind_the_prompt() -> None:
    encoder = TextEncoder(FakeText(), Letters(), "digest")
    result = encoder.encode([" ab ", "", "x" * 600])
    assert result.shape == (3, 512, 8) and not result.requires_grad
    assert result[0, :2].abs().min() > 0 and result[0, 2:].abs().max() == 0
    assert result[1].abs().max() == 0
    assert result[2].abs().min() > 0
    assert torch.equal(result[0], encoder.encode(["ab"])[0])


def test_image_tokens_are_those_before_the_last_layer() -> None:
    pictures = torch.rand(2, 3, 40, 64)
    result = ImageEncoder(FakeImage(), "digest").encode(pictures)
    assert result.shape == (2, 257, 3) and not result.requires_grad
    assert torch.allclose(result[:, 0], 2 * prepared(pictures).flatten(2).mean(2))


def test_pictures_are_squeezed_and_standardised() -> None:
    grey = torch.tensor(encoders.MEAN)[:, None, None].expand(3, 336, 592)[None]
    assert torch.allclose(prepared(grey), torch.zeros(1, 3, 224, 224), atol=1e-5)
    sides = torch.zeros(1, 3, 32, 64)
    sides[..., :8] = 1  # a crop to a square would cut this away
    assert prepared(sides)[0, :, 112, 0].min() > 1
    with pytest.raises(DataError, match=r"N 3 H W in \[0, 1\]"):
        prepared(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_without_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for opened in (open_text_encoder, open_image_encoder):
        with pytest.raises(MissingExtraError, match=r"tinyworld\[fantasy\]"):
            opened(tmp_path)


def fake_transformers(missing: list[str]) -> SimpleNamespace:
    def loads(cls: type[nn.Module]) -> type:
        class Loading(cls):  # type: ignore[misc,valid-type]
            @classmethod
            def from_pretrained(
                cls, folder: Path, dtype: torch.dtype, **options: Any
            ) -> tuple[nn.Module, dict[str, Any]]:
                assert options == {"local_files_only": True, "output_loading_info": True}
                return cls().to(dtype), {"missing_keys": missing, "mismatched_keys": []}

        return Loading

    tokenizers = SimpleNamespace(from_pretrained=lambda folder, local_files_only: Letters())
    return SimpleNamespace(UMT5EncoderModel=loads(FakeText), CLIPVisionModel=loads(FakeImage), AutoTokenizer=tokenizers)


def folders(root: Path) -> Path:
    for name in ("text_encoder", "tokenizer", "image_encoder"):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps({"name": name}))
    return root


def test_opening(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """umT5's own table of tokens, which its files lack, is the shared one."""
    folders(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", fake_transformers(["encoder.embed_tokens.weight"]))
    text = open_text_encoder(tmp_path)
    assert text.model.encoder.embed_tokens is text.model.shared
    assert text.encode(["ab"]).dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in text.model.parameters())
    before = text.digest
    (tmp_path / "tokenizer" / "config.json").write_text("{}")
    assert open_text_encoder(tmp_path).digest != before
    with pytest.raises(WeightsError, match="1 tensors are missing"):
        open_image_encoder(tmp_path)


def test_folders_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", fake_transformers([]))
    (tmp_path / "models_t5_umt5-xxl-enc-bf16.pth").touch()
    with pytest.raises(MissingFileError, match=r"has no text_encoder/; it holds models_t5.*are not"):
        open_text_encoder(tmp_path)
    with pytest.raises(MissingFileError, match=r"model\.encoders_path"):
        open_image_encoder(tmp_path / "nothing")
    assert open_image_encoder(folders(tmp_path)).encode(torch.rand(1, 3, 8, 8)).shape == (1, 257, 3)


def test_tiny_models_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra fantasy (transformers) is not installed")
    torch.manual_seed(0)
    config = transformers.UMT5Config(
        vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, tie_word_embeddings=False
    )
    model = transformers.UMT5EncoderModel(config).eval()
    model.encoder.embed_tokens = model.shared
    model.save_pretrained(tmp_path / "text_encoder")
    loaded = encoders._load(
        transformers.UMT5EncoderModel, tmp_path / "text_encoder", torch.float32, ("encoder.embed_tokens.weight",)
    )
    loaded.encoder.embed_tokens = loaded.shared
    expected = TextEncoder(model, Letters(), "").encode(["a red ball"])
    assert torch.allclose(TextEncoder(loaded, Letters(), "").encode(["a red ball"]), expected, atol=1e-6)
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=224, patch_size=14
    )
    transformers.CLIPVisionModel(vision).save_pretrained(tmp_path / "image_encoder")
    assert open_image_encoder(tmp_path, torch.float32).encode(torch.rand(2, 3, 32, 48)).shape == (2, 257, 16)
