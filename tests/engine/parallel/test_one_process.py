"""ddp in one process: what plain PyTorch computes, bit for bit."""

import dataclasses

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from tests.engine.parallel.net import CLIP, CPU, RATE, Net, difference, gradients, loss_of, pieces, recipe, train
from tinyworld.core.errors import CheckpointError
from tinyworld.engine import schedule
from tinyworld.engine.averaging import averaged
from tinyworld.engine.parallel import Snapshot, Strategy, build
from tinyworld.engine.parallel.precision import Forward


def plain(steps: range, precision: str) -> tuple[Net, nn.Module, list[float]]:
    """The same training with Accelerate, torch's clipping and AdamW as they come."""
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    net = Net()
    average = averaged(net, 0.9)
    parameters = [p for p in net.parameters() if p.requires_grad]
    model, optimizer = accelerator.prepare(net, schedule.build_optimizer(parameters, recipe().optimizer))
    norms = []
    for step in steps:
        schedule.set_learning_rate(optimizer, RATE)
        for inputs in pieces(step):
            accelerator.backward(loss_of(model, inputs))
        norms.append(float(accelerator.clip_grad_norm_(parameters, CLIP)))
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(net)
    accelerator.free_memory()
    AcceleratorState._reset_state(reset_partial_state=True)
    return net, average.module, norms


def taken(strategy: Strategy) -> Snapshot:
    snapshot = strategy.snapshot()
    assert snapshot is not None
    return snapshot


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_equals_plain_training_bit_for_bit(precision: str) -> None:
    net, average, norms = plain(range(4), precision)
    strategy = build(recipe(mixed_precision=precision), Net(), CPU)
    assert [norm for _, norm in train(strategy, range(4))] == norms
    assert max(norms) > CLIP > min(norms)  # some are clipped, some are not
    snapshot = taken(strategy)
    assert snapshot.average is not None
    for found, wanted in ((snapshot.weights, net), (snapshot.average, average)):
        assert found.keys() == wanted.state_dict().keys()
        assert all(torch.equal(found[name], value) for name, value in wanted.state_dict().items())


def test_goes_on_bit_for_bit_also_with_parameters_that_join_late() -> None:
    strategy = build(recipe(), Net(), CPU)
    start = taken(strategy)
    assert start.moments == {} and start.updates == 0
    strategy.load(start)
    train(strategy, range(2))
    strategy.backward(loss_of(strategy.model, pieces(5)[0], rare=True), True)
    strategy.update(RATE, strategy.reduce(), CLIP)
    middle = taken(strategy)
    assert {name: int(step) for name, step in middle.moments["step"].items()} == {"rare.weight": 1, "rare.bias": 1}
    kept = dataclasses.replace(middle, weights={name: value.clone() for name, value in middle.weights.items()})

    def finish(strategy: Strategy) -> Snapshot:
        train(strategy, range(6, 8))
        strategy.backward(loss_of(strategy.model, pieces(8)[0], rare=True), True)
        strategy.update(RATE, strategy.reduce(), CLIP)
        return taken(strategy)

    wanted = finish(strategy)
    assert all(torch.equal(middle.weights[name], value) for name, value in kept.weights.items())  # a copy, not a view
    again = build(recipe(), Net(seed=3), CPU)
    again.load(middle)
    found = finish(again)
    assert difference(wanted, found) == 0
    assert wanted.moments["step"] == found.moments["step"]


def test_dropped_gradients_leave_no_trace() -> None:
    strategy, other = build(recipe(), Net(), CPU), build(recipe(), Net(), CPU)
    train(strategy, range(1))
    gradients(strategy, 7, spoil=True)
    assert not strategy.reduce() < float("inf")
    strategy.drop()
    strategy.model(pieces(9)[0])
    strategy.drop()
    train(strategy, range(1, 3))
    train(other, range(3))
    assert difference(taken(strategy), taken(other)) == 0


def test_whole_is_the_average_and_gives_modes_back() -> None:
    strategy = build(recipe(), Net(), CPU)
    train(strategy, range(3))
    snapshot = taken(strategy)
    assert snapshot.average is not None
    with strategy.whole() as module:
        assert torch.equal(module.get_parameter("first.weight"), snapshot.average["first.weight"])
    net = Net()
    net.blocks.eval()
    unaveraged = build(recipe(ema_decay=0.0), net, CPU)
    train(unaveraged, range(1))
    with unaveraged.whole() as module:
        assert not any(part.training for part in module.modules())
        assert torch.equal(module.get_parameter("first.weight"), taken(unaveraged).weights["first.weight"])
    assert net.training and not net.blocks.training and taken(unaveraged).average is None
    with pytest.raises(CheckpointError, match="--ema_decay 0"):
        strategy.load(taken(unaveraged))


def test_refuses_snapshots_of_another_model() -> None:
    strategy = build(recipe(), Net(), CPU)
    train(strategy, range(1))
    snapshot = taken(strategy)
    wider = {**snapshot.weights, "first.weight": torch.zeros(8, 5)}
    with pytest.raises(CheckpointError, match=r"first\.weight"):
        strategy.load(dataclasses.replace(snapshot, weights=wider))
    frozen = Net()
    frozen.first.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"not trained here: first\.bias"):
        build(recipe(), frozen, CPU).load(snapshot)


def test_outputs_are_fp32_however_they_are_nested() -> None:
    class Nested(nn.Module):
        def forward(self, x: Tensor) -> object:
            half = x @ x
            assert half.dtype == torch.bfloat16
            return half, {"list": [half, None], "text": "kept", "whole": half.argmax()}

    first, rest = Forward(Nested(), recipe(mixed_precision="bf16"), CPU)(torch.eye(3))
    assert first.dtype == rest["list"][0].dtype == torch.float32
    assert rest["list"][1] is None and rest["text"] == "kept" and rest["whole"].dtype == torch.int64
