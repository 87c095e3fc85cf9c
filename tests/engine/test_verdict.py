"""What makes a step be skipped, the digest of samples, rewinds, capsules and their replay."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.engine.fake import FakeTask, fake_recipe
from tests.engine.run_files import events
from tinyworld.core.errors import CheckpointError, MissingFileError, TrainingError
from tinyworld.engine import verdict
from tinyworld.engine.loop import run_training
from tinyworld.engine.replay import Replay, first_broken, same

CPU = torch.device("cpu")


@given(st.lists(st.text(), max_size=20), st.randoms())
def test_a_digest_is_of_a_set_and_can_be_added_up(names: list[str], random: Any) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    half = len(names) // 2
    assert verdict.digest_of(names) == verdict.digest_of(shuffled)
    assert verdict.digest_of(names) == verdict.digest_of(names[:half]) + verdict.digest_of(names[half:])


def test_digests_chain_in_their_order() -> None:
    one, two = verdict.digest_of(["a"]), verdict.digest_of(["b"])
    assert one != two
    assert verdict.chained(verdict.chained("", one), two) != verdict.chained(verdict.chained("", two), one)


def test_a_vote_of_one_process_is_the_verdict() -> None:
    large = verdict.digest_of(str(i) for i in range(10_000))
    agreed = verdict.agree(verdict.Vote(0.5, 3, large, 0, True, False, True))
    assert agreed == verdict.Verdict(0.5, 3, large, False, True, False, True)


RECENT = [1.0 + 0.01 * (i % 10) for i in range(verdict.LEAST_HISTORY)]


@pytest.mark.parametrize(
    "loss, recent, factor, skipped",
    [
        (math.nan, [], 0, True),
        (math.inf, RECENT, 30, True),
        (1.2, RECENT, 30, False),
        (9.0, RECENT, 30, True),
        (9.0, RECENT, 0, False),
        (9.0, RECENT[1:], 30, False),
        (-50.0, RECENT, 30, False),
        (9.0, [-x for x in RECENT], 30, True),
        (0.001, [0.0] * verdict.HISTORY, 30, True),
    ],
)
def test_spikes_are_measured_against_the_recent_spread(
    loss: float, recent: list[float], factor: float, skipped: bool
) -> None:
    assert (verdict.fault_in(loss, recent, factor) is not None) == skipped


def test_a_spike_is_skipped_and_named(tmp_path: Path) -> None:
    class Spiky(FakeTask):
        def batches(self, *args):  # type: ignore[no-untyped-def]
            for step, batches in enumerate(super().batches(*args)):
                if step == 50:
                    batches[0].inputs *= 1e4
                yield batches

    recipe = fake_recipe(tmp_path, training={"max_train_steps": 60}, optimizer={"learning_rate": 1e-4})
    run = run_training(Spiky(), recipe).folder
    (skip,) = events(run, "skip")
    assert skip["step"] == 51 and "is a spike" in skip["reason"]


def test_after_skips_in_a_row_the_run_goes_back_and_leaves_out_the_window(tmp_path: Path) -> None:
    task = FakeTask(poison=frozenset(range(11, 20)))
    recipe = fake_recipe(tmp_path, training={"rewind_after": 3})
    run = run_training(task, recipe).folder
    rewinds = events(run, "rewind")
    went_back = [(line["from_step"], line["step"], line["left_out"]) for line in rewinds]
    assert went_back == [(14, 10, 4), (13, 10, 7), (13, 10, 10)]
    assert [line["step"] for line in events(run, "stop")] == [20]
    last = torch.load(run / "checkpoint-20" / "state" / "trainer.pt", weights_only=True)["state"]
    assert (last["left_out"], last["rewinds"], last["skipped_total"]) == (10, 3, 9)
    drawn = [int(name.split("-")[0]) for name in task.order[:: task.batch]]
    assert drawn[-10:] == list(range(20, 30)), "the steps after the window train on the samples after it"


def test_a_rewound_run_that_is_killed_stays_rewound(tmp_path: Path) -> None:
    def crash(step: int) -> None:
        if step == 17:
            raise RuntimeError("power cut")

    poison = frozenset({11, 12, 13})
    sections = {"training": {"rewind_after": 3}}
    straight = run_training(FakeTask(poison=poison), fake_recipe(tmp_path / "a", **sections)).folder
    broken = FakeTask(poison=poison)
    broken.step_hook = crash
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(broken, fake_recipe(tmp_path / "b", **sections))
    again = {"checkpoint": {"resume_from_checkpoint": "latest"}}
    resumed = run_training(FakeTask(poison=poison), fake_recipe(tmp_path / "b", **sections, **again)).folder
    assert len(events(resumed, "rewind")) == 1
    one, other = (load_file(run / "final_model.safetensors") for run in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_rewinds_come_to_an_end(tmp_path: Path) -> None:
    training = {"rewind_after": 2, "max_rewinds": 2, "max_skipped_steps": 4, "max_train_steps": 40}
    with pytest.raises(TrainingError, match="5 steps in a row"):
        run_training(FakeTask(poison=frozenset(range(11, 99))), fake_recipe(tmp_path, training=training))
    assert len(events(tmp_path / "run", "rewind")) == 2


def test_a_capsule_is_replayed_on_one_process(tmp_path: Path) -> None:
    recipe = fake_recipe(tmp_path, training={"max_train_steps": 8})
    run = run_training(FakeTask(poison=frozenset({6})), recipe).folder
    (folder,) = (run / "capsules").iterdir()
    replay = Replay(FakeTask(poison=frozenset({6})), recipe, folder, CPU)
    (result,) = replay.ranks()
    assert result.reproduced and math.isnan(result.means["losses/total"])
    assert [(sample.id, math.isnan(sample.loss)) for sample in result.samples] == [(f"6-{i}", i == 0) for i in range(4)]
    assert result.samples[0].broken_at == "the input of the model" and result.samples[1].broken_at is None
    (healed,) = Replay(FakeTask(), recipe, folder, CPU).ranks()
    assert not healed.reproduced


def test_only_a_complete_capsule_of_the_task_is_replayed(tmp_path: Path) -> None:
    recipe = fake_recipe(tmp_path, training={"max_train_steps": 8})
    run = run_training(FakeTask(poison=frozenset({6})), recipe).folder
    (folder,) = (run / "capsules").iterdir()
    with pytest.raises(MissingFileError, match="not a capsule"):
        Replay(FakeTask(), recipe, run, CPU)
    other = FakeTask()
    other.name = "other"
    with pytest.raises(CheckpointError, match="of the task fake"):
        Replay(other, recipe, folder, CPU)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        Replay(FakeTask(), recipe, folder, CPU)


def test_a_run_keeps_few_capsules(tmp_path: Path) -> None:
    run_training(FakeTask(poison=frozenset({2, 4, 6, 8, 11})), fake_recipe(tmp_path))
    run = tmp_path / "run"
    assert sorted(path.name for path in (run / "capsules").iterdir()) == ["step-3", "step-5", "step-7"]
    assert [line["capsule"] for line in events(run, "skip")] == ["step-3", "step-5", "step-7", None, None]


def test_numbers_that_are_not_finite_are_the_same() -> None:
    assert same(math.nan, None) and same(1.0, 1.0001) and not same(1.0, 1.1) and not same(1.0, None)


def test_the_first_broken_part_is_named() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    with torch.no_grad():
        model[0].bias.fill_(torch.inf)
        with first_broken(model) as found:
            model(torch.zeros(1, 2))
    assert found[0] == "the output of 0 (Linear)" and json.dumps(found)
