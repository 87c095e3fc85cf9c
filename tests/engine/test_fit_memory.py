"""Memory that the strategies share out, and the rehearsal of the dearest micro-batch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinyworld.core.errors import TrainingError
from tinyworld.engine.fit_memory import measure
from tinyworld.engine.memory import Sharing, count, standing
from tinyworld.losses.seraena import Seraena, SeraenaSettings

CPU = torch.device("cpu")


def small_seraena() -> Seraena:
    settings = SeraenaSettings(group=2, latent_channels=4, buffer_bytes=2**16, seed=1, widths=(4,) * 6)
    return Seraena(settings, rank=0, world=1)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32, affine=False), nn.Linear(32, 4, bias=False))


def test_strategies_share_what_they_say() -> None:
    model, size = network(), 16 * 32 + 32 * 4

    def each(strategy: str, processes: int, offload: bool = False) -> float:
        return standing(model, half=False, average=True, sharing=Sharing(strategy, processes, offload)) / size

    assert each("ddp", 8) == 4 + 4 + 4 + 8
    assert each("zero2", 8) == 4 + 4 + 4 + (4 + 8 + 4) / 8
    assert each("zero2", 8, offload=True) == 4 + 4 + 4 + 4 / 8
    assert each("fsdp2", 8) == 4 + 4 + (4 + 4 + 4 + 8) / 8
    assert each("fsdp2", 8, offload=True) == 4 + 4
    model[0].requires_grad_(False)
    frozen = 16 * 32
    assert standing(model, half=True, average=False) == size * (4 + 2) + (size - frozen) * (4 + 8)


def test_a_pass_within_the_pass_gives_its_memory_back() -> None:
    """What Seraena's correction holds for its own gradient does not wait for the model's backward pass."""
    with torch.device("meta"):
        model = nn.Linear(10, 10, bias=False)

    def forward() -> Tensor:
        made = model(torch.empty(5, 10, device="meta"))
        with torch.enable_grad():
            inner = made.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(inner.exp().exp().exp().sum(), inner)
        return (made * gradient).sum()

    counted = count([model], forward)
    assert counted.held == 4 * (50 + 50)  # the input and the gradient; `made` itself is not needed
    assert counted.peak > counted.held + 4 * 100


def rehearsal(model: nn.Module, work: Any = None) -> Any:
    def run() -> None:
        torch.rand(3)
        model(torch.randn(8, 16)).square().mean().backward()
        if work is not None:
            work()

    return run


def test_a_rehearsal_leaves_no_trace() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = measure(rehearsal(model), CPU, model, {}, lambda: "")
    assert not found.on_gpu and found.size >= 0 and "indication" in str(found)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_rehearsal_leaves_seraena_as_it_was() -> None:
    model, twins = network(), [small_seraena(), small_seraena()]
    clips = torch.rand(2, 2, 3, 16, 16), torch.rand(2, 2, 3, 16, 16), torch.randn(2, 1, 4, 2, 2)
    for seraena in twins:
        seraena.correct(*clips)
        seraena.learn()
    measure(rehearsal(model, lambda: twins[0].correct(*clips)), CPU, model, {"seraena": twins[0]}, lambda: "")
    assert twins[0].learned == 1
    for seraena in twins:
        seraena.correct(*clips)
        seraena.learn()
    one, two = (seraena.discriminator.state_dict() for seraena in twins)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert twins[0].buffer.bytes == twins[1].buffer.bytes


def test_a_shortage_says_what_would_fit() -> None:
    model = network()

    def short() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="before step 1.*--train_batch_size 1"):
        measure(rehearsal(model, short), CPU, model, {}, lambda: " What fits: --train_batch_size 1")
    assert all(parameter.grad is None for parameter in model.parameters())
