"""Device memory of a whole run of the `taehv` task, before a weight is loaded: every clip size of every stage, and what else
has to fit beside it."""

from tinyworld.config.batch import accumulations
from tinyworld.config.schema import TaehvRecipe
from tinyworld.engine.memory import Sharing, standing, weight_bytes
from tinyworld.tasks.memory_plan import STEP, TEACHING, VALIDATION, Clips, MemoryPlan, allowance
from tinyworld.tasks.taehv.memory_parts import (
    EmptyReference,
    EmptySeraena,
    empty_model,
    empty_reference,
    learning,
    measured_clips,
    shown_bytes,
    stepping,
    taught_count,
    teaching,
    validating,
)

ENCODING = "reference VAE encodes"
LEARNING = "Seraena's discriminator learns"
REPLAY, SHOWN = "Seraena's replay buffer", "Seraena's frames of a step"
MOVABLE = (REPLAY, SHOWN)
"""What is there all the time, but not with every setting."""


def plan_memory(recipe: TaehvRecipe, processes: int) -> MemoryPlan:
    """The plan of the dearest clip size over all stages. Raises ConfigError as `config.batch.accumulations`.

    Counted on the meta device with the networks and losses that run, in a second or so. A reference VAE whose config.json
    cannot be read is named in `not_counted`: opening it raises the error.
    """
    return max(plans(recipe, processes), key=lambda plan: (plan.training, plan.total))


def plans(recipe: TaehvRecipe, processes: int) -> list[MemoryPlan]:
    """The plan of each clip size of each stage. Raises as `plan_memory`."""
    reference = empty_reference(recipe)
    missing: list[str] = []
    if recipe.distils and reference is None:
        missing.append(
            f"the reference VAE {recipe.teacher.ref_vae_path}, which is not on this machine; it often needs the most"
        )
    if recipe.validation.lpips_backbone is not None:
        missing.append("LPIPS: its network (about 0.1 GiB) and 8 frames in it at a time")
    parts = _Parts(recipe, reference, Sharing(recipe.parallel.strategy, processes, recipe.parallel.cpu_offload))
    passes = accumulations(recipe, processes)
    return [
        parts.plan((stage.batch, *bucket), stage.key, count, tuple(missing))
        for stage, count in zip(recipe.stages(), passes, strict=True)
        for bucket in stage.buckets
    ]


class _Parts:
    """What does not depend on the clip size, counted once."""

    def __init__(self, recipe: TaehvRecipe, reference: EmptyReference | None, sharing: Sharing) -> None:
        self.recipe, self.reference = recipe, reference
        self.seraena = EmptySeraena(recipe) if recipe.seraena.use_seraena else None
        half, average = recipe.training.mixed_precision == "bf16", recipe.training.ema_decay > 0
        self.standing = {
            "model (weights, gradients, AdamW, average)": standing(empty_model(recipe), half, average, sharing)
        }
        of_reference = 0 if reference is None else weight_bytes(reference.vae)
        self.encodes = recipe.data.latent_cache is None
        if reference is not None and (self.encodes or recipe.loss.decoder_loss_weight):
            self.standing["reference VAE"] = of_reference
        if self.seraena is not None:
            self.standing["Seraena's discriminator"] = standing(self.seraena.discriminator, False, False)
            if recipe.seraena.seraena_buffer_device == "training":
                self.standing[REPLAY] = recipe.seraena.seraena_buffer_mb * 2**20
        self.validation = validating(recipe).total
        self.teaching = None if reference is None else of_reference + teaching(recipe, reference).total

    def plan(self, clips: Clips, key: str, passes: int, missing: tuple[str, ...]) -> MemoryPlan:
        recipe, there = self.recipe, dict(self.standing)
        if self.seraena is not None:
            there[SHOWN] = shown_bytes(recipe, clips, passes)
        always = sum(there.values())
        moments: dict[str, int] = {}
        if self.teaching is not None:
            moments[TEACHING] = self.teaching
        if self.reference is not None and self.encodes:
            encoding = self.reference.encoding(*clips[:3], taught_count(recipe, clips))
            moments[ENCODING] = always + encoding.total
        moments[STEP] = always + stepping(recipe, clips, self.reference, self.seraena).total
        if self.seraena is not None:
            moments[LEARNING] = always + learning(recipe, clips, self.seraena).total
        moments[VALIDATION] = always + self.validation
        return MemoryPlan(clips, measured_clips(recipe), key, there, moments, missing, allowance(recipe))
