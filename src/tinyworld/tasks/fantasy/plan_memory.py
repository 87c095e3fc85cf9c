"""Device memory of a whole run of a FantasyWorld recipe, before a weight is loaded."""

from tinyworld.config.batch import accumulations
from tinyworld.config.schema import FantasyRecipe
from tinyworld.engine.memory import Sharing, standing, weight_bytes
from tinyworld.tasks.fantasy.memory_parts import empty_networks, stepping, validating
from tinyworld.tasks.memory_plan import STEP, VALIDATION, Clips, MemoryPlan, allowance

TRAINED = {
    "base": "transformer (weights, gradients, AdamW, average)",
    "stage1": "branch (weights, gradients, AdamW, average)",
    "stage2": "branch (weights, gradients, AdamW, average)",
}


def plan_memory(recipe: FantasyRecipe, processes: int) -> MemoryPlan:
    """The recipe's plan. Raises ConfigError as `config.batch.accumulations`.

    Counted with the networks and losses that run, in some seconds. The bf16 copies that autocast makes of the weights are part
    of the moments.
    """
    accumulations(recipe, processes)
    (stage,) = recipe.stages()
    clips = (stage.batch, *stage.buckets[0])
    sharing = Sharing(recipe.parallel.strategy, processes, recipe.parallel.cpu_offload)
    backbone, branch = empty_networks(recipe)
    trained = backbone if branch is None else branch
    there = {TRAINED[recipe.stage]: standing(trained, False, recipe.training.ema_decay > 0, sharing)}
    if branch is not None:
        there["frozen transformer"] = weight_bytes(backbone)
    always, measured = sum(there.values()), measured_clips(recipe)
    moments = {
        STEP: always + stepping(recipe, clips).total,
        VALIDATION: always + validating(recipe, measured).total,
    }
    return MemoryPlan(clips, measured, stage.key, there, moments, _not_counted(recipe), allowance(recipe))


def measured_clips(recipe: FantasyRecipe) -> Clips:
    """The clips of a validation's forward pass."""
    data, own = recipe.data, recipe.validation
    return min(own.validation_batch_size, own.num_validation_samples), data.height, data.width, data.num_frames


def _not_counted(recipe: FantasyRecipe) -> tuple[str, ...]:
    if recipe.model.codec_path is None:
        return ()
    if recipe.data.condition_cache is None:
        return ("the codec and its encoding of each micro-batch; with data.condition_cache none runs in training",)
    return ("the codec, which decodes previews at validations",)
