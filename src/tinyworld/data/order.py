"""The order of training samples: a pure function of the step.

Every bucket (clips of one shape) is an endless stream of its clips, one permutation after the other. Steps are dealt
to the buckets in rounds; in a round every bucket gets enough batches to show each of its clips once, at least one. A
batch takes the next samples of its bucket's stream. So any step can be computed without those before it, every clip of
a bucket is seen equally often (to within one), and nothing depends on how many processes share a batch.

Without `cuts` every epoch cuts a clip anew. With it (latents that were computed before) a clip has that many cuts, which
come back in turn from epoch to epoch. Either way each epoch has other noise.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tinyworld.core.errors import DataError
from tinyworld.core.rng import derive_seed


@dataclass(frozen=True)
class Draw:
    """One training sample to be cut. index: of the clip. bucket: its shape. seed: of everything random in it.

    epoch: how many times the bucket's stream has gone through its clips before. turn: (seed of the order, number of the
    cut) where clips have a few cuts that come back. noise_seed: of what is added to the clip once it is cut; it belongs to
    the place in the stream and is not compared: draws are equal that show the same.
    """

    index: int
    bucket: int
    seed: int
    epoch: int
    turn: tuple[int, int] | None = None
    noise_seed: int = field(default=0, compare=False)


def cut_seed(turn: tuple[int, int], bucket: int, clip_id: str) -> int:
    """Seed of one of the cuts of a clip. It follows from the clip's id, so clips that come or go change no other's."""
    root, number = turn
    return derive_seed("cut", root, bucket, clip_id, number)


class Order:
    """Batches by step.

    bucket_of: for each clip the buckets it takes part in (one number, or several). batch: samples in a global batch,
    over all processes and micro-batches. seed: another seed gives another order. cuts: how many cuts a clip has, used in
    turn; 0 cuts anew in every epoch. ids: of the clips, needed with `cuts`.

    Raises DataError when no clip takes part in any bucket, ValueError for an empty batch and for cuts without ids.
    """

    def __init__(
        self,
        bucket_of: Sequence[int | Sequence[int]],
        batch: int,
        seed: int,
        cuts: int = 0,
        ids: Sequence[str] = (),
    ) -> None:
        if batch < 1:
            raise ValueError(f"a global batch needs at least 1 sample, not {batch}")
        if cuts and len(ids) != len(bucket_of):
            raise ValueError(f"the cuts of {len(bucket_of)} clips need their ids, not {len(ids)}")
        self.batch_size = batch
        self.seed = seed
        self.cuts = cuts
        self._ids = list(ids)
        members: dict[int, list[int]] = {}
        for index, buckets in enumerate(bucket_of):
            for bucket in [buckets] if isinstance(buckets, int) else buckets:
                members.setdefault(bucket, []).append(index)
        if not members:
            raise DataError("there are no clips to train on")
        self._buckets = sorted(members)
        self._members = [np.array(members[bucket]) for bucket in self._buckets]
        self._per_round = [-(-len(clips) // batch) for clips in self._members]
        self.round_length = sum(self._per_round)
        """Steps of a round: as many samples as there are clips, rounded up to whole batches in each bucket."""
        self._permutation = functools.lru_cache(maxsize=2 * len(members) + 2)(self._permute)
        self._deal = functools.lru_cache(maxsize=2)(self._deal_round)

    def batch(self, step: int) -> list[Draw]:
        """The global batch of optimizer step `step` (from 0): `batch_size` draws, all of one bucket."""
        round_number, slot = divmod(step, self.round_length)
        which, place = self._deal(round_number)[slot]
        first = (round_number * self._per_round[which] + place) * self.batch_size
        return [self._draw(which, position) for position in range(first, first + self.batch_size)]

    def rank_slice(self, step: int, rank: int, world: int, micro: int) -> list[list[Draw]]:
        """The part of `batch(step)` that one process sees: `micro` lists, one per forward pass.

        The global batch is dealt in runs of batch_size / (world x micro) draws, to all ranks for the first
        micro-batch, then to all for the second. Raises ValueError when it does not divide.
        """
        size, rest = divmod(self.batch_size, world * micro)
        if rest or not 0 <= rank < world:
            raise ValueError(
                f"a global batch of {self.batch_size} cannot be dealt to rank {rank} of {world} in {micro} "
                "micro-batches"
            )
        draws = self.batch(step)
        starts = [(number * world + rank) * size for number in range(micro)]
        return [draws[start : start + size] for start in starts]

    def every_cut(self) -> list[Draw]:
        """With `cuts`: a draw of each cut that a batch can ever hold, bucket by bucket, all of a clip together."""
        return [
            self._cut(index, bucket, number, 0)
            for bucket, members in zip(self._buckets, self._members, strict=True)
            for index in members.tolist()
            for number in range(self.cuts)
        ]

    def _draw(self, which: int, position: int) -> Draw:
        """Sample number `position` of a bucket's stream."""
        clips, bucket = self._members[which], self._buckets[which]
        epoch, place = divmod(position, len(clips))
        index = int(clips[self._permutation(which, epoch)[place]])
        noise = derive_seed("noise", self.seed, bucket, position)
        if self.cuts:
            return self._cut(index, bucket, epoch, noise)
        return Draw(index, bucket, derive_seed("draw", self.seed, bucket, position), epoch, noise_seed=noise)

    def _cut(self, index: int, bucket: int, epoch: int, noise: int) -> Draw:
        turn = (self.seed, epoch % self.cuts)
        return Draw(index, bucket, cut_seed(turn, bucket, self._ids[index]), epoch, turn, noise)

    def _deal_round(self, round_number: int) -> list[tuple[int, int]]:
        """For each step of a round: which bucket, and which of its batches in this round."""
        slots = [which for which, count in enumerate(self._per_round) for _ in range(count)]
        mixed = [slots[slot] for slot in _shuffled(len(slots), derive_seed("round", self.seed, round_number))]
        counters = [itertools.count() for _ in self._members]
        return [(which, next(counters[which])) for which in mixed]

    def _permute(self, which: int, epoch: int) -> np.ndarray:
        return _shuffled(len(self._members[which]), derive_seed("epoch", self.seed, self._buckets[which], epoch))


def _shuffled(count: int, seed: int) -> np.ndarray:
    """A permutation of range(count). NumPy has frozen RandomState's stream: a later version resumes the same order."""
    return np.random.RandomState([seed >> 32, seed & 0xFFFFFFFF]).permutation(count)
