"""Whether a run's plan fits the GPU that it is meant for, and the refusal with what would."""

import torch

from tinyworld.config.schema import TaehvRecipe
from tinyworld.config.size import parse_size
from tinyworld.core.errors import ConfigError
from tinyworld.engine.accelerate_setup import training_device
from tinyworld.engine.memory import gib
from tinyworld.tasks.taehv.memory_proposals import Proposal, proposals
from tinyworld.tasks.taehv.plan_memory import MemoryPlan, plan_memory


def memory_limit(recipe: TaehvRecipe) -> tuple[int, str] | None:
    """Bytes that a process may take and where they come from: run.gpu_memory, else the GPU here; None without either."""
    if recipe.run.gpu_memory is not None:
        return parse_size(recipe.run.gpu_memory), f"gpu_memory={recipe.run.gpu_memory}"
    device = training_device(recipe)
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory, torch.cuda.get_device_name(device)


def check_memory(recipe: TaehvRecipe, processes: int) -> MemoryPlan:
    """The recipe's plan. Raises ConfigError with changes that fit when it exceeds `memory_limit`."""
    plan = plan_memory(recipe, processes)
    limit = memory_limit(recipe)
    if limit is not None and plan.total > limit[0]:
        raise ConfigError(refusal(recipe, processes, plan, *limit))
    return plan


def refusal(recipe: TaehvRecipe, processes: int, plan: MemoryPlan, limit: int, source: str) -> str:
    """One paragraph: what is too much, and each way out with its estimate and its flags."""
    return (
        f"the plan needs {gib(plan.total)} per process, and {source} holds {gib(limit)}. Most is needed for: {plan.dearest} "
        f"({plan.clips_at(plan.dearest)}).{advice(recipe, processes, limit)}"
    )


def advice(recipe: TaehvRecipe, processes: int, limit: int) -> str:
    """The proposals as text that goes on after a sentence."""
    found = proposals(recipe, processes, limit)
    if not found:
        return (
            " No batch, clip size or setting of this recipe fits; use a GPU with more memory, or a narrower model (keys: "
            "model.encoder_width, model.decoder_widths)."
        )
    return " What fits, by the same estimate:\n" + "\n".join(_line(proposal) for proposal in found)


def _line(proposal: Proposal) -> str:
    return f"  {gib(proposal.total):>10}  {proposal.flags}" + (f"  ({proposal.cost})" if proposal.cost else "")
