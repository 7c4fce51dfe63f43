"""The statistics of trials, against values that are known."""

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from lmfuzz.analysis.survival import (
    Survival,
    Times,
    Trial,
    a12,
    gehan,
    logrank,
    mann_whitney,
    median_interval,
    p_text,
    survival,
    trial,
)
from lmfuzz.storage.record import CampaignRecord

TREATED = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
LEUKAEMIA: tuple[Times, Times] = (PLACEBO, [True] * 21), (TREATED, [True] * 9 + [False] * 12)


def test_kaplan_and_meier_count_what_was_not_found_as_later() -> None:
    found = survival([10, 20, 30, 40, 40], [True, True, True, False, False])
    assert found.median == 30
    assert found.low is not None
    assert found.low <= 30
    assert found.high is None, "the curve's upper end stays above one half"
    assert survival([10, 10, 10], [True, False, False]).median is None


@pytest.mark.parametrize("found", [[False, False], [True, True], [True], [False]])
def test_nothing_all_and_one_are_no_special_cases(found: list[bool]) -> None:
    life = survival([5.0] * len(found), found)
    reached = 5.0 if found[0] else None
    assert life == Survival(reached, reached, None)


def test_the_interval_holds_the_median() -> None:
    life = survival([*range(1, 41)], [True] * 40)
    assert life.median == 20
    assert life.low is not None
    assert life.high is not None
    assert 10 < life.low < 20 < life.high < 30


def test_the_log_rank_test_of_a_textbook() -> None:
    """Freireich and others 1963, remission of leukaemia in weeks: chi squared 16.79, p 0.00004."""
    placebo, treated = LEUKAEMIA
    assert logrank(treated, placebo) == pytest.approx(4.17e-5, rel=0.02)
    assert survival(*treated).median == 23
    assert survival(*placebo).median == 8


def test_where_nothing_happened_there_is_no_p() -> None:
    none = [10.0, 10.0], [False, False]
    assert logrank(none, none) is None
    assert logrank(([5.0], [True]), ([5.0], [True])) is None, "no variance"


def test_a12_is_the_chance_to_be_larger() -> None:
    assert a12([2, 3], [0, 1]) == 1
    assert a12([1, 1], [1, 1]) == 0.5
    assert a12([math.inf, 1], [math.inf, 2]) == pytest.approx((0.5 + 1) / 4)


def test_gehans_test_of_his_own_example() -> None:
    """Gehan 1965: of 441 pairs those on placebo lead in 271 more than they are behind."""
    better, p = gehan(*LEUKAEMIA)
    assert better == pytest.approx((1 + 271 / 441) / 2)
    assert 1e-4 < p < 1e-3
    assert gehan(*LEUKAEMIA[::-1]) == (pytest.approx(1 - better), p)


@pytest.mark.parametrize("many", [5, 20])
def test_with_one_budget_gehan_is_mann_and_whitney(many: int) -> None:
    ours, theirs = [3.0 * i for i in range(many)], [7.0 * i + 1 for i in range(many)]
    early = [min(time, 50.0) for time in ours], [time < 50 for time in ours]
    late = [min(time, 50.0) for time in theirs], [time < 50 for time in theirs]
    plain = [[math.inf if time >= 50 else time for time in times] for times in (ours, theirs)]
    assert gehan(early, late) == (pytest.approx(a12(*plain[::-1])), pytest.approx(mann_whitney(*plain)))


def test_who_ended_early_is_not_late() -> None:
    """Theirs all ended at 5; from there on it is not known who would have been the sooner one."""
    ours = [*range(10, 14), *[100] * 16], [True] * 4 + [False] * 16
    theirs = [5.0] * 20, [False] * 20
    assert gehan(ours, theirs) == (0.5, 1)
    one_sooner = ([4, *ours[0][1:]], ours[1])
    assert gehan(one_sooner, theirs)[0] == pytest.approx((1 + 1 / 20) / 2), "found while all theirs went on"
    assert gehan(([5.0], [True]), ([5.0], [False]))[0] == 1, "ended then, and had not found it"
    assert gehan(([5.0], [True]), ([4.0], [False])) == (0.5, 1), "no pair is decided"


def test_equal_hazards_are_no_difference_whatever_else_ends_a_trial() -> None:
    """X comes as often to both; one also finds Y, and stops: taken for late, it would be far behind."""
    rng, said = np.random.default_rng(0), []
    for _ in range(100):
        x, y = rng.exponential(3.0, (2, 20)), rng.exponential(0.3, 20)
        ends = np.minimum(1.0, [np.full(20, 1.0), y])
        said.append(gehan(*((np.minimum(x[i], ends[i]), x[i] <= ends[i]) for i in (0, 1))))
    assert np.mean([better for better, _ in said]) == pytest.approx(0.5, abs=0.02)
    assert sum(p < 0.05 for _, p in said) <= 5


def test_a_p_is_read_in_three_places() -> None:
    assert [p_text(p) for p in (1.0, 0.0312, 0.001, 0.00099)] == ["1.000", "0.031", "0.001", "< 0.001"]


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
    one = trial(CampaignRecord.read(Path("c")))
    assert 8000 <= one.executions < 8200
    assert one.first
    for executions, seconds in one.first.values():
        assert 0 < executions <= one.executions
        assert 0 < seconds <= one.seconds


def test_a_flaky_finding_can_end_a_trial_without_any(sh, tmp_path: Path) -> None:
    sh.fuzz("--stop-after", "1", "--batch", "8", "-o", "c", budget="8000x")
    before = trial(CampaignRecord.read(Path("c")))
    assert before.executions < 8000
    with sqlite3.connect("c/campaign.db") as db:
        assert db.execute("UPDATE findings SET failed = 1").rowcount
    db.close()
    assert trial(CampaignRecord.read(Path("c"))) == Trial(before.executions, before.seconds, {})
