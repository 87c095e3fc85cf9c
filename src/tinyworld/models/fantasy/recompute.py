"""Activations that the backward pass computes again instead of keeping: less memory for more time, equal gradients."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

LONG = 1024
"""Keys from which on attention's output is kept: one number for each of tokens times width, at 4 operations a key to compute it
again. A linear layer takes 2 operations for each channel that it reads, 3,072 at the published width."""
ATTENTION = frozenset(
    {
        torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_efficient_attention.default,
        torch.ops.aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)


def recomputed(step: Callable[..., Any], *arguments: Any) -> Any:
    """`step(*arguments)`, of which inputs, results and the outputs of long attention alone are kept for the backward pass.

    The step must draw no random numbers. Without gradients it is simply called.
    """
    if not torch.is_grad_enabled():
        return step(*arguments)
    return checkpoint(step, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=_contexts)


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_: Any, operation: Any, *arguments: Any, **__: Any) -> CheckpointPolicy:
    kept = operation in ATTENTION and arguments[1].shape[-2] >= LONG
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
