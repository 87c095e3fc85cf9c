"""What the strategies share: copies for snapshots, AdamW's state by name, modules lent for evaluation."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.core.errors import CheckpointError
from tinyworld.engine.parallel.strategy import Snapshot

MOMENTS = ("exp_avg", "exp_avg_sq")


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU."""
    return {name: torch.empty(value.shape, dtype=value.dtype).copy_(value.detach()) for name, value in tensors.items()}


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def counted(steps: Mapping[str, int], updates: int) -> dict[str, dict[str, Tensor]]:
    """The "step" entry of a snapshot's moments: the parameters that took part in fewer updates than the rest."""
    fewer = {name: torch.tensor(float(step)) for name, step in steps.items() if step != updates}
    return {"step": fewer} if fewer else {}


def updates_of(snapshot: Snapshot, name: str) -> int:
    """How many updates the parameter took part in."""
    own = snapshot.moments.get("step", {}).get(name)
    return snapshot.updates if own is None else int(own)


def checked(snapshot: Snapshot, average: bool, parameters: Mapping[str, Tensor]) -> Snapshot:
    """`snapshot`, or CheckpointError when it cannot continue these parameters."""
    if average and snapshot.average is None:
        raise CheckpointError(
            "the checkpoint holds no averaged weights, but training.ema_decay asks for them: the run it comes from had "
            "none. Use --ema_decay 0 to go on with it."
        )
    unknown = sorted({name for values in snapshot.moments.values() for name in values} - set(parameters))
    if unknown:
        raise CheckpointError(
            f"the checkpoint's optimizer state is of parameters that are not trained here: {', '.join(unknown[:4])}"
            f"{' …' if len(unknown) > 4 else ''}. Train the same part of the same model, or start a new run from its "
            "weights alone."
        )
    return snapshot


@torch.no_grad()
def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy into the module's own tensors. Raises CheckpointError when names or shapes differ."""
    own = module.state_dict()
    check_fit(weights, {name: value.shape for name, value in own.items()})
    for name, value in own.items():
        value.copy_(weights[name])


def check_fit(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raise CheckpointError when the names or shapes of `weights` are not `shapes`."""
    wrong = sorted(weights.keys() ^ shapes.keys())
    wrong += [name for name in sorted(weights.keys() & shapes.keys()) if weights[name].shape != shapes[name]]
    if wrong:
        raise CheckpointError(
            f"the checkpoint's weights are of another model: {len(wrong)} tensors are missing, unknown or of another shape "
            f"({', '.join(wrong[:4])}). Use the model section of the run that it comes from."
        )


def adamw_state(parameter: Tensor, updates: int) -> dict[str, Any]:
    """AdamW's state of one parameter (fused: the count lies beside the weights), with moments of zero."""
    return {
        "step": torch.tensor(float(updates), device=parameter.device),
        **{key: torch.zeros_like(parameter, memory_format=torch.preserve_format) for key in MOMENTS},
    }


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode; each part is put back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, training in modes:
            part.training = training
