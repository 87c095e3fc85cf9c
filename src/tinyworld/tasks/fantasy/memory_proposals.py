"""What makes a FantasyWorld run fit that does not: changes of the recipe, each planned again, never guessed.

First what leaves the learning alone, one change or as many as are needed: checkpointing, fewer clips per pass with more passes,
smaller validation batches, weights and optimizer shared out over the processes. Smaller clips only where nothing else is enough.
"""

import json
from collections.abc import Iterable, Sequence

from tinyworld.config.batch import accumulations
from tinyworld.config.rules import check_rules
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.errors import ConfigError
from tinyworld.core.frames import divisors
from tinyworld.core.world_sizes import PATCH, SPACE_STEP, TIME_STEP
from tinyworld.tasks.fantasy.plan_memory import plan_memory
from tinyworld.tasks.memory_advice import Changes, Proposal, apply

TOKEN = PATCH[1] * SPACE_STEP
CHECKPOINTING: tuple[Changes, str] = ({"training.gradient_checkpointing": True}, "about a third more time")
VALIDATION: tuple[Changes, str] = ({"validation.validation_batch_size": 1}, "the same clips, one at a time")
FROZEN: tuple[Changes, str] = ({"model.backbone_dtype": "bf16"}, "the frozen transformer is rounded to bf16")
SAME_CLIPS = "the same clips per step"


def proposals(recipe: FantasyRecipe, processes: int, limit: int) -> list[Proposal]:
    """Changes with which the recipe's plan needs at most `limit` bytes. Empty when nothing is enough."""
    search = _Search(recipe, processes, limit)
    return search.alone() or search.together() or search.smaller_clips()


class _Search:
    def __init__(self, recipe: FantasyRecipe, processes: int, limit: int) -> None:
        self.recipe, self.processes, self.limit = recipe, processes, limit
        self._totals: dict[str, int | None] = {}

    def alone(self) -> list[Proposal]:
        """Every way that is enough by itself; of several batches the largest."""
        batch = next((choice for choice in self._batches() if self._fits(choice[0])), None)
        ways = [*self._settings(), *([batch] if batch else []), *self._shared()]
        return self._fitting(ways)

    def together(self) -> list[Proposal]:
        """All settings and the largest batch with which they fit; with each way to share weights out, where one is needed."""
        base = self._joined(self._settings())
        nothing: tuple[Changes, str] = ({}, "")
        batches = [nothing, *self._batches()]
        for ways in ([nothing], self._shared()):
            found = []
            for way in ways:
                batch = next((choice for choice in batches if self._fits({**base[0], **choice[0], **way[0]})), None)
                if batch is not None:
                    found.append(self._fewest([*self._settings(), batch, way]))
            if found:
                return found
        return []

    def smaller_clips(self) -> list[Proposal]:
        """Fewer frames, or smaller pictures, after everything else."""
        smallest = self._batches()[-1:]
        for way in ({}, ""), *self._shared()[-1:]:
            base = self._joined([*self._settings(), *smallest, way])
            found = [self._largest(base, choices) for choices in (self._frames(), self._sizes())]
            if any(found):
                return [proposal for proposal in found if proposal is not None]
        return []

    def _settings(self) -> list[tuple[Changes, str]]:
        ways = [CHECKPOINTING, VALIDATION, *([] if self.recipe.stage == "base" else [FROZEN])]
        return [way for way in ways if apply(self.recipe, way[0]) != self.recipe]

    def _batches(self) -> list[tuple[Changes, str]]:
        """Fewer clips per pass and more passes, the same clips per step; the largest first."""
        training, total = self.recipe.training, self.recipe.parallel.global_batch_size
        batch, key = training.train_batch_size, "training.train_batch_size"
        if total is not None:
            free = {"training.gradient_accumulation_steps": 1} if training.gradient_accumulation_steps != 1 else {}
            sizes = [size for size in divisors(total) if size < batch and total % (size * self.processes) == 0]
            return [({key: size, **free}, SAME_CLIPS) for size in sizes[::-1]]
        passes = training.gradient_accumulation_steps
        return [
            ({key: size, "training.gradient_accumulation_steps": passes * (batch // size)}, SAME_CLIPS)
            for size in divisors(batch)[-2::-1]
        ]

    def _shared(self) -> list[tuple[Changes, str]]:
        """Other strategies, those that cost least first."""
        parallel, found = self.recipe.parallel, []
        for strategy in ("zero2", "fsdp2") if self.processes > 1 else ():
            if parallel.strategy in ("ddp", "zero2") and strategy != parallel.strategy:
                found.append(({"parallel.strategy": strategy}, "shared out over the processes"))
        if not parallel.cpu_offload:
            change: Changes = {"parallel.cpu_offload": True}
            if parallel.strategy == "ddp":
                change = {"parallel.strategy": "zero2", **change}
            found.append((change, "AdamW works in main memory, which is slow"))
        return found

    def _frames(self) -> list[tuple[Changes, str]]:
        longest = self.recipe.data.num_frames
        return [
            ({"data.num_frames": frames}, f"{frames} frames instead of {longest}")
            for frames in range(1, longest, TIME_STEP)
        ]

    def _sizes(self) -> list[tuple[Changes, str]]:
        height, width = self.recipe.data.height, self.recipe.data.width
        pairs = [
            (high, max(TOKEN, round(width * high / height / TOKEN) * TOKEN)) for high in range(TOKEN, height, TOKEN)
        ]
        return [
            ({"data.height": high, "data.width": wide}, f"{high} x {wide} pixels instead of {height} x {width}")
            for high, wide in pairs
        ]

    def _largest(self, base: tuple[Changes, str], choices: Sequence[tuple[Changes, str]]) -> Proposal | None:
        """Of choices that need more and more, the last that fits beside `base` (by bisection)."""
        if not choices or not self._fits({**base[0], **choices[0][0]}):
            return None
        low, high = 1, len(choices)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._fits({**base[0], **choices[middle][0]}) else (low, middle)
        return self._proposal(self._joined([base, choices[low - 1]]))

    def _fewest(self, ways: Sequence[tuple[Changes, str]]) -> Proposal:
        """Ways that fit together, without those that are not needed for it."""
        needed = list(ways)
        for way in ways:
            fewer = [other for other in needed if other is not way]
            if self._fits(self._joined(fewer)[0]):
                needed = fewer
        return self._proposal(self._joined(needed))

    @staticmethod
    def _joined(ways: Iterable[tuple[Changes, str]]) -> tuple[Changes, str]:
        changes: Changes = {}
        for change, _ in ways:
            changes |= change
        return changes, "; ".join(cost for _, cost in ways if cost)

    def _fitting(self, ways: Iterable[tuple[Changes, str]]) -> list[Proposal]:
        return [self._proposal(way) for way in ways if self._fits(way[0])]

    def _proposal(self, way: tuple[Changes, str]) -> Proposal:
        total = self._total(way[0])
        assert total is not None
        return Proposal(way[0], total, way[1])

    def _fits(self, changes: Changes) -> bool:
        total = self._total(changes)
        return total is not None and total <= self.limit

    def _total(self, changes: Changes) -> int | None:
        """None for changes that the recipe's rules refuse."""
        key = json.dumps(changes, sort_keys=True)
        if key not in self._totals:
            changed = apply(self.recipe, changes)
            try:
                accumulations(changed, self.processes)
                self._totals[key] = None if check_rules(changed) else plan_memory(changed, self.processes).total
            except ConfigError:
                self._totals[key] = None
        return self._totals[key]
