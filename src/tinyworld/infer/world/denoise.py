"""From noise to latents and geometry: what the networks are asked at each step, and classifier-free guidance.

Geometry is asked for at the last step alone, of the pass with the prompt. The pass without it has the same cameras and first
frame, and no two-way attention, as in the FantasyWorld release. What the transformer makes of text, first frame and cameras is
made before the first step (`models.fantasy.known`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinyworld.infer.world.schedule import TRAINED_LEVELS
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch
from tinyworld.models.fantasy.prediction import Geometry

OnStep = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(number, timestep, latents after the step, estimate of the clean latents) → latents to go on with."""


class Given(NamedTuple):
    """What a pass over B clips is given.

    rays: B 6 F H W, zeros for clips without cameras. camera: B bool, who has cameras. interact: B bool, stage 2's two-way
    attention.
    """

    conditions: WanConditions
    rays: Tensor
    camera: Tensor
    interact: Tensor


@dataclass(frozen=True)
class Networks:
    """branch: None for a video without geometry. autocast: the number type in which the branch computes, None as stored."""

    backbone: WanBackbone
    branch: GeometryBranch | None
    autocast: torch.dtype | None = None

    @torch.no_grad()
    def remembered(self, given: Given, beside: Given | None = None) -> Given:
        """The same, with what all steps have in common. beside: given remembered already that differs in the text alone."""
        with self._precision(given.rays.device):
            known = None if beside is None else beside.conditions.known
            return given._replace(conditions=self.backbone.remember(given.conditions, known))

    @torch.no_grad()
    def velocity(self, noisy: Tensor, timestep: Tensor, given: Given) -> Tensor:
        """B 16 t h w float32, without any head being run."""
        with self._precision(noisy.device):
            if self.branch is None or self.branch.stage == "stage1":
                return self.backbone(noisy, timestep, given.conditions).float()
            return self.branch.velocity(
                self.backbone,
                noisy,
                timestep,
                given.conditions,
                given.rays,
                given.camera,
                given.camera,
                given.interact,
            ).float()

    @torch.no_grad()
    def joint(
        self, noisy: Tensor, timestep: Tensor, given: Given, video: bool = True
    ) -> tuple[Tensor | None, Geometry]:
        """Velocity and geometry of networks with a branch. Without `video` stage 1 leaves the velocity out, with its cost."""
        assert self.branch is not None
        own = {"steered": given.camera, "interact": given.interact} if self.branch.stage == "stage2" else {}
        with self._precision(noisy.device):
            velocity, geometry = self.branch(
                self.backbone, noisy, timestep, given.conditions, given.rays, given.camera, **own, video=video
            )
        return None if velocity is None else velocity.float(), geometry

    def _precision(self, device: torch.device) -> Any:
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)


def sample(
    networks: Networks,
    noise: Tensor,
    given: Given,
    empty: Given | None,
    guidance: Tensor,
    scheduler: Any,
    on_step: OnStep,
) -> tuple[Tensor, Geometry | None]:
    """Latents B 16 t h w float32 of `noise` like them, and geometry where there is a branch.

    empty: the pass without the prompt, all else as in `given`; None where nobody is guided. guidance: B, 1 for clips that are
    not guided: theirs is the first pass's velocity, bit for bit. scheduler: as `schedule.flow_scheduler` makes it.
    """
    given = networks.remembered(given)
    empty = None if empty is None else networks.remembered(empty, given)
    latents, geometry = noise, None
    share = guidance.reshape(-1, 1, 1, 1, 1)
    for number, timestep in enumerate(scheduler.timesteps):
        told = timestep.to(noise).expand(len(noise))
        if networks.branch is not None and number == len(scheduler.timesteps) - 1:
            made, geometry = networks.joint(latents, told, given)
            assert made is not None
            velocity = made
        else:
            velocity = networks.velocity(latents, told, given)
        if empty is not None:
            without = networks.velocity(latents, told, empty)
            velocity = torch.where(share == 1, velocity, without + share * (velocity - without))
        estimate = latents - float(timestep) / TRAINED_LEVELS * velocity
        latents = scheduler.step(velocity, timestep, latents).prev_sample
        latents = on_step(number, timestep, latents, estimate)
    return latents, geometry
