"""What a video transformer makes of its conditions alone: the same at every noise level, so that sampling makes it once.

The largest part are keys and values of the cross-attention of all blocks. At `wan_fun_1_3b` in bf16 they take 94 MB a clip for
the text and 47 MB for the image tokens; camera features take 101 MB more at 480 x 832 x 81, rotary tables 34 MB. A pass without
the prompt has a text of its own and shares the rest.
"""

from typing import Any, NamedTuple

from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Keys and values, each B tokens heads head_dim."""


class Keys(NamedTuple):
    """Of one block's cross-attention. image: None for a transformer without image tokens."""

    text: Pair
    image: Pair | None


class Known(NamedTuple):
    """context: B tokens D, image tokens before text tokens. image_tokens: how many of them. steering: B D t h/2 w/2, what is
    added to the patches, None without cameras. rotary: as in `backbone.WanState`. keys: of every block, or () when each step
    makes its own.
    """

    context: Tensor
    image_tokens: int
    steering: Tensor | None
    rotary: Pair
    keys: tuple[Keys, ...] = ()


def keys_of(attention: Any, known: Known, like: Keys | None = None) -> Keys:
    """Keys and values of `attention`, a diffusers WanAttention; those of the image tokens are `like`'s where it is given."""
    image, text = known.context.split([known.image_tokens, known.context.shape[1] - known.image_tokens], 1)
    found = _heads(attention, attention.norm_k(attention.to_k(text))), _heads(attention, attention.to_v(text))
    if not known.image_tokens:
        return Keys(found, None)
    if like is not None:
        return Keys(found, like.image)
    key = attention.norm_added_k(attention.add_k_proj(image))
    return Keys(found, (_heads(attention, key), _heads(attention, attention.add_v_proj(image))))


def cross_attention(attention: Any, hidden: Tensor, keys: Keys) -> Tensor:
    """Hidden B N D → B N D: bit for bit what `attention` makes of the context that the keys are of, by its own backend."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    query = _heads(attention, attention.norm_q(attention.to_q(hidden)))
    backend = attention.processor._attention_backend

    def read(pair: Pair) -> Tensor:
        return dispatch_attention_fn(query, *pair, backend=backend).flatten(2, 3).type_as(query)

    found = read(keys.text)
    if keys.image is not None:
        found = found + read(keys.image)
    return attention.to_out[1](attention.to_out[0](found))


def _heads(attention: Any, tokens: Tensor) -> Tensor:
    return tokens.unflatten(2, (attention.heads, -1))
