"""Whether the tensors of a file are those that a network takes, and what is said when they are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

SHOWN = 5
"""How many names of each kind a message shows."""


@dataclass(frozen=True)
class Misfits:
    """Names of tensors. missing: not in the file. extra: in the file alone. reshaped: of another shape. shared: in both."""

    missing: list[str]
    extra: list[str]
    reshaped: list[str]
    shared: list[str]


def compared(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Misfits:
    """A file's tensors beside the shapes that a network has."""
    shared = [name for name in shapes if name in tensors]
    return Misfits(
        missing=[name for name in shapes if name not in tensors],
        extra=[name for name in tensors if name not in shapes],
        reshaped=[name for name in shared if tuple(tensors[name].shape) != shapes[name]],
        shared=shared,
    )


def told(problems: Mapping[str, Sequence[str]]) -> str:
    """Problems (what is wrong → the tensors) as the middle of a sentence; "" without any."""
    return "; ".join(counted(names, kind) for kind, names in problems.items() if names)


def counted(names: Sequence[str], kind: str) -> str:
    """How many tensors are of a kind, with the first names."""
    more = ", …" if len(names) > SHOWN else ""
    return f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {kind} ({', '.join(names[:SHOWN])}{more})"
