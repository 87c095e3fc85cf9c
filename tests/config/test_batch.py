"""Clips per optimizer step: what divides, what contradicts, and what a mistake is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.test_rules import recipe
from tinyworld.config.batch import accumulation, accumulations, clips_per_step, processes_here, processes_of
from tinyworld.config.rules import check_rules
from tinyworld.config.size import parse_size
from tinyworld.core.errors import ConfigError


@given(st.integers(1, 32), st.integers(1, 64), st.integers(1, 64))
def test_the_product_is_the_global_batch(per_process: int, processes: int, passes: int) -> None:
    total = per_process * processes * passes
    assert accumulation(per_process, processes, 1, total) == passes
    assert accumulation(per_process, processes, passes, total) == passes
    assert accumulation(per_process, processes, passes, None) == passes


@given(st.integers(1, 32), st.integers(1, 64), st.integers(1, 4000))
def test_every_way_out_that_is_named_is_one(per_process: int, processes: int, total: int) -> None:
    if total % (per_process * processes) == 0:
        return
    with pytest.raises(ConfigError) as refused:
        accumulation(per_process, processes, 1, total)
    ways = str(refused.value).partition(" Use ")[2].split("; or ")
    for way in ways:
        numbers = [int(word) for word in way.replace("=", " ").replace("(", " ").split() if word.isdigit()]
        assert numbers
        for number in numbers:
            changed = {"global": (per_process, processes, number), "train": (number, processes, total)}
            fits = changed.get(way.split("_")[0], (per_process, number, total))
            assert accumulation(fits[0], fits[1], 1, fits[2]) >= 1


def test_two_keys_that_contradict_are_both_named() -> None:
    with pytest.raises(ConfigError, match=r"gradient_accumulation_steps=8 contradict.*128 clips.*here 4 would follow"):
        accumulation(2, 8, 8, 64)


def test_stages_are_resolved_one_by_one() -> None:
    size = {"height": 64, "width": 64, "n_frames": 36}
    stages = [{"from_step": 10, **size}, {"from_step": 20, **size, "train_batch_size": 1}]
    made = recipe(data={"stages": stages}, training={"train_batch_size": 4}, parallel={"global_batch_size": 32})
    assert accumulations(made, 4) == [2, 2, 8] and clips_per_step(made, 4) == [32, 32, 32]
    with pytest.raises(ConfigError) as refused:
        accumulations(made, 3)
    assert len(refused.value.problems) == 2  # the first two stages share a key
    assert "data.stages[1].train_batch_size" in refused.value.problems[1]


def test_what_no_number_of_processes_mends_is_a_rule() -> None:
    training, parallel = {"train_batch_size": 4}, {"global_batch_size": 30}
    (problem,) = check_rules(recipe(training=training, parallel=parallel))
    assert "Use 28 or 32 (key: parallel.global_batch_size)" in problem
    passes = {"train_batch_size": 4, "gradient_accumulation_steps": 3}
    (problem,) = check_rules(recipe(training=passes, parallel={"global_batch_size": 32}))
    assert "no number of processes joins them" in problem
    assert check_rules(recipe(training=passes, parallel={"global_batch_size": 36})) == []


def test_the_number_of_processes_comes_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes_here() == 1
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert processes_here() == 8
    for text in ("0", "-1", "two", "", "99999", "²"):
        with pytest.raises(ConfigError, match="from 1 to"):
            processes_of(text, "--processes")


def test_sizes_of_memory() -> None:
    assert [parse_size(text) for text in ("40GiB", "80 GB", "1.5GiB", "8000MiB", "500MB")] == [
        40 * 2**30, 80 * 10**9, 3 * 2**29, 8000 * 2**20, 500 * 10**6,
    ]  # fmt: skip
    (problem,) = check_rules(recipe(run={"gpu_memory": "0GiB"}))
    assert "run.gpu_memory" in problem
