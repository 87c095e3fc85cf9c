"""What every family's search for changes that fit is made of: each is planned again, none is guessed."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Generic

from tinyworld.config.batch import accumulations
from tinyworld.config.rules import check_rules
from tinyworld.core.errors import ConfigError
from tinyworld.core.frames import divisors
from tinyworld.tasks.memory_advice import AnyRecipe, Changes, Proposal, apply

Way = tuple[Changes, str]
"""Changes and what they cost in words."""
NOTHING: Way = ({}, "")
SAME_CLIPS = "the same clips per step"


class Search(Generic[AnyRecipe]):
    """Changes of one recipe, tried against `limit` bytes.

    total: the bytes that a recipe's plan needs, for so many processes; ConfigError for what it cannot plan.
    """

    def __init__(self, recipe: AnyRecipe, processes: int, limit: int, total: Callable[[AnyRecipe, int], int]) -> None:
        self.recipe, self.processes, self.limit = recipe, processes, limit
        self._plan_total = total
        self._totals: dict[str, int | None] = {}

    def fits(self, changes: Changes) -> bool:
        total = self._total(changes)
        return total is not None and total <= self.limit

    def proposal(self, way: Way) -> Proposal:
        """Of a way that the rules allow."""
        total = self._total(way[0])
        assert total is not None
        return Proposal(way[0], total, way[1])

    def largest(self, ways: Sequence[Way], base: Way = NOTHING) -> Proposal | None:
        """Of ways that need more and more, the last that fits beside `base` (by bisection)."""
        together = [joined([base, way]) for way in ways]
        if not together or not self.fits(together[0][0]):
            return None
        low, high = 1, len(together)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.fits(together[middle][0]) else (low, middle)
        return self.proposal(together[low - 1])

    def of_global_batch(self, batch: int, total: int, changed: Callable[[int], Changes]) -> list[Way]:
        """Smaller batches than `batch` that divide `parallel.global_batch_size`, the largest first; the passes follow."""
        one_pass = self.recipe.training.gradient_accumulation_steps == 1
        free = {} if one_pass else {"training.gradient_accumulation_steps": 1}
        sizes = [size for size in divisors(total) if size < batch and total % (size * self.processes) == 0]
        return [({**changed(size), **free}, SAME_CLIPS) for size in sizes[::-1]]

    def _total(self, changes: Changes) -> int | None:
        """None for changes that the recipe's rules refuse."""
        key = json.dumps(changes, sort_keys=True, default=str)
        if key not in self._totals:
            changed = apply(self.recipe, changes)
            try:
                accumulations(changed, self.processes)
                self._totals[key] = None if check_rules(changed) else self._plan_total(changed, self.processes)
            except ConfigError:
                self._totals[key] = None
        return self._totals[key]


def joined(ways: Iterable[Way]) -> Way:
    """All of them as one."""
    changes: Changes = {}
    costs = []
    for change, cost in ways:
        changes |= change
        costs += [cost] if cost else []
    return changes, "; ".join(costs)


def smaller_pictures(height: int, width: int, step: int) -> list[tuple[int, int]]:
    """Pictures smaller than height x width in about its shape, in whole steps, the largest last."""
    return [(high, max(step, round(width * high / height / step) * step)) for high in range(step, height, step)]
