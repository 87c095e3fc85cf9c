"""What makes a FantasyWorld run fit that does not: changes of the recipe, each planned again, never guessed.

First what leaves the learning alone, one change or as many as are needed: checkpointing, fewer clips per pass with more passes,
smaller validation batches, weights and optimizer shared out over the processes. Smaller clips only where nothing else is enough.
"""

from collections.abc import Iterable, Sequence

from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.frames import divisors
from tinyworld.core.world_sizes import PATCH, SPACE_STEP, TIME_STEP
from tinyworld.tasks.fantasy.plan_memory import plan_memory
from tinyworld.tasks.memory_advice import Changes, Proposal, advised, apply
from tinyworld.tasks.memory_search import NOTHING, SAME_CLIPS, Search, Way, joined, smaller_pictures

TOKEN = PATCH[1] * SPACE_STEP
CHECKPOINTING: Way = ({"training.gradient_checkpointing": True}, "about a third more time")
VALIDATION: Way = ({"validation.validation_batch_size": 1}, "the same clips, one at a time")
FROZEN: Way = ({"model.backbone_dtype": "bf16"}, "the frozen transformer is rounded to bf16")
HOPELESS = (
    "No batch, clip size or setting of this recipe fits; use a GPU with more memory, or more processes to share the "
    "branch out (key: parallel.strategy)."
)


def advice(recipe: FantasyRecipe, processes: int, limit: int) -> str:
    """The proposals as text that goes on after a sentence."""
    return advised(proposals(recipe, processes, limit), HOPELESS)


def proposals(recipe: FantasyRecipe, processes: int, limit: int) -> list[Proposal]:
    """Changes with which the recipe's plan needs at most `limit` bytes. Empty when nothing is enough."""
    search = _Search(recipe, processes, limit)
    return search.alone() or search.together() or search.smaller_clips()


class _Search(Search[FantasyRecipe]):
    def __init__(self, recipe: FantasyRecipe, processes: int, limit: int) -> None:
        super().__init__(recipe, processes, limit, lambda changed, count: plan_memory(changed, count).total)

    def alone(self) -> list[Proposal]:
        """Every way that is enough by itself; of several batches the largest."""
        batch = next((choice for choice in self._batches() if self.fits(choice[0])), None)
        ways = [*self._settings(), *([batch] if batch else []), *self._shared()]
        return self._fitting(ways)

    def together(self) -> list[Proposal]:
        """All settings and the largest batch with which they fit; with each way to share weights out, where one is needed."""
        base = joined(self._settings())
        batches = [NOTHING, *self._batches()]
        for ways in ([NOTHING], self._shared()):
            found = []
            for way in ways:
                batch = next((choice for choice in batches if self.fits({**base[0], **choice[0], **way[0]})), None)
                if batch is not None:
                    found.append(self._fewest([*self._settings(), batch, way]))
            if found:
                return found
        return []

    def smaller_clips(self) -> list[Proposal]:
        """Fewer frames, or smaller pictures, after everything else."""
        smallest = self._batches()[-1:]
        for way in NOTHING, *self._shared()[-1:]:
            base = joined([*self._settings(), *smallest, way])
            found = [self.largest(choices, base) for choices in (self._frames(), self._sizes())]
            if any(found):
                return [proposal for proposal in found if proposal is not None]
        return []

    def _settings(self) -> list[Way]:
        ways = [CHECKPOINTING, VALIDATION, *([] if self.recipe.stage == "base" else [FROZEN])]
        return [way for way in ways if apply(self.recipe, way[0]) != self.recipe]

    def _batches(self) -> list[Way]:
        """Fewer clips per pass and more passes, the same clips per step; the largest first."""
        training, total = self.recipe.training, self.recipe.parallel.global_batch_size
        batch, key = training.train_batch_size, "training.train_batch_size"
        if total is not None:
            return self.of_global_batch(batch, total, lambda size: {key: size})
        passes = training.gradient_accumulation_steps
        return [
            ({key: size, "training.gradient_accumulation_steps": passes * (batch // size)}, SAME_CLIPS)
            for size in divisors(batch)[-2::-1]
        ]

    def _shared(self) -> list[Way]:
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

    def _frames(self) -> list[Way]:
        longest = self.recipe.data.num_frames
        return [
            ({"data.num_frames": frames}, f"{frames} frames instead of {longest}")
            for frames in range(1, longest, TIME_STEP)
        ]

    def _sizes(self) -> list[Way]:
        height, width = self.recipe.data.height, self.recipe.data.width
        return [
            ({"data.height": high, "data.width": wide}, f"{high} x {wide} pixels instead of {height} x {width}")
            for high, wide in smaller_pictures(height, width, TOKEN)
        ]

    def _fewest(self, ways: Sequence[Way]) -> Proposal:
        """Ways that fit together, without those that are not needed for it."""
        needed = list(ways)
        for way in ways:
            fewer = [other for other in needed if other is not way]
            if self.fits(joined(fewer)[0]):
                needed = fewer
        return self.proposal(joined(needed))

    def _fitting(self, ways: Iterable[Way]) -> list[Proposal]:
        return [self.proposal(way) for way in ways if self.fits(way[0])]
