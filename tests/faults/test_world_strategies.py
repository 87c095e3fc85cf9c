"""Two processes: the video world's stages learn what one process learns; each strategy meets one of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.processes import events, finished
from tests.faults.real import make_task
from tests.tasks.fantasy.conftest import Small, make_small
from tinyworld.config.schema import FantasyRecipe

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("small_world"))


def recipe(small: Small, name: str, output: Path, **flags: Any) -> FantasyRecipe:
    both = {"global_batch_size": 2, "train_batch_size": 1, "lr_warmup_steps": 0, "lr_scheduler": "constant"}
    return small.recipe(name, output, "run", **both, **flags)


def second(small: Small, stage1: Path, output: Path, **flags: Any) -> FantasyRecipe:
    first = str(stage1 / "latest.safetensors")
    return recipe(small, "fantasy_demo_stage2", output, stage1_checkpoint=first, **flags)


@pytest.fixture(scope="module")
def stage1(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 1 on one process."""
    one = recipe(small, "fantasy_demo_stage1", tmp_path_factory.mktemp("alone"))
    return finished(make_task(one), one, world=1)


@pytest.fixture(scope="module")
def stage2(small: Small, stage1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = second(small, stage1, tmp_path_factory.mktemp("alone"))
    return finished(make_task(one), one, world=1)


def assert_as_one(run: Path, alone: Path) -> None:
    totals = [[line["losses"]["total"] for line in events(folder, "step")] for folder in (run, alone)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-3)
    assert [line["draws"] for line in events(run, "step")] == [line["draws"] for line in events(alone, "step")]
    torch.testing.assert_close(
        load_file(run / "final_model.safetensors"), load_file(alone / "final_model.safetensors"), rtol=1e-2, atol=2e-4
    )


@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_stage_one_is_the_same_on_two_processes(strategy: str, small: Small, stage1: Path, tmp_path: Path) -> None:
    two = recipe(small, "fantasy_demo_stage1", tmp_path, strategy=strategy)
    assert_as_one(finished(make_task(two), two), stage1)


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_stage_two_is_the_same_on_two_processes(
    strategy: str, small: Small, stage1: Path, stage2: Path, tmp_path: Path
) -> None:
    two = second(small, stage1, tmp_path, strategy=strategy)
    assert_as_one(finished(make_task(two), two), stage2)
