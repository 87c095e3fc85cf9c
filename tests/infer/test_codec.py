"""Frames and latents of both codecs: shapes, conventions, and which models are refused."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.teachers import make_teacher
from tinyworld.core.errors import DataError, FramePlanError, MissingFileError, WeightsError
from tinyworld.infer.codec import TaehvCodec, VaeCodec, open_codec
from tinyworld.models.taehv import Taehv
from tinyworld.models.teachers import open_teacher

SMALL = {"encoder_width": 8, "decoder_widths": [16, 8, 8, 8]}


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("vae"), "wan", pipeline=True)


@pytest.fixture(scope="module")
def taehv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taehv")
    torch.manual_seed(0)
    Taehv.from_variant("taew2_1", **SMALL).save_pretrained(folder)
    return folder


@pytest.fixture
def codec_path(request: pytest.FixtureRequest, vae: Path, taehv: Path) -> Path:
    return {"vae": vae, "taehv": taehv}[request.param]


BOTH = pytest.mark.parametrize("codec_path", ["vae", "taehv"], indirect=True)


def clips(count: int = 2, frames: int = 9) -> Tensor:
    return torch.rand(count, frames, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@BOTH
def test_there_and_back(codec_path: Path) -> None:
    codec = open_codec(codec_path, torch.float32)
    latents = codec.encode(clips())
    assert latents.shape == (2, 16, 3, 4, 6) and latents.dtype == torch.float32
    frames = codec.decode(latents, 9)
    assert frames.shape == (2, 9, 3, 32, 48) and frames.dtype == torch.float32
    assert frames.min() >= 0 and frames.max() <= 1
    assert codec.encode(clips()[:, :1]).shape == (2, 16, 1, 4, 6)
    assert torch.allclose(codec.encode(clips()[1:]), latents[1:], atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(clips()), latents)


def test_vae_gives_the_normalised_mean(vae: Path) -> None:
    codec = open_codec(vae, torch.float32)
    assert isinstance(codec, VaeCodec)
    teacher = open_teacher(vae, dtype=torch.float32)
    assert torch.equal(codec.encode(clips()), teacher.encode(clips()).mean.transpose(1, 2))
    config = teacher.vae.config
    raw = teacher.vae.encode(clips().transpose(1, 2) * 2 - 1).latent_dist.mean
    mean, deviation = (
        torch.tensor(values)[:, None, None, None] for values in (config.latents_mean, config.latents_std)
    )
    assert torch.allclose(codec.encode(clips()), (raw - mean) / deviation, atol=1e-5)
    first = codec.encode(clips()[:, :1])
    assert torch.allclose(first, codec.encode(clips())[:, :, :1], atol=1e-5)  # causal: the first frame stands alone


def test_taehv_is_its_own_encode(taehv: Path) -> None:
    codec = open_codec(taehv, torch.float32)
    assert isinstance(codec, TaehvCodec)
    model = Taehv.from_pretrained(taehv)
    latents = model.encode(clips()).transpose(1, 2)
    assert torch.allclose(codec.encode(clips()), latents, atol=1e-5)
    assert torch.allclose(codec.decode(latents, 9), model.decode(latents.transpose(1, 2)), atol=1e-5)


def test_a_published_file_is_taken_for_wan(taehv: Path, tmp_path: Path) -> None:
    """It states nothing and fits CogVideoX's variant as well; the full size, since only public variants are known."""
    torch.manual_seed(0)
    tensors = Taehv.from_variant("taew2_1").state_dict()
    save_file(tensors, tmp_path / "taew2_1.safetensors")
    torch.save(tensors, tmp_path / "taew2_1.pth")
    for name in ("taew2_1.safetensors", "taew2_1.pth"):
        codec = open_codec(tmp_path / name, torch.float32)
        assert isinstance(codec, TaehvCodec) and codec.model.spec.flavour == "plain"


@BOTH
def test_digest_names_content_and_precision(codec_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(codec_path, tmp_path / "copy"))
    digest = open_codec(codec_path).digest
    assert open_codec(copy).digest == digest
    assert open_codec(copy, torch.float32).digest != digest


@BOTH
def test_counts_and_sizes(codec_path: Path) -> None:
    codec = open_codec(codec_path)
    with pytest.raises(FramePlanError, match="9 or 13"):
        codec.encode(clips(frames=12))
    with pytest.raises(DataError, match="multiple"):
        codec.encode(clips()[..., :44])
    latents = codec.encode(clips())
    with pytest.raises(FramePlanError, match="hold 9 frames, not 12"):
        codec.decode(latents, 12)
    with pytest.raises(DataError, match="N 16 t h w"):
        codec.decode(latents.transpose(1, 2), 9)


def test_other_models_are_refused(tmp_path: Path) -> None:
    Taehv.from_variant("taecvx", **SMALL).save_pretrained(tmp_path / "taecvx")
    Taehv.from_variant("taew2_2", **SMALL).save_pretrained(tmp_path / "taew2_2")
    for path in (
        make_teacher(tmp_path / "wan2_2", "wan2_2"),
        make_teacher(tmp_path / "cogvideox", "cogvideox"),
        tmp_path / "taecvx",
        tmp_path / "taew2_2",
    ):
        with pytest.raises(WeightsError, match=r"latents are those of Wan 2\.1.*model\.codec_path"):
            open_codec(path)
    with pytest.raises(MissingFileError, match=r"model\.codec_path"):
        open_codec(tmp_path / "nothing")
