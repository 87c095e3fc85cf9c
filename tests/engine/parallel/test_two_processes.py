"""Two processes share the work: the result is that of one process at the same global batch, whatever the strategy."""

import importlib.util
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from accelerate.state import AcceleratorState
from torch import multiprocessing

from tests.engine.parallel.net import CPU, Net, difference, gradients, loss_of, pieces, recipe, train
from tinyworld.core import dist
from tinyworld.core.errors import ConfigError
from tinyworld.engine.parallel import Snapshot, Strategy, build
from tinyworld.engine.parallel.flat import mean_gradients

HALF = ["fsdp2", "zero2", "zero3"]
KINDS = ["ddp", "fsdp2", "zero2", "zero2 offload", "zero3", "zero3 offload"]
DEEPSPEED = importlib.util.find_spec("deepspeed") is not None


def built(kind: str, seed: int, **training: Any) -> Strategy:
    """Another random start on each rank: rank 0's must count."""
    AcceleratorState._reset_state(reset_partial_state=True)  # else DeepSpeed stays as the kind before had it
    return build(recipe(kind.split()[0], "offload" in kind, **training), Net(seed + dist.rank()), CPU)


def shared(snapshot: Snapshot | None) -> Snapshot:
    assert (snapshot is not None) == dist.is_main()
    found = dist.from_main(snapshot)
    assert found is not None
    return found


def rounds(kind: str, rank: int) -> dict[str, Any]:
    """Three updates, a snapshot, three more; the same again from the snapshot. Between them steps that are dropped."""
    strategy = built(kind, 0)
    strategy.load(shared(strategy.snapshot()))  # nothing was updated so far
    result: dict[str, Any] = {"retries": strategy.retries, "numbers": train(strategy, range(2), rank, 2)}
    gradients(strategy, 7, rank, 2, spoil=rank == 1)
    result["spoiled"] = strategy.reduce()
    strategy.drop()
    gradients(strategy, 8, rank, 2)
    strategy.drop()
    strategy.backward(loss_of(strategy.model, pieces(9, rank, 2)[0], rare=True), True)
    strategy.drop()
    strategy.model(pieces(9, rank, 2)[0])
    strategy.drop()
    result["held"] = sum(p.numel() for p in strategy.model.parameters())
    result["numbers"] += train(strategy, range(2, 3), rank, 2)
    result["middle"] = shared(strategy.snapshot())
    result["numbers"] += train(strategy, range(3, 6), rank, 2)
    result["end"] = shared(strategy.snapshot())
    with strategy.whole() as module:
        if rank:  # on its own, without the other rank
            result["output"] = module(pieces(0)[0])[0]
        assert not module.training
    strategy.close()
    again = built(kind, 5)
    again.load(result["middle"])
    train(again, range(3, 6), rank, 2)
    result["again"] = shared(again.snapshot())
    again.close()
    return result


def crossed(kind: str, start: Snapshot, rank: int) -> Snapshot:
    strategy = built(kind, 5)
    strategy.load(start)
    train(strategy, range(3, 6), rank, 2)
    end = shared(strategy.snapshot())
    strategy.close()
    return end


def halves(kind: str, rank: int) -> list[tuple[float, float]]:
    strategy = built(kind, 0, mixed_precision="bf16")
    numbers = train(strategy, range(2), rank, 2)
    strategy.close()
    return numbers


def other_stage() -> str:
    """What is said of an offload that is not in force, for a process has DeepSpeed as its first Accelerator set it up."""
    built("zero3", 0).close()
    try:
        build(recipe("zero3", offload=True), Net(), CPU)
    except ConfigError as error:
        return str(error)
    return "nothing"


def partly_present(rank: int) -> list[list[float] | None]:
    """Gradients that some ranks have, and that none has."""
    parameters = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3)]
    parameters[0].grad = torch.full((2, 2), float(rank))
    if rank:
        parameters[1].grad = torch.full((2, 2), 3.0)
    mean_gradients(parameters)
    return [None if p.grad is None else p.grad.flatten().tolist() for p in parameters]


def work(rank: int, folder: Path, kinds: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1")  # Accelerate wants them; the ranks meet in a file
    warnings.filterwarnings("error", message="FSDP2-wrapped")
    results: dict[str, Any] = {}
    try:
        build(recipe(), Net(), CPU)
    except ConfigError as error:
        results["apart"] = str(error)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=240)
    )
    results["present"] = partly_present(rank)
    for kind in kinds:
        results[kind] = rounds(kind, rank)
    for kind in kinds:
        results[kind]["crossed"] = crossed(kind, results["ddp"]["middle"], rank)
    for kind in [kind for kind in HALF if kind in kinds]:
        results[kind]["half"] = halves(kind, rank)
    results["other"] = other_stage() if DEEPSPEED else None
    torch.save(results, folder / f"results-{rank}.pt")
    dist.gather("end")
    torch.distributed.destroy_process_group()
    os._exit(0)  # caches inside torch keep fully_shard's group and its threads alive, which now and then abort the exit


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found, all in one start of two processes."""
    folder = tmp_path_factory.mktemp("two")
    kinds = [kind for kind in KINDS if DEEPSPEED or not kind.startswith("zero")]
    multiprocessing.spawn(work, args=(folder, kinds), nprocs=2)
    return [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone() -> tuple[list[tuple[float, float]], Snapshot]:
    strategy = build(recipe(), Net(), CPU)
    numbers = train(strategy, range(6))
    snapshot = strategy.snapshot()
    assert snapshot is not None
    return numbers, snapshot


needs_results = pytest.mark.parametrize("kind", KINDS)


def of(results: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    if kind not in results[0]:
        pytest.skip("DeepSpeed is not installed (the extra `deepspeed`)")
    return [result[kind] for result in results]


def idle(kind: str) -> str:
    """DeepSpeed lets weight decay act on a parameter without gradient too, and counts it as updated."""
    return "rare" if kind.startswith("zero") else " "


@needs_results
def test_equals_one_process(results: list[dict[str, Any]], alone: Any, kind: str) -> None:
    one, two = of(results, kind)
    numbers, end = alone
    assert one["retries"] == (kind == "ddp")
    assert [norm for _, norm in one["numbers"]] == [norm for _, norm in two["numbers"]]
    for (loss, norm), first, second in zip(numbers, one["numbers"], two["numbers"], strict=True):
        assert (first[0] + second[0]) / 2 == pytest.approx(loss, abs=1e-5)
        assert first[1] == pytest.approx(norm, abs=1e-5)
    assert difference(end, one["end"], idle(kind)) < 1e-5
    assert not one["spoiled"] < float("inf") and not two["spoiled"] < float("inf")


@needs_results
def test_a_dropped_gradient_is_not_found_again(results: list[dict[str, Any]], kind: str) -> None:
    """Of the part that nothing but a dropped step has used."""
    moments = of(results, kind)[0]["end"].moments["exp_avg"]
    assert "first.weight" in moments
    assert not moments.get("rare.weight", torch.zeros(1)).any()


@pytest.mark.parametrize("kind", ["zero3", "zero3 offload"])
def test_zero3_holds_no_whole_weights_between_steps(results: list[dict[str, Any]], kind: str) -> None:
    assert [result["held"] for result in of(results, kind)] == [0, 0]


def test_deepspeed_that_is_not_as_asked_is_refused(results: list[dict[str, Any]]) -> None:
    for result in results:
        if result["other"] is None:
            pytest.skip("DeepSpeed is not installed (the extra `deepspeed`)")
        assert "runs stage 3 with cpu_offload False" in result["other"]


@needs_results
def test_goes_on_from_a_snapshot_bit_for_bit(results: list[dict[str, Any]], kind: str) -> None:
    one, _ = of(results, kind)
    assert difference(one["end"], one["again"]) == 0


@needs_results
def test_snapshots_cross_between_strategies_and_world_sizes(
    results: list[dict[str, Any]], alone: Any, kind: str
) -> None:
    one, _ = of(results, kind)
    assert difference(results[0]["ddp"]["end"], one["crossed"], idle(kind)) < 1e-6
    strategy = build(recipe(), Net(seed=5), CPU)
    strategy.load(one["middle"])
    train(strategy, range(3, 6))
    found = strategy.snapshot()
    assert found is not None and difference(found, one["end"], idle(kind)) < 1e-6


@needs_results
def test_whole_serves_one_rank_alone(results: list[dict[str, Any]], kind: str) -> None:
    one, two = of(results, kind)
    wanted = Net()
    wanted.load_state_dict(one["end"].average)
    assert torch.equal(two["output"], wanted(pieces(0)[0])[0])


@pytest.mark.parametrize("kind", HALF)
def test_bf16_is_close_and_differs(results: list[dict[str, Any]], alone: Any, kind: str) -> None:
    one, two = of(results, kind)
    for wanted, first, second in zip(alone[0], one["half"], two["half"], strict=False):
        loss = (first[0] + second[0]) / 2
        assert loss == pytest.approx(wanted[0], rel=0.03) and loss != pytest.approx(wanted[0], rel=1e-6)


def test_a_gradient_on_some_ranks_counts_as_zero_on_the_others(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["present"] == [[0.5] * 4, [1.5] * 4, None]


def test_processes_that_are_not_joined_are_refused(results: list[dict[str, Any]]) -> None:
    assert all("each would train alone" in result["apart"] for result in results)
