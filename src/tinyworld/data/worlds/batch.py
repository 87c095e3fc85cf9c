"""Training samples with geometry, stacked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tinyworld.core.geometry import Cameras
from tinyworld.data.worlds.condition_cache import Conditions, stack_conditions
from tinyworld.data.worlds.dataset import WorldSample

TENSORS = ("frames", "depth", "mask", "points", "extrinsics", "intrinsics", "scale", "usable")


@dataclass
class WorldBatch:
    """One micro-batch of one process; the fields are those of `WorldSample` with N in front.

    frames: uint8 N T C H W. depth, mask: N T H W. points: N T H W 3. extrinsics: N T 3 4. intrinsics: N T 4. scale: float32
    N. usable: bool N. faults: of all samples together. conditions: None without a cache of them.
    """

    frames: Tensor
    depth: Tensor
    mask: Tensor
    points: Tensor
    extrinsics: Tensor
    intrinsics: Tensor
    scale: Tensor
    usable: Tensor
    ids: list[str]
    starts: list[int]
    steps: list[int]
    captions: list[str]
    noise_seeds: list[int]
    faults: list[tuple[str, str]] = field(default_factory=list)
    conditions: Conditions | None = None

    @property
    def cameras(self) -> Cameras:
        """N T cameras of the clips; their world is the clip's first camera, their unit the clip's scale."""
        return Cameras(self.extrinsics, self.intrinsics, *self.frames.shape[-2:])

    @property
    def draws(self) -> list[str]:
        """What tells each sample from every other: its id, its cut and its noise."""
        cuts = zip(self.ids, self.starts, self.steps, self.noise_seeds, strict=True)
        return [f"{name}@{start}/{step}#{seed}" for name, start, step, seed in cuts]

    def split(self, parts: int) -> list["WorldBatch"]:
        """The same samples in `parts` batches as equal as can be (fewer when there are fewer samples); faults in the first."""
        size, count = -(-len(self.ids) // parts), len(self.ids)
        return [self._piece(slice(start, min(start + size, count))) for start in range(0, count, size)]

    def to(self, device: torch.device | str) -> "WorldBatch":
        """The same batch with its tensors on a device (copied in the background from pinned memory)."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "WorldBatch":
        """The same batch in page-locked memory; the data loader calls this."""
        return self._with(torch.Tensor.pin_memory)

    def _piece(self, piece: slice) -> "WorldBatch":
        return replace(
            self._with(lambda tensor: tensor[piece]),
            ids=self.ids[piece],
            starts=self.starts[piece],
            steps=self.steps[piece],
            captions=self.captions[piece],
            noise_seeds=self.noise_seeds[piece],
            faults=[] if piece.start else self.faults,
        )

    def _with(self, changed: Callable[[Tensor], Tensor]) -> "WorldBatch":
        conditions = None if self.conditions is None else self.conditions.each(changed)
        tensors = {name: changed(getattr(self, name)) for name in TENSORS}
        return replace(self, **tensors, conditions=conditions)  # type: ignore[arg-type]


def stack_worlds(samples: Sequence[WorldSample]) -> WorldBatch:
    """A batch of samples of one shape."""
    return WorldBatch(
        torch.stack([sample.frames for sample in samples]),
        torch.stack([sample.depth for sample in samples]),
        torch.stack([sample.mask for sample in samples]),
        torch.stack([sample.points for sample in samples]),
        torch.stack([sample.extrinsics for sample in samples]),
        torch.stack([sample.intrinsics for sample in samples]),
        torch.tensor([sample.scale for sample in samples], dtype=torch.float32),
        torch.tensor([sample.usable for sample in samples]),
        [sample.id for sample in samples],
        [sample.start for sample in samples],
        [sample.step for sample in samples],
        [sample.caption for sample in samples],
        [sample.noise_seed for sample in samples],
        [fault for sample in samples for fault in sample.faults],
        stack_conditions([sample.conditions for sample in samples]),
    )
