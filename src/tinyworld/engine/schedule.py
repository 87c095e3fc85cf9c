"""Optimizer and learning-rate schedule. The rate is a pure function of the step: nothing to save, nothing to drift."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from tinyworld.config.sections import OptimizerConfig


def learning_rate(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Rate for optimizer step `step` (0-based). Linear warm-up, then constant, cosine or linear down to
    `lr_end_factor` × the peak at the last step."""
    warmup = config.lr_warmup_steps
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.lr_scheduler == "constant":
        return config.learning_rate
    progress = min((step - warmup) / max(max_steps - 1 - warmup, 1), 1.0)
    fall = (1 + math.cos(math.pi * progress)) / 2 if config.lr_scheduler == "cosine" else 1 - progress
    return config.learning_rate * (config.lr_end_factor + (1 - config.lr_end_factor) * fall)


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over fp32 master weights; the fused kernel updates all parameters in one pass."""
    return torch.optim.AdamW(
        [p for p in parameters if p.requires_grad],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
