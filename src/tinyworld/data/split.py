"""Which videos are held out: decided by video, never by frame, and by the video's id alone."""

from collections.abc import Sequence

from tinyworld.core.errors import DataError
from tinyworld.core.rng import uniform
from tinyworld.data.scan import ClipRef


def split(clips: Sequence[ClipRef], held_out: float | int, seed: int) -> tuple[list[ClipRef], list[ClipRef]]:
    """(training clips, held-out clips), both in the order given.

    Each id has a place in [0, 1) that depends on (seed, id) only. held_out as a fraction in (0, 1): the clips placed
    below it are held out, about that share of them; a clip added later never moves another to the other side. As a
    whole number: that many clips, those of the lowest places. Either way each side gets at least one clip: the one of
    the lowest or the highest place.

    Raises DataError with fewer than two clips, or a number that leaves none to train on; ValueError for a fraction
    outside (0, 1).
    """
    if len(clips) < 2:
        raise DataError(
            f"{len(clips)} usable video{'s' if len(clips) != 1 else ''}: at least 2 are needed, one to train on and "
            "one to validate on (keys: data.data_root, or data.held_out_root for a folder of validation videos)"
        )
    order = sorted(clips, key=lambda clip: _place(clip, seed))
    if isinstance(held_out, int):
        if not 1 <= held_out < len(clips):
            raise DataError(f"{held_out} of {len(clips)} videos cannot be held out: 1 to {len(clips) - 1} can")
        count = held_out
    else:
        if not 0 < held_out < 1:
            raise ValueError(f"the held-out fraction must lie between 0 and 1, not {held_out}")
        count = sum(_place(clip, seed) < held_out for clip in order)
    ids = {clip.id for clip in order[: min(max(count, 1), len(clips) - 1)]}
    return [clip for clip in clips if clip.id not in ids], [clip for clip in clips if clip.id in ids]


def _place(clip: ClipRef, seed: int) -> float:
    return uniform("split", seed, clip.id)
