"""Whether a run's plan fits the GPU that it is meant for, and the refusal with what would."""

from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.errors import ConfigError
from tinyworld.tasks.fantasy.memory_proposals import proposals
from tinyworld.tasks.fantasy.plan_memory import plan_memory
from tinyworld.tasks.memory_advice import advised, memory_limit, refusal
from tinyworld.tasks.memory_plan import MemoryPlan


def check_memory(recipe: FantasyRecipe, processes: int) -> MemoryPlan:
    """The recipe's plan. Raises ConfigError with changes that fit when it exceeds `memory_limit`."""
    plan = plan_memory(recipe, processes)
    limit = memory_limit(recipe)
    if limit is not None and plan.total > limit[0]:
        raise ConfigError(refusal(plan, *limit, advice(recipe, processes, limit[0])))
    return plan


def advice(recipe: FantasyRecipe, processes: int, limit: int) -> str:
    """The proposals as text that goes on after a sentence."""
    hopeless = (
        "No batch, clip size or setting of this recipe fits; use a GPU with more memory, or more processes to share the "
        "branch out (key: parallel.strategy)."
    )
    return advised(proposals(recipe, processes, limit), hopeless)
