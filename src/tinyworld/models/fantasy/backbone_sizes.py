"""The sizes of a Wan transformer, read from the shapes of its tensors; what they do not show, from the config beside them."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tinyworld.core.errors import WeightsError
from tinyworld.core.world_sizes import BackboneSpec
from tinyworld.models.fantasy.backbone_names import ADAPTER, TRANSFORMER, Layout, original_name

KEY = "model.backbone_path, or --base"
WANTED = (
    "Give the weights of Wan2.1-Fun-V1.1-1.3B-Control-Camera (alibaba-pai on Hugging Face): its folder or its "
    f"diffusion_pytorch_model.safetensors (key: {KEY})."
)
OTHERS = {
    16: "as Wan's text-to-video models have: it sees no first frame",
    36: "as Fun-InP and Wan's image-to-video models have: a mask of 4 channels stands before the first frame's latents",
    48: "as Fun-Control has: it takes the latents of a control video",
}
HEAD_DIM = 128
"""Of all published Wan transformers."""
TEXT_TOKENS = 512
MARKS: dict[Layout, str] = {
    "original": "head.head.weight",
    "diffusers": "proj_out.weight",
    "tinyworld": f"{TRANSFORMER}proj_out.weight",
}
"""A tensor that a transformer has in one layout only."""


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Whose names the tensors have. Raises WeightsError for tensors of anything else."""
    for layout, name in MARKS.items():
        if name in tensors:
            return layout
    shown = ", ".join(sorted(tensors)[:5]) or "nothing"
    raise WeightsError(f"These are no weights of a Wan transformer: they hold {shown}, … . {WANTED}")


def read_spec(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> BackboneSpec:
    """Sizes of a transformer in the original or diffusers' layout. config: its config.json, {} when there is none.

    Raises WeightsError for a Wan transformer of another kind than Control-Camera.
    """
    original = layout_of(tensors) == "original"

    def shape(name: str) -> tuple[int, ...]:
        stored = original_name(name) if original else name
        if stored not in tensors:
            raise WeightsError(f"The weights of the transformer are incomplete: {stored} is missing. {WANTED}")
        return tuple(tensors[stored].shape)

    patch = shape("patch_embedding.weight")
    width, inputs = patch[:2]
    latents = shape("proj_out.weight")[0] // 4
    if inputs != 2 * latents:
        kind = OTHERS.get(inputs, "which no model with camera control has")
        raise WeightsError(
            f"This transformer takes {inputs} input channels, {kind}. A world is built on one that takes {2 * latents}: noisy "
            f"latents and the latents of the first frame, {latents} each. {WANTED}"
        )
    heads = config.get("num_heads") or config.get("num_attention_heads") or width // HEAD_DIM
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise WeightsError(
            f"The width {width} of this transformer is no multiple of its {heads} heads: put the config.json that belongs to "
            "these weights beside them (num_heads, or num_attention_heads in diffusers' layout)."
        )
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))}
    image = "condition_embedder.image_embedder.norm1.weight"
    return BackboneSpec(
        layers=max(blocks, default=-1) + 1,
        heads=heads,
        head_dim=width // heads,
        ffn=shape("blocks.0.ffn.net.0.proj.weight")[0],
        text_dim=shape("condition_embedder.text_embedder.linear_1.weight")[1],
        text_tokens=int(config.get("text_len", TEXT_TOKENS)),
        image_dim=shape(image)[0] if (original_name(image) if original else image) in tensors else None,
        freq_dim=shape("condition_embedder.time_embedder.linear_1.weight")[1],
        latent_channels=latents,
        in_channels=inputs,
        camera=any(name.startswith(ADAPTER) for name in tensors),
    )
