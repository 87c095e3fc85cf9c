"""Names of a Wan transformer's tensors: diffusers' and those of the original checkpoints (Wan-Video/Wan2.1, VideoX-Fun).

The original calls its norms norm1, norm3, norm2 in the order in which a block applies them; diffusers counts on. The camera
adapter has the same names everywhere.
"""

import re
from collections.abc import Iterable
from typing import Literal

Layout = Literal["original", "diffusers", "tinyworld"]

ADAPTER = "control_adapter."
TRANSFORMER = "transformer."

_TOP = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
}
_ATTENTION = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
}
_BLOCK = {
    **{f"attn1.{ours}": f"self_attn.{original}" for ours, original in _ATTENTION.items()},
    **{f"attn2.{ours}": f"cross_attn.{original}" for ours, original in _ATTENTION.items()},
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
_BLOCK_NAME = re.compile(r"(blocks\.\d+)\.(.+)")


def original_name(name: str) -> str:
    """The original name of a tensor that diffusers' Wan transformer calls `name`. Raises KeyError for any other name."""
    block = _BLOCK_NAME.fullmatch(name)
    if block:
        part = block[2]
        return f"{block[1]}.{'modulation' if part == 'scale_shift_table' else _renamed(part, _BLOCK)}"
    return "head.modulation" if name == "scale_shift_table" else _renamed(name, _TOP)


def _renamed(name: str, table: dict[str, str]) -> str:
    module, _, kind = name.rpartition(".")  # weight or bias
    return f"{table[module]}.{kind}"


def stored_names(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """Name in a file → name in a `WanBackbone`, for all of the latter's tensors."""
    stored = {}
    for name in names:
        inner = name.removeprefix(TRANSFORMER)
        if layout == "tinyworld" or inner == name:  # the adapter's
            stored[name] = name
        else:
            stored[original_name(inner) if layout == "original" else inner] = name
    return stored
