"""A folder in which everything exists that the documentation names, small, in the real formats.

It is made once for all processes of a test run. Every command then works in a copy of its own.
"""

import fcntl
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.clips import make_clips, moving_pattern
from tests.docs.rules import NARROW as NARROW_WIDTHS
from tests.docs.rules import SMALL_TAEHV, SMALL_WORLD, as_flags
from tests.infer.world.planes import plane_scene
from tests.infer.world.small import SPEC, make_codec
from tests.teachers import make_teacher
from tinyworld.cli.main import main
from tinyworld.core.geometry import inverse, matrix_to_quaternion
from tinyworld.core.variants import VARIANTS
from tinyworld.core.world_sizes import SIZES, WorldSpec
from tinyworld.data.rooms import make_rooms
from tinyworld.engine import verdict
from tinyworld.infer.world.scene import write_scene
from tinyworld.media.camera_files import read_cameras
from tinyworld.media.depth_files import read_depth
from tinyworld.media.read import iter_frames
from tinyworld.media.write import write_video
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.backbone_weights import save_backbone
from tinyworld.models.taehv import Taehv

TEXT_WIDTH, IMAGE_WIDTH = 32, 16


def narrow_published(patch: pytest.MonkeyPatch) -> None:
    """The published architectures in their own form at a small width: a transformer with 512 text tokens, CLIP's image tokens
    and a split after block 12, and CogVideoX's TAEHV. Commands then need no flag for it."""
    backbone = replace(SPEC.backbone, layers=14, text_dim=TEXT_WIDTH, text_tokens=512, image_dim=IMAGE_WIDTH)
    branch = replace(SPEC.branch, split=12, collect=(1, 1, 0, 0))
    patch.setitem(SIZES, "wan_fun_1_3b", WorldSpec(backbone, branch))
    patch.setitem(VARIANTS, "taecvx", replace(VARIANTS["taecvx"], encoder_width=8, decoder_widths=(16, 8, 8, 8)))


def make_sandbox(folder: Path) -> Path:
    """Make everything in `folder`, once, whichever process comes first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder.with_suffix(".made")  # not a folder that is renamed: runs name their data by absolute paths
        if not made.exists():
            folder.mkdir()
            _fill(folder)
            made.touch()
    return folder


def copy_of(sandbox: Path, target: Path) -> Path:
    """The sandbox again, for one command to change. Weights are linked: they are replaced as whole files, never changed."""

    def copied(source: str, destination: str) -> str:
        if source.endswith((".safetensors", ".pth")):
            os.link(source, destination)
            return destination
        return shutil.copy2(source, destination)

    return shutil.copytree(sandbox, target, copy_function=copied)


def _fill(folder: Path) -> None:
    """Inputs first, then what commands of this project make of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        wide = Taehv.from_variant("taecvx")
        narrow_published(patch)
        patch.setattr(verdict, "LEAST_HISTORY", 2)  # so that any rise of the loss is a spike: the run leaves a capsule
        _videos()
        _teachers_and_weights(wide)
        _world_inputs()
        _recordings()
        _runs()


def _videos() -> None:
    for name in ("my_clips", "train", "val"):
        make_clips(Path(name), count=4, frames=13, height=48, width=64)
    write_video(Path("film.mp4"), moving_pattern(12, 64, 80, 1), 12)
    Image.fromarray(moving_pattern(1, 60, 60, 2)[0]).save("first.png")


def _teachers_and_weights(wide: Taehv) -> None:
    """wide: of the full published width, for what is not narrowed."""
    for name in ("CogVideoX-2b", "THUDM/CogVideoX-2b"):  # a folder of a hub id's name is found before the hub is asked
        make_teacher(Path(name), "cogvideox", pipeline=True)
    for name in ("Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"):
        make_teacher(Path(name), "wan", pipeline=True)
    make_teacher(Path("teacher"), "wan")
    make_teacher(Path("V"), "wan")
    Path("checkpoints").mkdir()
    torch.manual_seed(0)
    torch.save(Taehv.from_variant("taecvx").state_dict(), "checkpoints/taecvx.pth")
    Path("wide").mkdir()
    for name in ("taecvx.pth", "wide/taew2_1.pth"):  # one architecture, two laws of frames
        torch.save(wide.state_dict(), name)
    for name in ("my_taehv", "me/tiny-wan"):
        make_codec(Path(name))
    Taehv.from_variant("taew2_1", encoder_width=32, decoder_widths=[128, 64, 32, 32]).save_pretrained("demo_sized")


def _world_inputs() -> None:
    make_rooms(Path("D"), scenes=4, frames=26, height=32, width=48, seed=2, points=False, workers=1)
    backbone = WanBackbone(SIZES["wan_fun_1_3b"].backbone)
    backbone.init_weights(0)
    save_backbone(backbone, Path("W"))
    Path("Wan2.1-Fun-V1.1-1.3B-Control-Camera").symlink_to("W")
    _encoders(Path("E"))
    write_scene(plane_scene(5, 36, 48, 0), Path("kitchen"))


def _encoders(folder: Path) -> None:
    """umT5, its tokenizer and CLIP as transformers writes them."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 300, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    sizes |= {"d_model": TEXT_WIDTH, "tie_word_embeddings": False}
    text = transformers.UMT5Config(**sizes)
    transformers.UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    words = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", "a", "room"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    vision = transformers.CLIPVisionConfig(
        hidden_size=IMAGE_WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=14
    )
    transformers.CLIPVisionModel(vision).save_pretrained(folder / "image_encoder")


def _recordings() -> None:
    """One rendered room as TUM, 7-Scenes and RealEstate10K publish theirs."""
    sample = Path("D/sample_001")
    cameras = read_cameras(sample / "camera_params.txt", 32, 48)
    poses = inverse(cameras.extrinsics)
    turns = matrix_to_quaternion(poses[..., :3])
    frames, depth = list(iter_frames(sample / "video.mp4")), sorted((sample / "depth").iterdir())
    tum, seven, lists = (
        Path("tum/rgbd_dataset_freiburg1_room"),
        Path("chess/seq-01"),
        {"rgb": "", "depth": "", "groundtruth": ""},
    )
    for part in (tum / "rgb", tum / "depth", seven):
        part.mkdir(parents=True)
    for k, frame in enumerate(frames[:10]):
        time, metres = f"{1305031102 + k / 8:.6f}", read_depth(depth[k])
        Image.fromarray(frame).save(tum / f"rgb/{time}.png")
        Image.fromarray(np.rint(metres * 5000).astype(np.uint16)).save(tum / f"depth/{time}.png")
        for name in ("rgb", "depth"):
            lists[name] += f"{time} {name}/{time}.png\n"
        lists["groundtruth"] += " ".join([time, *(f"{float(v):.9f}" for v in (*poses[k, :, 3], *turns[k]))]) + "\n"
        Image.fromarray(frame).save(seven / f"frame-{k:06d}.color.png")
        Image.fromarray(np.rint(metres * 1000).astype(np.uint16)).save(seven / f"frame-{k:06d}.depth.png")
        np.savetxt(seven / f"frame-{k:06d}.pose.txt", np.concatenate([poses[k].numpy(), [[0, 0, 0, 1]]]))
    for name, text in lists.items():
        (tum / f"{name}.txt").write_text(text)
    _real_estate(frames, poses)


def _real_estate(frames: list[np.ndarray], poses: torch.Tensor) -> None:
    Path("cameras").mkdir()
    write_video(Path("videos/room.mp4"), np.stack(frames), 25)
    rows = ["https://videos.example/watch?v=room"]
    for k, matrix in enumerate(poses):
        rows.append(" ".join([str(k * 40_000), "0.9 1.2 0.5 0.5 0 0", *(f"{float(v):.9f}" for v in matrix.flatten())]))
    Path("cameras/room_0.txt").write_text("\n".join(rows) + "\n")


def _runs() -> None:
    taehv = {**SMALL_TAEHV, **NARROW_WIDTHS, "max_train_steps": 8, "checkpointing_steps": 4, "validation_steps": 8}
    skips = ["--spike_factor=1e-6", "--rewind_after=0", "--run_name=run"]
    _made(["train", "taehv_demo", "--data_root=my_clips", *skips, *as_flags(taehv)])
    capsules = Path("output/run/capsules")
    if not (capsules / "step-7").is_dir():
        shutil.copytree(min(capsules.iterdir()), capsules / "step-7")
    distilled = {**SMALL_TAEHV, **NARROW_WIDTHS}
    _made(["train", "taehv_a800", "--data_root=my_clips", "--run_name=trial", *as_flags(distilled)])
    _made(["compress", "demo_sized", "--keep=0.75", "--calibration", "my_clips", "--output=pruned"])
    world = ["--dataset_base_path=D", "--backbone_path=W", "--condition_cache=C", *as_flags(SMALL_WORLD)]
    _made(["data", "cache", "fantasy_stage1", "--encoders_path=E", "--codec_path=V", *world])
    shutil.copytree("C", "C2")
    _made(["train", "fantasy_stage1", *world, "--codec_path=V", "--run_name=world1"])
    first = Path("output/world1/final_model.safetensors")
    shutil.copyfile(first, "output/world1/step-20000.safetensors")
    _made(["train", "fantasy_stage2", *world, "--codec_path=V", f"--stage1_checkpoint={first}", "--run_name=world2"])


def _made(argv: list[str]) -> None:
    code = main(argv)
    assert code == 0, f"exit code {code} of the sandbox's own command: tinyworld {' '.join(argv)}"
