"""Opening what a pipeline is made of: transformer, geometry branch, codecs, encoders; by what weight files say of themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyworld.core.errors import ConfigError, WeightsError
from tinyworld.core.files import find
from tinyworld.core.world_sizes import SIZES, WorldSpec
from tinyworld.infer.codec import TaehvCodec, VaeCodec, open_codec
from tinyworld.models.fantasy.backbone import WanBackbone
from tinyworld.models.fantasy.backbone_weights import open_backbone
from tinyworld.models.fantasy.branch import GeometryBranch
from tinyworld.models.fantasy.encoders import ImageEncoder, TextEncoder, open_image_encoder, open_text_encoder
from tinyworld.models.fantasy.weights import BranchInfo, load_into, read_branch

RUN_PLACES = ("best_model", "latest.safetensors")
"""In the folder of a run, the better first."""
CHECKPOINT_NAMES = ("ema.safetensors", "model.safetensors")
"""In a checkpoint or best_model, the average first."""


@dataclass(frozen=True)
class Parts:
    """base_digest: of the transformer, as the branch's file names it. info: what that file says of itself; None without one."""

    backbone: WanBackbone
    branch: GeometryBranch | None
    info: BranchInfo | None
    base_digest: str
    codec: VaeCodec | TaehvCodec
    tiny: TaehvCodec | None
    text: TextEncoder | None
    image: ImageEncoder | None


def open_parts(
    base: str | Path,
    weights: str | Path | None,
    codec: str | Path | None,
    encoders: str | Path | None,
    tiny_codec: str | Path | None,
    dtype: torch.dtype,
) -> Parts:
    """All parts on the CPU. base, weights and codecs may be the folder of a run, whose best weights are then taken.

    The branch stays in float32. Raises MissingFileError, WeightsError, MissingExtraError, and ConfigError where no codec is
    given and the weights name none.
    """
    state, info = (
        (None, None) if weights is None else read_branch(weights_in(find(weights, what="weights", key="--weights")))
    )
    place = in_run(find(base, what="video transformer", key="--base"))
    expected = None if info is None or info.spec is None else info.spec.backbone
    backbone = open_backbone(place, dtype, expected)
    digest = backbone.digest()
    branch = None
    if state is not None and info is not None:
        with torch.device("meta"):
            branch = GeometryBranch(info.spec or _spec_beside(backbone, info), info.stage)
        branch = branch.to_empty(device="cpu").requires_grad_(False).eval()
        load_into(branch, state, info, digest or None)
    pictures = backbone.spec.image_dim is not None
    return Parts(
        backbone,
        branch,
        info,
        digest,
        open_codec(in_run(_codec_place(codec or tiny_codec, info)), dtype),
        None if tiny_codec is None else _open_tiny(tiny_codec, dtype),
        None if encoders is None else open_text_encoder(encoders, dtype),
        open_image_encoder(encoders, dtype) if encoders is not None and pictures else None,
    )


def in_run(place: Path) -> Path:
    """The best weights in the folder of a run; every other place as it is."""
    found = [place / name for name in RUN_PLACES if place.is_dir() and (place / name).exists()]
    return found[0] if found else place


def weights_in(place: Path) -> Path:
    """The weight file of a branch in the folder of a run, a checkpoint or a best_model; a file as it is."""
    place = in_run(place)
    found = [place / name for name in CHECKPOINT_NAMES if (place / name).is_file()]
    return found[0] if found else place


def stated_clip(info: BranchInfo | None) -> tuple[int, int, int] | None:
    """Height, width and frames of the clips that weights were trained on, where their file says so."""
    clip: Any = None if info is None else info.meta.get("clip")
    if isinstance(clip, list) and len(clip) == 3 and all(isinstance(size, int) and size > 0 for size in clip):
        return clip[0], clip[1], clip[2]
    return None


def _codec_place(codec: str | Path | None, info: BranchInfo | None) -> Path:
    named = None if info is None else info.meta.get("codec")
    if codec is None and not named:
        raise ConfigError(
            "There is no codec, and the weights name none: give the one whose latents the transformer was trained on, the Wan "
            "2.1 VAE in diffusers' format or a TAEHV for it (--codec)."
        )
    return find(codec or str(named), what="codec", key="--codec")


def _open_tiny(path: str | Path, dtype: torch.dtype) -> TaehvCodec:
    codec = open_codec(in_run(find(path, what="tiny codec", key="--tiny_codec")), dtype)
    if not isinstance(codec, TaehvCodec):
        raise WeightsError(f"{path} holds a VAE. The tiny codec (--tiny_codec) is a TAEHV, such as taew2_1.")
    return codec


def _spec_beside(backbone: WanBackbone, info: BranchInfo) -> WorldSpec:
    for spec in SIZES.values():
        if spec.backbone == backbone.spec:
            return spec
    raise WeightsError(
        f"{info.file} does not state its sizes, and the transformer is of none of the known ones ({', '.join(SIZES)})."
    )
