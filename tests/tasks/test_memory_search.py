"""The search that every family's proposals are found with, over a plan that is simple enough to know the answer."""

import pytest

from tinyworld.config.load import load_recipe
from tinyworld.config.schema import Recipe
from tinyworld.tasks.memory_search import NOTHING, SAME_CLIPS, Search, joined, smaller_pictures

KEY = "data.n_frames"


def search(limit: int, planned: list[int] | None = None) -> Search[Recipe]:
    """A plan that needs a byte per frame, and ten per clip of a batch beyond the first."""

    def total(recipe: Recipe, processes: int) -> int:
        size: int = recipe.data.n_frames + 10 * (recipe.training.train_batch_size - 1)  # type: ignore[attr-defined]
        if planned is not None:
            planned.append(size)
        return size

    recipe = load_recipe("taehv_demo", {"n_frames": 100, "train_batch_size": 4, "run_name": "x"})
    return Search(recipe, 2, limit, total)


@pytest.mark.parametrize("limit", [0, 34, 35, 50, 63, 64, 200])
def test_the_largest_that_fits_is_found_with_few_plans(limit: int) -> None:
    planned: list[int] = []
    ways = [({KEY: frames}, f"{frames} frames") for frames in range(4, 65, 4)]
    found = search(limit, planned).largest(ways, ({"training.train_batch_size": 4}, "by four"))
    wanted = max((frames for frames in range(4, 65, 4) if frames + 30 <= limit), default=None)
    assert (found and found.changes[KEY]) == wanted
    if found is not None:
        assert found.total == wanted + 30 and found.cost == f"by four; {wanted} frames"
    assert len(planned) == len(set(planned)) <= 6


def test_what_the_rules_refuse_does_not_fit() -> None:
    assert not search(10**6).fits({KEY: 0})
    assert search(10**6).largest([]) is None


def test_batches_that_divide_the_global_one_over_two_processes() -> None:
    def changed(size: int) -> dict[str, int]:
        return {"training.train_batch_size": size}

    ways = search(0).of_global_batch(8, 24, changed)
    assert [way[0]["training.train_batch_size"] for way in ways] == [6, 4, 3, 2, 1]
    assert {way[1] for way in ways} == {SAME_CLIPS}


def test_ways_join_in_order() -> None:
    assert joined([({"a": 1}, "one"), NOTHING, ({"a": 2, "b": 3}, "two")]) == ({"a": 2, "b": 3}, "one; two")


def test_smaller_pictures_keep_their_shape() -> None:
    assert smaller_pictures(32, 64, 8) == [(8, 16), (16, 32), (24, 48)]
