"""The device memory of a run as the plans of all families tell it."""

from dataclasses import dataclass

from tinyworld.config.schema import Recipe
from tinyworld.engine.memory import gib

Clips = tuple[int, int, int, int]
"""Clips in a micro-batch, and their height, width and number of frames."""

ALLOWANCE = 3 * 2**29
"""1.5 GiB for what is no tensor of ours: the CUDA context with its kernels (about 0.5), the buffers of NCCL, cuDNN and
cuBLAS (about 0.5), and what the allocator loses to rounding and gaps (about 0.5). Usual sizes, not measured for this
project; `engine.fit_memory` measures what a run really takes."""

TEACHING = "reference VAE gives a held-out clip back, before step 1"
STEP = "forward and backward pass"
VALIDATION = "validation"
MEASURED = (TEACHING, VALIDATION)
"""Moments that depend on the validation section's clips, not on those that are trained on."""


def allowance(recipe: Recipe) -> int:
    """ALLOWANCE, or 0 for a run that is meant for a CPU."""
    return 0 if on_cpu(recipe) else ALLOWANCE


def on_cpu(recipe: Recipe) -> bool:
    """Whether the recipe itself says so, whatever there is on this machine; run.gpu_memory is about a GPU."""
    return recipe.run.device == "cpu" and recipe.run.gpu_memory is None


@dataclass(frozen=True)
class MemoryPlan:
    """What one process needs on its device with one of the recipe's clip sizes. All sizes in bytes.

    clips: the micro-batch, of the stage that `key` names. measured: that of a validation. standing: what is there all the time,
    by name. moments: the most that each part of the run needs, `standing` included. not_counted: what comes on top, in words.
    allowance: for what is no tensor of ours; 0 on a CPU.
    """

    clips: Clips
    measured: Clips
    key: str
    standing: dict[str, int]
    moments: dict[str, int]
    not_counted: tuple[str, ...]
    allowance: int = ALLOWANCE

    @property
    def dearest(self) -> str:
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def total(self) -> int:
        return self.moments[self.dearest] + self.allowance

    @property
    def training(self) -> int:
        """What the clips that are trained on need."""
        return max(size for name, size in self.moments.items() if name not in MEASURED) + self.allowance

    def clips_at(self, moment: str) -> str:
        """The micro-batch that a moment is about, in words."""
        batch, height, width, n_frames = self.measured if moment in MEASURED else self.clips
        batch = 1 if moment == TEACHING else batch
        return f"{batch} clip{'' if batch == 1 else 's'} of {height} x {width} x {n_frames}"

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        there = ", ".join(f"{name} {gib(size)}" for name, size in self.standing.items())
        lines = [
            f"memory: {gib(self.total)} per process; the largest micro-batch is {self.clips_at(STEP)} (key: {self.key})",
            f"  {gib(sum(self.standing.values())):>9}  all the time: {there}",
        ]
        lines += [
            f"  {gib(size):>9}  {name}, {self.clips_at(name)}{' (the most)' if name == self.dearest else ''}"
            for name, size in self.moments.items()
        ]
        if self.allowance:
            on_top = "on top: CUDA context, libraries and the allocator's gaps (an allowance)"
            lines.append(f"  {gib(self.allowance):>9}  {on_top}")
        return lines + [f"  not counted: {what}" for what in self.not_counted]
