"""Whether a run's plan fits the GPU that it is meant for, and the refusal with what would."""

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.errors import ConfigError
from tinyworld.tasks.memory_advice import advised, memory_limit, refusal
from tinyworld.tasks.memory_plan import MemoryPlan
from tinyworld.tasks.taehv.memory_proposals import proposals
from tinyworld.tasks.taehv.plan_memory import plan_memory


def check_memory(recipe: TaehvRecipe, processes: int) -> MemoryPlan:
    """The recipe's plan. Raises ConfigError with changes that fit when it exceeds `memory_limit`."""
    plan = plan_memory(recipe, processes)
    limit = memory_limit(recipe)
    if limit is not None and plan.total > limit[0]:
        raise ConfigError(refusal(plan, *limit, advice(recipe, processes, limit[0])))
    return plan


def advice(recipe: TaehvRecipe, processes: int, limit: int) -> str:
    """The proposals as text that goes on after a sentence."""
    hopeless = (
        "No batch, clip size or setting of this recipe fits; use a GPU with more memory, or a narrower model (keys: "
        "model.encoder_width, model.decoder_widths)."
    )
    return advised(proposals(recipe, processes, limit), hopeless)
