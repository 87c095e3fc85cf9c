"""Bootstrap intervals of a mean over clips."""

import math

import numpy as np
import pytest

from tinyworld.metrics.bootstrap import interval


def test_it_holds_the_mean_and_lies_within_the_values() -> None:
    values = [20.1, 22.4, 21.0, 25.3, 18.9, 23.2]
    low, high = interval(values)
    assert min(values) < low < np.mean(values) < high < max(values)


def test_it_is_as_wide_as_the_theory_says() -> None:
    """For many values the interval is the mean ± 1.96 standard errors."""
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    error = values.std() / math.sqrt(400)
    low, high = interval(values.tolist())
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_it_covers_the_true_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).normal(size=(200, 40))
    intervals = [interval(sample.tolist(), draws=300, seed=k) for k, sample in enumerate(samples)]
    covered = sum(low <= 0 <= high for low, high in intervals) / len(samples)
    assert 0.88 <= covered <= 0.99


def test_a_higher_level_is_wider() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    (low50, high50), (low95, high95) = interval(values, level=0.5), interval(values, level=0.95)
    assert low95 < low50 < high50 < high95


def test_the_same_arguments_give_the_same_interval_and_the_global_generator_is_left_alone() -> None:
    values = np.random.default_rng(2).normal(size=30).tolist()
    np.random.seed(0)
    first = interval(values)
    drawn = np.random.random()
    np.random.seed(0)
    assert np.random.random() == drawn
    assert interval(values) == first != interval(values, seed=1)


def test_clips_without_a_value_are_left_out() -> None:
    assert interval([None, 1.0, math.nan, 2.0, 3.0, None]) == interval([1.0, 2.0, 3.0])


def test_equal_values_have_an_interval_without_width() -> None:
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_fewer_than_two_values() -> None:
    assert interval([math.nan, 3.5]) == (3.5, 3.5)
    assert all(math.isnan(bound) for bound in interval([]))
    assert all(math.isnan(bound) for bound in interval([None, math.nan]))


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"level": 1.0}, {"level": 95}, {"draws": 0}])
def test_levels_and_draws_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        interval([1.0, 2.0], **wrong)
