"""Draws whose videos cannot be read, and the others that stand in for them; which clips can stand in for which."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from tinyworld.core.errors import DataError, UserError, passing
from tinyworld.core.rng import derive_seed
from tinyworld.data.cut import Bucket
from tinyworld.data.entries import IncompleteCacheError
from tinyworld.data.order import Draw, cut_seed
from tinyworld.data.scan import ClipRef, reason_of

MAX_REPLACEMENTS = 8
"""A draw whose video cannot be read is replaced by another; so many failures in a row are no accident."""
Read = TypeVar("Read")
ClipOf = Callable[[int], ClipRef]
"""The clip of an index."""


def first_readable(
    draw: Draw, read: Callable[[Draw], Read], members: Sequence[int], clip_of: ClipOf, what: str
) -> tuple[Read, list[tuple[str, str]]]:
    """What `read` makes of a draw, or of the first of its replacements that can be read; (path, reason) of those before it.

    members: clips of the draw's bucket. what: is read, in the plural. Raises DataError when `MAX_REPLACEMENTS` replacements
    cannot be read either, IncompleteCacheError as `read` does: another clip would hide the gap.
    """
    faults: list[tuple[str, str]] = []
    for attempt in range(1 + MAX_REPLACEMENTS):
        this = draw if attempt == 0 else replacement(draw, attempt - 1, members, clip_of)
        try:
            return read(this), faults
        except IncompleteCacheError:
            raise
        except (UserError, OSError) as error:
            video = clip_of(this.index).path
            faults.append((str(video), reason_of(error, video)))
    listed = "".join(f"\n  {path}: {reason}" for path, reason in dict(faults).items())
    # They could all be read when they were scanned: the storage is more likely at fault than they are.
    raise passing(DataError(f"{len(faults)} {what} in a row could not be read while training:{listed}"))


def replacement(draw: Draw, attempt: int, members: Sequence[int], clip_of: ClipOf) -> Draw:
    """Another of the members, from the draw's seed; of a clip with few cuts the one of the same turn."""
    seed = derive_seed("replacement", draw.seed, attempt)
    index = members[seed % len(members)]
    if draw.turn is not None:
        seed = cut_seed(draw.turn, draw.bucket, clip_of(index).id)
    return replace(draw, index=index, seed=seed)


def choose_buckets(buckets: Sequence[Bucket], usable: Sequence[int], fills: Collection[int]) -> tuple[int, ...]:
    """Of the buckets that a clip can be used for those that it fills; where there is none, the one that asks least of it
    (fewest frames, then smallest area)."""
    least = sorted(usable, key=lambda number: (buckets[number][2], buckets[number][0] * buckets[number][1]))
    return tuple(fills or least[:1])
