"""Noise levels of sampling: diffusers' flow-matching scheduler on the levels that Wan2.1 is trained with.

Before the shift the levels fall evenly from 1 towards 0, which is left out (sigma_min 0 and one extra step, in the words of the
FantasyWorld release); then σ' = s σ / (1 + (s − 1) σ) with the shift s of the training (5 unless the weights say otherwise). With
1000 steps they are exactly those of training.
"""

from functools import cache
from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

from tinyworld.core.errors import ConfigError

SHIFT = 5.0
TRAINED_LEVELS = 1000


def flow_scheduler(steps: int, shift: float = SHIFT) -> Any:
    """A FlowMatchEulerDiscreteScheduler, set to `steps` steps from pure noise to none; timesteps are 1000 σ.

    Raises ConfigError.
    """
    if steps < 1:
        raise ConfigError(f"num_inference_steps={steps} must be at least 1; 50 is usual.")
    scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAINED_LEVELS, shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1].tolist())
    return scheduler


def nearest_level(sigma: float, shift: float = SHIFT) -> float:
    """The noise level of a training with this shift that is nearest to `sigma`. Raises ConfigError outside [0, 1]."""
    if not 0 <= sigma <= 1:
        raise ConfigError(f"sigma={sigma} is no noise level: it must be from 0 to 1; 0.1 is usual for footage.")
    levels = _trained_levels(shift)
    return float(levels[np.abs(levels - sigma).argmin()])


@cache
def _trained_levels(shift: float) -> np.ndarray:
    """All but the 0 at the scheduler's end, which no model is trained at."""
    return flow_scheduler(TRAINED_LEVELS, shift).sigmas[:-1].double().numpy()
