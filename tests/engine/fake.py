"""A task of a few lines: the engine must not need more of a task than this."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tinyworld.config.schema import Recipe
from tinyworld.core.errors import DataError
from tinyworld.engine.task import Evaluated, Losses, Roles


@dataclass
class FakeBatch:
    inputs: Tensor
    ids: list[str]
    faults: list[tuple[str, str]] = field(default_factory=list)

    @property
    def draws(self) -> list[str]:
        return self.ids

    def split(self, parts: int) -> list["FakeBatch"]:
        size = -(-len(self.ids) // parts)
        return [FakeBatch(self.inputs[i : i + size], self.ids[i : i + size]) for i in range(0, len(self.ids), size)]


class FakeHelper:
    """An auxiliary with something to train and something to remember: the mean of what the steps showed it."""

    def __init__(self) -> None:
        self.weight, self.memory = torch.zeros(8), torch.zeros(0, 8)
        self.shown: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(5)

    def to(self, device: torch.device) -> None:
        self.weight = self.weight.to(device)

    def show(self, inputs: Tensor) -> None:
        self.shown.append(inputs.mean(0))

    def learn(self) -> dict[str, float]:
        if not self.shown:
            return {}
        fresh = torch.stack(self.shown)
        self.shown = []
        self.memory = torch.cat([self.memory, fresh])[-6:]
        pick = torch.randint(len(self.memory), (1,), generator=self.generator)
        self.weight = torch.lerp(self.weight, self.memory[pick[0]], 0.1)
        return {"helper/memory": float(len(self.memory))}

    def forget(self) -> None:
        self.shown = []

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]

    def rank_state(self) -> dict[str, Any]:
        return {"memory": self.memory, "generator": self.generator.get_state()}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        self.memory = state["memory"]
        self.generator.set_state(state["generator"])

    def take_share(self, states: Iterable[dict[str, Any]], rank: int, world: int) -> None:
        self.memory = torch.cat([state["memory"] for state in states])[rank::world]

    def most_bytes(self) -> int:
        return 4096


class FakeTask:
    """Fits y = sum(x) with noise drawn from the global generator, so that its state matters."""

    name = "fake"

    def __init__(self, poison: frozenset[int] = frozenset(), batch: int = 4, accumulation: int = 1) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(8, 1)
        self.poison, self.batch, self.accumulation = poison, batch, accumulation
        self.helper = FakeHelper()
        self.marks: list[int] = []
        self.order: list[str] = []
        self.step_hook = lambda step: None

    def roles(self) -> Roles:
        return Roles(self.model, {"helper": self.helper})

    def describe(self) -> dict[str, Any]:
        return {"clips": 1}

    def milestones(self) -> Sequence[int]:
        return self.marks

    def fingerprint(self, done: int) -> dict[str, Any]:
        return {"batch": self.batch * self.accumulation}

    def batches(
        self, start_step: int, stop_step: int, rank: int, world: int, left_out: int = 0
    ) -> Iterator[list[FakeBatch]]:
        for step in range(start_step + left_out, stop_step + left_out):
            self.step_hook(step)
            generator = torch.Generator().manual_seed(step)
            inputs = torch.randn(self.batch * self.accumulation, 8, generator=generator)
            if step in self.poison:
                inputs[0] = torch.nan
            ids = [f"{step}-{i}" for i in range(len(inputs))]
            stride = self.accumulation * world
            yield [FakeBatch(inputs[i::stride], ids[i::stride]) for i in range(rank, stride, world)]

    def step(self, model: nn.Module, batch: FakeBatch, device: torch.device, done: int) -> Losses:
        self.order += batch.ids
        self.helper.show(batch.inputs)
        wanted = batch.inputs.sum(1, keepdim=True)
        return Losses({"fit": (model(batch.inputs + 0.01 * torch.randn_like(batch.inputs)) - wanted).square().mean()})

    def dearest(self) -> tuple[FakeBatch, int] | None:
        return None

    def memory_advice(self) -> str:
        return ""

    def remarks(self, step: int, means: Mapping[str, float]) -> list[str]:
        return []

    def check_faults(self, faults: Mapping[str, str]) -> None:
        if len(faults) > 2:
            raise DataError("too many")

    def held_out(self) -> Sequence[int]:
        return range(3)

    def evaluate(self, model: nn.Module, samples: Sequence[int], device: torch.device) -> list[Evaluated]:
        assert samples, "a rank without a share is not asked"
        torch.randn(7)  # must not reach the training's random state
        inputs = torch.eye(8)
        error = float((model(inputs) - 1).square().mean())
        return [
            Evaluated(f"clip{i}", {"psnr": -error, "lpips": None, "by": [error, error]}, {"psnr": -1.0})
            for i in samples
        ]

    def preview(self, model: nn.Module, sample: int, device: torch.device, folder: Path) -> None:
        (folder / f"clip{sample}.txt").write_text("seen")

    def write_weights(self, weights: Mapping[str, Tensor], file: Path) -> None:
        save_file({name: value.contiguous() for name, value in weights.items()}, file)

    def read_weights(self, file: Path) -> dict[str, Tensor]:
        return load_file(file)

    def export(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        self.write_weights(weights, folder / "model.safetensors")


def fake_recipe(folder: Path, **sections: dict[str, Any]) -> Recipe:
    """A recipe of 20 steps that writes below `folder`."""
    values: dict[str, dict[str, Any]] = {
        "run": {"output_dir": str(folder), "run_name": "run", "tracker_name": "none", "device": "cpu"},
        "optimizer": {"learning_rate": 0.05, "lr_scheduler": "cosine", "lr_warmup_steps": 3},
        "training": {"max_train_steps": 20, "mixed_precision": "no", "log_steps": 5, "ema_decay": 0.9},
        "checkpoint": {"checkpointing_steps": 5},
        "validation": {"validation_steps": 10, "early_stopping_patience": 0, "metric_for_best_model": "psnr"},
    }
    for name, changes in sections.items():
        values[name] = {**values.get(name, {}), **changes}
    return Recipe.model_validate({"task": "fake", "name": "fake", "data": {}, "model": {}, "loss": {}, **values})
