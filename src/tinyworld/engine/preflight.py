"""Before the first step: what each loss term weighs in the gradient of the first batch.

Weights of terms say little, since terms differ by orders of magnitude. A term whose gradient vanishes beside the others
trains nothing, and one that drowns them makes their weights meaningless; both are seen here before hours are spent.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn

from tinyworld.engine.task import Losses

LEAST, MOST = 0.01, 0.90
"""Shares of the gradient of one part of the model outside of which a term is worth a warning."""


@dataclass(frozen=True)
class TermShare:
    """One loss term: its weighted value, and its gradient's share in each part of the model that it reaches.

    Parts are the trainable module's children (encoder, decoder, …). A share is the norm of the term's gradient over
    the sum of all terms' norms there. `rising`: the term's weight is still on a ramp.
    """

    term: str
    value: float
    shares: dict[str, float]
    rising: bool = False


def measure(model: nn.Module, losses: Losses) -> list[TermShare]:
    """Shares of each term of `losses`, which `model` (not wrapped) has just made."""
    parts: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts[name.split(".")[0]].append(parameter)
    norms = {term: _norms(value, parts) for term, value in losses.terms.items()}
    totals = {part: sum(norm.get(part, 0.0) for norm in norms.values()) for part in parts}
    return [
        TermShare(
            term,
            float(value.detach()),
            {part: norm / totals[part] for part, norm in norms[term].items() if totals[part] > 0},
            term in losses.rising,
        )
        for term, value in losses.terms.items()
    ]


def _norms(term: torch.Tensor, parts: dict[str, list[nn.Parameter]]) -> dict[str, float]:
    """Norm of the term's gradient in each part that it reaches."""
    if not term.requires_grad:
        return {}
    parameters = [parameter for members in parts.values() for parameter in members]
    gradients = iter(torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True))
    found = {}
    for part, members in parts.items():
        own = [gradient for _, gradient in zip(members, gradients, strict=False) if gradient is not None]
        if own:
            found[part] = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in own])))
    return found


def table(rows: list[TermShare]) -> str:
    """The shares as lines of text."""
    parts = list(dict.fromkeys(part for row in rows for part in row.shares))
    wide = max(len(row.term) for row in rows)
    lines = [f"{'loss term':<{wide}}  {'value':>10}" + "".join(f"  {part:>9}" for part in parts)]
    for row in rows:
        cells = "".join(f"  {_percent(row.shares.get(part)):>9}" for part in parts)
        note = "  (its weight still rises)" if row.rising else ""
        lines.append(f"{row.term:<{wide}}  {row.value:>10.4g}{cells}{note}")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def warnings(rows: list[TermShare]) -> list[str]:
    """Terms that train next to nothing, or drown the others."""
    found = []
    for row in rows:
        if row.shares and max(row.shares.values()) < LEAST and not row.rising:
            found.append(
                f"the {row.term} term has {max(row.shares.values()):.2%} of the gradient: it trains next to nothing. "
                "Raise its weight, or set it to 0 and save its time."
            )
        for part, share in row.shares.items():
            rivals = sum(1 for other in rows if other.shares.get(part, 0.0) > 0)
            if share > MOST and rivals > 1:
                found.append(
                    f"the {row.term} term has {share:.1%} of the {part}'s gradient: the other terms hardly count there. "
                    "Lower its weight, or raise theirs."
                )
    return found
