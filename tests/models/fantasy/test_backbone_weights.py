"""Every format gives the same transformer; nothing missing, nothing unused, other kinds of Wan models are named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models.fantasy.worlds import SMALL, WITH_IMAGE, inputs, small_backbone
from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.core.world_sizes import SIZES, BackboneSpec
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.backbone_names import stored_names
from tinyworld.models.fantasy.backbone_weights import (
    open_backbone,
    read_weights,
    save_backbone,
    write_folder,
    write_weights,
)

FILE = "diffusion_pytorch_model.safetensors"


def original_tensors(backbone: WanBackbone) -> dict[str, Tensor]:
    tensors = backbone.state_dict()
    return {stored: tensors[name].clone() for stored, name in stored_names(tensors, "original").items()}


def write_original(folder: Path, spec: BackboneSpec, tensors: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors or original_tensors(small_backbone(spec)), folder / FILE)
    config = {"_class_name": "WanModel", "num_heads": spec.heads, "text_len": spec.text_tokens, "dim": spec.width}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_original_shards(folder: Path, spec: BackboneSpec) -> Path:
    write_original(folder, spec)
    tensors = load_file(folder / FILE)
    names = sorted(tensors)
    shards = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (folder / f"{FILE}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / FILE).unlink()
    return folder


def write_diffusers(folder: Path, spec: BackboneSpec, shard: str = "10GB") -> Path:
    """As a person makes one: diffusers' own save_pretrained, and the adapter's tensors cut out of the original file."""
    backbone = small_backbone(spec)
    backbone.transformer.save_pretrained(folder / "transformer", max_shard_size=shard)
    adapter = {
        name: tensor.clone() for name, tensor in backbone.state_dict().items() if name.startswith("control_adapter.")
    }
    save_file(adapter, folder / "control_adapter.safetensors")
    return folder


def write_ours(folder: Path, spec: BackboneSpec) -> Path:
    save_backbone(small_backbone(spec), folder)
    return folder


def write_our_file(folder: Path, spec: BackboneSpec) -> Path:
    folder.mkdir()
    write_weights(folder / "step-3.safetensors", small_backbone(spec).state_dict(), spec)
    return folder / "step-3.safetensors"


def write_checkpoint(folder: Path, spec: BackboneSpec) -> Path:
    """The average is preferred to the last weights."""
    folder.mkdir()
    write_weights(folder / "model.safetensors", small_backbone(spec, seed=5).state_dict(), spec)
    write_weights(folder / "ema.safetensors", small_backbone(spec).state_dict(), spec)
    return folder


FORMATS: dict[str, Callable[[Path, BackboneSpec], Path]] = {
    "original": write_original,
    "original file": lambda folder, spec: write_original(folder, spec) / FILE,
    "original shards": write_original_shards,
    "diffusers": write_diffusers,
    "diffusers shards": lambda folder, spec: write_diffusers(folder, spec, "100KB"),
    "ours": write_ours,
    "our file": write_our_file,
    "checkpoint": write_checkpoint,
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_transformer(kind: str, tmp_path: Path) -> None:
    """With 512 text tokens, since a diffusers folder cannot say otherwise."""
    expected = small_backbone(WITH_IMAGE)
    path = FORMATS[kind](tmp_path / "weights", WITH_IMAGE)
    if "shards" in kind:
        assert len(list(path.rglob("*.safetensors"))) > 1
    backbone = open_backbone(path, torch.float32, expected=WITH_IMAGE)
    assert backbone.spec == WITH_IMAGE and backbone.digest() == expected.digest()
    assert not backbone.training and not any(parameter.requires_grad for parameter in backbone.parameters())
    arguments = inputs(WITH_IMAGE)
    assert torch.equal(backbone(*arguments), expected(*arguments))
    rounded = open_backbone(path)
    assert rounded.digest() == small_backbone(WITH_IMAGE).cast(torch.bfloat16).digest()


@pytest.mark.parametrize("spec", [SMALL, WITH_IMAGE, replace(SMALL, camera=False)])
def test_our_folder_states_all_sizes(spec: BackboneSpec, tmp_path: Path) -> None:
    assert open_backbone(write_ours(tmp_path / "ours", spec)).spec == spec
    assert open_backbone(write_our_file(tmp_path / "file", spec)).spec == spec


def test_diffusers_reads_our_folder(tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    backbone = small_backbone(WITH_IMAGE)
    save_backbone(backbone, tmp_path)
    loaded = WanTransformer3DModel.from_pretrained(tmp_path / "transformer")
    ours = backbone.transformer.state_dict()
    assert loaded.state_dict().keys() == ours.keys()
    assert all(torch.equal(loaded.state_dict()[name], ours[name]) for name in ours)


def test_names_agree_with_diffusers_conversion() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    backbone = small_backbone(WITH_IMAGE)
    expected = backbone.transformer.state_dict()
    original = {name: value for name, value in original_tensors(backbone).items() if "control_adapter" not in name}
    converted = convert_wan_transformer_to_diffusers(dict(original))
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def test_original_names_of_the_public_checkpoint() -> None:
    """Names as in the public models' code (Wan-Video/Wan2.1 model.py, VideoX-Fun wan_camera_adapter.py); 30 blocks."""
    names = stored_names(WanBackbone.hollow(SIZES["wan_fun_1_3b"].backbone).state_dict(), "original")
    block = "self_attn.q.weight cross_attn.k_img.weight cross_attn.norm_k_img.weight norm3.bias ffn.0.weight modulation"
    top = (
        "patch_embedding.weight text_embedding.0.weight time_embedding.2.bias time_projection.1.weight head.head.weight"
    )
    top += " head.modulation img_emb.proj.0.weight img_emb.proj.1.weight img_emb.proj.3.bias img_emb.proj.4.bias"
    top += " control_adapter.conv.weight control_adapter.residual_blocks.0.conv1.bias"
    assert {f"blocks.29.{name}" for name in block.split()} | set(top.split()) <= names.keys()
    assert names["blocks.3.norm3.weight"] == "transformer.blocks.3.norm2.weight"
    assert len(names) == 825 + 30 * 5 + 8 + 6  # text-to-video, image keys and values per block, img_emb, adapter


def test_dtype_of_the_file_does_not_matter(tmp_path: Path) -> None:
    """Published files are in bf16: what stays in fp32 is widened."""
    tensors = {name: tensor.bfloat16() for name, tensor in original_tensors(small_backbone()).items()}
    path = write_original(tmp_path / "bf16", SMALL, tensors)
    backbone = open_backbone(path)
    assert backbone.transformer.scale_shift_table.dtype == torch.float32
    assert backbone.dtype == torch.bfloat16
    exact = open_backbone(path, torch.float32)
    assert exact.dtype == torch.float32
    assert torch.equal(exact.transformer.proj_out.weight, tensors["head.head.weight"].float())


@pytest.mark.parametrize(("change", "words"), [("missing", "1 tensor is missing"), ("unused", "1 tensor is unused")])
def test_incomplete_and_foreign_tensors_are_listed(change: str, words: str, tmp_path: Path) -> None:
    tensors = original_tensors(small_backbone())
    if change == "missing":
        del tensors["blocks.1.norm3.bias"]
        name = "blocks.1.norm3.bias"
    else:
        tensors["ref_conv.weight"], name = torch.zeros(3), "ref_conv.weight"
    with pytest.raises(WeightsError, match=words) as error:
        open_backbone(write_original(tmp_path / "faulty", SMALL, tensors))
    assert name in str(error.value) and "Control-Camera" in str(error.value)


def test_wrong_shape_and_kind_of_numbers(tmp_path: Path) -> None:
    tensors = original_tensors(small_backbone())
    tensors["blocks.2.ffn.0.bias"] = torch.zeros(31)
    tensors["blocks.2.ffn.2.bias"] = torch.zeros(24, dtype=torch.int8)
    with pytest.raises(WeightsError, match=r"blocks.2.ffn.0.bias: \(31,\) instead of \(32,\).*torch.int8"):
        open_backbone(write_original(tmp_path / "faulty", SMALL, tensors))


@pytest.mark.parametrize(("channels", "words"), [(36, "Fun-InP"), (16, "text-to-video"), (48, "Fun-Control")])
def test_other_wan_models_are_named(channels: int, words: str, tmp_path: Path) -> None:
    tensors = original_tensors(small_backbone())
    tensors["patch_embedding.weight"] = torch.zeros(24, channels, 1, 2, 2)
    with pytest.raises(WeightsError, match=words) as error:
        open_backbone(write_original(tmp_path / "other", SMALL, tensors))
    assert "takes 32" in str(error.value) and "model.backbone_path" in str(error.value)


def test_a_diffusers_folder_needs_the_adapter(tmp_path: Path) -> None:
    path = write_diffusers(tmp_path / "weights", WITH_IMAGE)
    (path / "control_adapter.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"control_adapter\.safetensors with the six tensors"):
        open_backbone(path)
    assert open_backbone(write_ours(tmp_path / "ours", replace(SMALL, camera=False))).control_adapter is None


def test_other_sizes_than_asked_for(tmp_path: Path) -> None:
    path = write_ours(tmp_path / "ours", SMALL)
    with pytest.raises(WeightsError, match=r"layers is 3, not 30.*model\.size"):
        open_backbone(path, expected=SIZES["wan_fun_1_3b"].backbone)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="backbone_path"):
        open_backbone(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="Control-Camera"):
        open_backbone(tmp_path / "empty")
    path = write_ours(tmp_path / "ours", SMALL)
    torn = Path(shutil.copytree(path, tmp_path / "torn"))
    file = torn / "transformer" / FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        open_backbone(torn)
    (path / "world.json").write_text('{"backbone": {"layers": 3}}')
    with pytest.raises(WeightsError, match="does not state the sizes"):
        open_backbone(path)
    save_file({"encoder.0.weight": torch.zeros(3)}, tmp_path / "taehv.safetensors")
    with pytest.raises(WeightsError, match=r"no weights of a Wan transformer: they hold encoder\.0\.weight"):
        open_backbone(tmp_path / "taehv.safetensors")


def test_plain_tensors_are_written_and_read_back(tmp_path: Path) -> None:
    """As a training task writes them, beside the training."""
    tensors = small_backbone().state_dict()
    (tmp_path / "notes.txt").write_text("mine")
    write_folder(tmp_path, tensors, SMALL)
    spec, read = read_weights(tmp_path)
    assert spec == SMALL and read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.rglob(".staging*"))


def test_training_on_mapped_weights_leaves_the_file_alone(tmp_path: Path) -> None:
    path = write_our_file(tmp_path / "file", SMALL)
    before = path.read_bytes()
    backbone = open_backbone(path, torch.float32).requires_grad_(True)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1)
    backbone(*inputs()).square().mean().backward()
    optimizer.step()
    assert not torch.equal(backbone.transformer.proj_out.weight, small_backbone().transformer.proj_out.weight)
    assert path.read_bytes() == before
