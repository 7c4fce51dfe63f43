"""The statistics of trials, against values that are known."""

import math
from pathlib import Path

import pytest

from lmfuzz.statistics import Survival, a12, logrank, mann_whitney, median_interval, survival, trial


def test_kaplan_and_meier_count_what_was_not_found_as_later() -> None:
    found = survival([10, 20, 30, 40, 40], [True, True, True, False, False])
    assert (found.found, found.trials, found.median) == (3, 5, 30)
    assert found.low is not None
    assert found.low <= 30
    assert found.high is None, "the curve's upper end stays above one half"
    assert survival([10, 10, 10], [True, False, False]).median is None


@pytest.mark.parametrize("found", [[False, False], [True, True], [True], [False]])
def test_nothing_all_and_one_are_no_special_cases(found: list[bool]) -> None:
    life = survival([5.0] * len(found), found)
    assert life == Survival(
        sum(found), len(found), 5.0 if found[0] else None, 5.0 if found[0] else None, None
    )


def test_the_interval_holds_the_median() -> None:
    life = survival([*range(1, 41)], [True] * 40)
    assert life.median == 20
    assert life.low is not None
    assert life.high is not None
    assert 10 < life.low < 20 < life.high < 30


def test_the_log_rank_test_of_a_textbook() -> None:
    """Freireich and others 1963, remission of leukaemia in weeks: chi squared 16.79, p 0.00004."""
    treated = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    relapsed = [True] * 9 + [False] * 12
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    p = logrank((treated, relapsed), (placebo, [True] * 21))
    assert p == pytest.approx(4.17e-5, rel=0.02)
    assert survival(treated, relapsed).median == 23
    assert survival(placebo, [True] * 21).median == 8


def test_where_nothing_happened_there_is_no_p() -> None:
    none = [10.0, 10.0], [False, False]
    assert logrank(none, none) is None
    assert logrank(([5.0], [True]), ([5.0], [True])) is None, "no variance"


def test_a12_is_the_chance_to_be_larger() -> None:
    assert a12([2, 3], [0, 1]) == 1
    assert a12([1, 1], [1, 1]) == 0.5
    assert a12([math.inf, 1], [math.inf, 2]) == pytest.approx((0.5 + 1) / 4)


def test_mann_whitney_takes_infinities_and_ties() -> None:
    assert mann_whitney([1, 1, 1], [1, 1]) == 1
    assert mann_whitney([*range(10)], [math.inf] * 10) < 0.001


def test_the_bootstrap_is_the_same_twice() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 50.0]
    found = median_interval(values)
    assert found is not None
    assert found == median_interval(values)
    assert 1 <= found[0] < 3 < found[1] <= 50
    assert median_interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    assert median_interval([1.0, 2.0]) is None


def test_a_trial_is_read_from_a_campaign(sh) -> None:
    sh.fuzz("--objective", 'phrases:words=["sesame"]', "--objective", "repetition", "-o", "c", budget="8000x")
    one = trial(Path("c"))
    assert 8000 <= one.executions < 8200
    assert one.first
    for executions, seconds in one.first.values():
        assert 0 < executions <= one.executions
        assert 0 < seconds <= one.seconds
