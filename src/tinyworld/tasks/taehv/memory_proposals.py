"""What makes a run fit that does not: changes of the recipe, each tried with the same plan, never guessed."""

import math
from collections.abc import Callable, Collection, Iterable

from tinyworld.config.batch import clips_per_step
from tinyworld.config.rules import check_rules
from tinyworld.config.schema import Stage, TaehvRecipe
from tinyworld.core.errors import DataError, FramePlanError
from tinyworld.core.frames import divisors
from tinyworld.models.teachers import TeacherFacts
from tinyworld.tasks.memory_advice import Changes, Proposal, advised, apply
from tinyworld.tasks.memory_search import SAME_CLIPS, Search, Way, smaller_pictures
from tinyworld.tasks.taehv.memory_parts import empty_reference, taught_count
from tinyworld.tasks.taehv.plan_memory import MOVABLE, plans

SAME_LESSON = {
    "training.gradient_checkpointing": (True, "about a third more time"),
    "seraena.seraena_buffer_device": ("cpu", "older frames come from main memory"),
    "teacher.ref_vae_slicing": (True, "the reference VAE takes one clip at a time"),
    "validation.validation_batch_size": (1, "the same clips, one at a time"),
}
"""Changes after which the model learns the same, and what they cost."""
TILING = ("teacher.ref_vae_tiling", "faint seams in the reference VAE's latents; no resume of an older run")
HOPELESS = (
    "No batch, clip size or setting of this recipe fits; use a GPU with more memory, or a narrower model (keys: "
    "model.encoder_width, model.decoder_widths)."
)


def advice(recipe: TaehvRecipe, processes: int, limit: int) -> str:
    """The proposals as text that goes on after a sentence."""
    return advised(proposals(recipe, processes, limit), HOPELESS)


def proposals(recipe: TaehvRecipe, processes: int, limit: int) -> list[Proposal]:
    """Changes with which the recipe's plan needs at most `limit` bytes; those that leave what is learned alone first.

    Single changes where one is enough, else the fewest of them together; then, where clips that are trained on are too
    large, fewer frames and smaller pictures, by themselves or together with the others. Empty when nothing is enough.
    """
    search = _Search(recipe, processes, limit)
    if search.least > limit:
        return []
    mild = [*search.same_lesson(), *search.fitting(search.batches())]
    if not search.too_large and (found := search.largest_valid(search.measured())):
        mild.append(found)
    if not mild:
        mild = search.together()
    if not search.too_large:
        return mild
    clips = [found for shrink in (search.frames, search.sizes) if (found := search.largest_valid(shrink()))]
    if not mild and not clips:
        base = search.everything()
        clips = [found for shrink in (search.frames, search.sizes) if (found := search.largest_valid(shrink(), base))]
    return [*mild, *clips]


class _Search(Search[TaehvRecipe]):
    def __init__(self, recipe: TaehvRecipe, processes: int, limit: int) -> None:
        super().__init__(recipe, processes, limit, lambda *given: max(plan.total for plan in plans(*given)))
        every = plans(recipe, processes)
        self.plan = max(every, key=lambda plan: (plan.training, plan.total))
        self.too_large = {plan.clips[1:] for plan in every if plan.training > limit}
        """Clip sizes that do not fit where they are trained on."""
        self.least = self.plan.allowance + sum(size for name, size in self.plan.standing.items() if name not in MOVABLE)
        reference = empty_reference(recipe)
        self.facts: TeacherFacts | None = None if reference is None else reference.facts

    def same_lesson(self) -> list[Proposal]:
        return self.fitting(({key: value}, cost) for key, (value, cost) in SAME_LESSON.items() if self._changes(key))

    def batches(self) -> list[Way]:
        """Fewer clips per pass and more passes, the same clips per step; where no stage allows that, fewer clips."""
        recipe, stages = self.recipe, self.recipe.stages()
        number = next(i for i, stage in enumerate(stages) if stage.key == self.plan.key)
        batch, total = stages[number].batch, recipe.parallel.global_batch_size
        if total is not None:
            return self.of_global_batch(batch, total, lambda size: _batch(recipe, number, size))
        common = math.gcd(*(stage.batch for stage in stages))
        if common > 1:
            return [(_divided(recipe, factor), SAME_CLIPS) for factor in divisors(common)[1:]]
        halves = [batch // 2**k for k in range(1, batch.bit_length())]
        return [(_batch(recipe, number, size), self._fewer(number, size)) for size in halves]

    def together(self) -> list[Proposal]:
        """The fewest changes of `everything` that fit together; if need be with tiling, and smaller held-out clips."""
        base = self.everything()
        tiled = {**base, TILING[0]: True} if self.recipe.distils else base
        found = next((changes for changes in (base, tiled) if self.fits(changes)), None)
        if found is None:
            smaller = next(
                (p for changes in (base, tiled) if (p := self.largest_valid(self.measured(), changes))), None
            )
            found = None if smaller is None else smaller.changes
        if not found:
            return []
        for group in _groups(found):
            fewer = {key: value for key, value in found.items() if key not in group}
            if self.fits(fewer):
                found = fewer
        costs = [cost for key, (_, cost) in SAME_LESSON.items() if key in found]
        costs += [TILING[1]] if TILING[0] in found else []
        costs += ["held-out clips are measured smaller"] if "validation.validation_height" in found else []
        return self.fitting([(found, "; ".join(costs))])

    def everything(self) -> Changes:
        """All changes that leave what is learned alone: SAME_LESSON and the smallest batch with the same clips per step."""
        changes = {key: value for key, (value, _) in SAME_LESSON.items() if self._changes(key)}
        same = [found for found, cost in self.batches() if cost == SAME_CLIPS]
        return changes | (same[-1] if same else {})

    def measured(self) -> list[Way]:
        """Smaller held-out clips, the largest last."""
        _, height, width, _ = self.plan.measured
        cost = f"held-out clips are measured smaller, not at {height} x {width}"
        return [
            ({"validation.validation_height": high, "validation.validation_width": wide}, cost)
            for high, wide in smaller_pictures(height, width, self.recipe.spec().size_multiple)
        ]

    def frames(self) -> list[Way]:
        """Clips that do not fit cut to so many frames, the longest last."""
        longest = self.plan.clips[3]

        def cut(frames: int) -> Changes:
            return _resized(self.recipe, lambda size: (*size[:2], min(size[2], frames)), self.too_large)

        return [(cut(frames), f"{frames} frames instead of {longest}") for frames in range(1, longest)]

    def sizes(self) -> list[Way]:
        """Pictures that do not fit shrunk to so many pixels in about the same shape, the largest last."""
        _, height, width, _ = self.plan.clips
        step = self.recipe.spec().size_multiple

        def shrunk(high: int, wide: int) -> Changes:
            def change(size: Size) -> Size:
                return (high, wide, size[2]) if size[:2] == (height, width) else _within(size, high * wide, step)

            return _resized(self.recipe, change, self.too_large)

        return [
            (shrunk(high, wide), f"{high} x {wide} pixels instead of {height} x {width}")
            for high, wide in smaller_pictures(height, width, step)
        ]

    def largest_valid(self, ways: list[Way], base: Changes | None = None) -> Proposal | None:
        """`largest` of the ways that recipe and reference VAE take; the cost is the way's alone."""
        return self.largest([way for way in ways if self._valid(way[0])], (base or {}, ""))

    def fitting(self, candidates: Iterable[Way]) -> list[Proposal]:
        """Those that fit; of several for one set of keys the first."""
        found: dict[tuple[str, ...], Proposal] = {}
        for changes, cost in candidates:
            if tuple(changes) not in found and self.fits(changes):
                found[tuple(changes)] = self.proposal((changes, cost))
        return list(found.values())

    def _fewer(self, number: int, size: int) -> str:
        before = clips_per_step(self.recipe, self.processes)[number]
        return f"{before // self.recipe.stages()[number].batch * size} clips per step there instead of {before}"

    def _changes(self, key: str) -> bool:
        """Whether the recipe has another value and uses what the key is about."""
        section, _, leaf = key.partition(".")
        used = {"seraena": self.recipe.seraena.use_seraena, "teacher": self.recipe.distils}.get(section, True)
        return used and getattr(getattr(self.recipe, section), leaf) != SAME_LESSON[key][0]

    def _valid(self, changes: Changes) -> bool:
        """Whether recipe and reference VAE take the changed clips."""
        changed = apply(self.recipe, changes)
        if check_rules(changed):
            return False
        try:
            for stage in changed.stages():
                for bucket in stage.buckets:
                    if self.facts is not None:
                        self.facts.latent_count(taught_count(changed, (stage.batch, *bucket)))
                        self.facts.check_size(*bucket[:2])
        except (FramePlanError, DataError):
            return False
        return True


def _batch(recipe: TaehvRecipe, number: int, size: int) -> Changes:
    """Another batch for one stage: the key that sets it."""
    if recipe.stages()[number].batch_key == Stage.batch_key:
        return {"training.train_batch_size": size}
    stages = list(recipe.data.stages)
    stages[number - 1] = stages[number - 1].model_copy(update={"train_batch_size": size})
    return {"data.stages": tuple(stages)}


def _divided(recipe: TaehvRecipe, factor: int) -> Changes:
    """Every stage's batch divided and the passes multiplied by it."""
    training = recipe.training
    changes: Changes = {
        "training.train_batch_size": training.train_batch_size // factor,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps * factor,
    }
    own = [stage.train_batch_size for stage in recipe.data.stages]
    if any(own):
        smaller = [size and size // factor for size in own]
        changes["data.stages"] = tuple(
            stage.model_copy(update={"train_batch_size": size})
            for stage, size in zip(recipe.data.stages, smaller, strict=True)
        )
    return changes


def _groups(changes: Changes) -> list[list[str]]:
    """Keys that are given up together, one group after another."""
    alone = [[key] for key in changes if key in SAME_LESSON or key == TILING[0]]
    measured = [key for key in changes if key.startswith("validation.validation_") and key not in SAME_LESSON]
    batch = [key for key in changes if [key] not in alone and key not in measured]
    return [*alone, *([batch] if batch else [])]


Size = tuple[int, int, int]


def _resized(recipe: TaehvRecipe, change: Callable[[Size], Size], which: Collection[Size]) -> Changes:
    """Clip sizes `which` of the recipe changed, wherever they stand; only the keys that then differ."""
    data = recipe.data
    leaves = ("height", "width", "n_frames")

    def changed(size: Size) -> Size:
        return change(size) if size in which else size

    values = dict(zip(leaves, changed((data.height, data.width, data.n_frames)), strict=True))
    changes: Changes = {f"data.{leaf}": value for leaf, value in values.items() if value != getattr(data, leaf)}
    buckets = tuple(dict.fromkeys(changed(bucket) for bucket in data.buckets))
    stages = tuple(
        stage.model_copy(
            update={
                **dict(zip(leaves, changed((stage.height, stage.width, stage.n_frames)), strict=True)),
                "buckets": tuple(dict.fromkeys(changed(bucket) for bucket in stage.buckets)),
            }
        )
        for stage in data.stages
    )
    changes |= {"data.buckets": buckets} if buckets != data.buckets else {}
    return changes | ({"data.stages": stages} if stages != data.stages else {})


def _within(size: Size, area: int, step: int) -> Size:
    """A clip size shrunk in its shape to at most so many pixels, in whole steps."""
    height, width, frames = size
    if height * width <= area:
        return size
    scale = math.sqrt(area / (height * width))
    high, wide = (max(step, math.floor(side * scale / step + 1e-6) * step) for side in (height, width))
    return high, max(wide, min(width, area // high // step * step)), frames
