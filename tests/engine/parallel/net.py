"""A small module with everything that is awkward to share out, and the steps of a run with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.fake import fake_recipe
from tinyworld.config.schema import Recipe
from tinyworld.config.sections import ParallelConfig
from tinyworld.engine.parallel import Snapshot, Strategy

CPU = torch.device("cpu")
BATCH, PIECES = 8, 2
RATE, CLIP = 0.01, 2.0


class Net(nn.Module):
    """Odd sizes, a frozen part, one that is rarely used, buffers, and a weight that is used without calling its module."""

    sharded_blocks = ("blocks.0", "blocks.1")

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(5, 7)
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.blocks = nn.ModuleList([nn.Linear(7, 7), nn.Linear(7, 7)])
        self.last = nn.Linear(7, 1)
        self.rare = nn.Linear(5, 1)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("hidden", torch.ones(3), persistent=False)

    def forward(self, x: Tensor, rare: bool = False) -> tuple[Tensor, dict[str, Tensor | None]]:
        y = self.frozen(self.first(x))
        for block in self.blocks:
            y = torch.tanh(block(y))
        y = F.linear(y, self.last.weight, self.last.bias) * self.scale + self.hidden.mean()
        return (y + self.rare(x) if rare else y)[:, :1], {"none": None}


def recipe(strategy: str = "ddp", offload: bool = False, **training: Any) -> Recipe:
    parallel = ParallelConfig(strategy=strategy, cpu_offload=offload)
    made = fake_recipe(Path("unused"), training=training, optimizer={"weight_decay": 0.01})
    return made.model_copy(update={"parallel": parallel})


def pieces(step: int, rank: int = 0, world: int = 1) -> list[Tensor]:
    """This rank's micro-batches of a global batch that does not depend on `world`."""
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(BATCH, 5, generator=generator)[rank::world] for _ in range(PIECES)]


def loss_of(model: nn.Module, inputs: Tensor, rare: bool = False) -> Tensor:
    outputs, rest = model(inputs, rare)
    assert outputs.dtype == torch.float32 and rest == {"none": None}
    return (outputs - inputs.sum(1, keepdim=True)).square().mean() / PIECES


def gradients(strategy: Strategy, step: int, rank: int = 0, world: int = 1, spoil: bool = False) -> float:
    """Forward and backward of a step; this rank's loss."""
    total = 0.0
    for index, inputs in enumerate(pieces(step, rank, world)):
        loss = loss_of(strategy.model, inputs * torch.nan if spoil else inputs)
        strategy.backward(loss, index == PIECES - 1)
        total += loss.item()
    return total


def train(strategy: Strategy, steps: Sequence[int], rank: int = 0, world: int = 1) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step."""
    numbers = []
    for step in steps:
        loss = gradients(strategy, step, rank, world)
        norm = strategy.reduce()
        strategy.update(RATE, norm, CLIP)
        numbers.append((loss, norm))
    return numbers


def difference(one: Snapshot, two: Snapshot, without: str = " ") -> float:
    """The largest difference between any two numbers of two snapshots; names that contain `without` are left out."""
    assert (one.updates, one.averaged_updates) == (two.updates, two.averaged_updates)
    assert one.average is not None and two.average is not None
    parts = [(one.weights, two.weights), (one.average, two.average)]
    parts += [(one.moments[key], two.moments[key]) for key in ("exp_avg", "exp_avg_sq")] if one.updates else []
    largest = 0.0
    for a, b in parts:
        names = [name for name in a if without not in name]
        assert names == [name for name in b if without not in name]
        largest = max([largest, *(float((a[name].double() - b[name].double()).abs().max()) for name in names)])
    return largest
