"""A static step on pictures that are too large to compute at once: strip by strip over the full width, with one state.

Each strip is computed with a border (halo) of rows as wide as the network looks and cut out of the result, so strips equal the
whole up to rounding. What the clip leaves behind between frames is kept once, for whole pictures, and renewed in place; beside
it a step needs what one strip needs. Strips rather than squares: their border costs work on two sides only, 1 + 36 / rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Past = list[Tensor | None]
Step = Callable[[list[Tensor], Past], tuple[Sequence[Tensor], Sequence[Tensor | None]]]


@dataclass(frozen=True)
class Strips:
    """rows: height of a strip, halo: of its border to each side; both in latent cells."""

    rows: int
    halo: int

    def run(self, step: Step, inputs: Sequence[Tensor], past: Past, cells: int) -> tuple[list[Tensor], Past]:
        """`step(inputs, past)` for pictures of `cells` rows of latent cells: its results and the new past.

        Everything is N C H W with H a multiple of `cells`. The tensors of `past` become those of the new past.
        """
        results: list[Tensor] = []
        state: Past = list(past)
        above: Past = [None] * len(past)
        for first in range(0, cells, self.rows):
            last = min(first + self.rows, cells)
            start, stop = max(first - self.halo, 0), min(last + self.halo, cells)
            known = [_below(one, old, first, stop, cells) for one, old in zip(above, past, strict=True)]
            made, after = step([_rows(x, start, stop, cells) for x in inputs], known)
            # The next strip's border still asks for the rows of this one as they were.
            reach = min(self.halo, last)
            above = [None if old is None else _last_rows(old, reach, stop - last, stop - start) for old in known]
            if first == 0:
                results = [_room_for(x, stop, cells) for x in made]
                state = [
                    _room_for(new, stop, cells) if old is None and new is not None else old
                    for old, new in zip(past, after, strict=True)
                ]
            for target, part in zip((*results, *state), (*made, *after), strict=True):
                if target is not None and part is not None:
                    core = _rows(part, first - start, last - start, stop - start)
                    _rows(target, first, last, cells).copy_(core)
        return results, state


def _rows(x: Tensor, first: int, last: int, cells: int) -> Tensor:
    """Of a picture that is `cells` high, those from cell `first` to before `last`."""
    scale = x.shape[-2] // cells
    return x[..., first * scale : last * scale, :]


def _below(above: Tensor | None, old: Tensor | None, first: int, stop: int, cells: int) -> Tensor | None:
    """A strip with its border of what was: rows that have been renewed come from `above`."""
    if old is None or above is None:
        return None if old is None else _rows(old, first, stop, cells).clone()
    return torch.cat([above, _rows(old, first, stop, cells)], -2)


def _last_rows(known: Tensor, reach: int, border: int, cells: int) -> Tensor:
    """The `reach` rows before the lower border."""
    return _rows(known, cells - border - reach, cells - border, cells)


def _room_for(part: Tensor, cells: int, all_cells: int) -> Tensor:
    """An empty picture of full height for parts like this one."""
    shape = (*part.shape[:-2], part.shape[-2] // cells * all_cells, part.shape[-1])
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
