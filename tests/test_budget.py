"""Budgets: how they are written, and when they are spent."""

import pytest

from lmfuzz.budget import Budget
from lmfuzz.errors import UsageError


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    now = [1000.0]  # when every budget here is started
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("text", "seconds", "executions"),
    [
        ("90s", 90, None),
        ("5m", 300, None),
        ("1.5h", 5400, None),
        (" 0.25 s ", 0.25, None),
        ("200000x", None, 200_000),
        ("1 x", None, 1),
    ],
)
def test_times_and_executions_are_read(text, seconds, executions):
    budget = Budget.parse(text)
    assert (budget.seconds, budget.executions, budget.findings) == (seconds, executions, None)
    assert not budget.spent()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "x",
        "s",
        "-5s",
        "5d",
        "1.5x",
        "1e3x",
        "5 m 3 s",
        "5M",
        "inf s",
        "nan",
        ".5s",
        "0x",
        "0s",
        "0.0h",
    ],
)
def test_anything_else_is_an_error_that_shows_it(text):
    with pytest.raises(UsageError, match="budget") as caught:
        Budget.parse(text)
    assert repr(text) in str(caught.value)


def test_seconds_are_spent_when_they_have_passed(clock):
    budget = Budget(seconds=10, started=1000.0)
    clock[0] += 9.5
    assert (budget.elapsed(), budget.reason(), budget.share()) == (9.5, "", 0.95)
    clock[0] += 0.5
    assert (budget.reason(), budget.spent(), budget.share()) == ("seconds", True, 1.0)
    clock[0] += 100
    assert budget.share() == 1.0


def test_seconds_before_a_resume_count(clock):
    budget = Budget(seconds=10, seconds_before=7, started=1000.0)
    assert not budget.spent()
    clock[0] += 3
    assert budget.elapsed() == 10
    assert budget.reason() == "seconds"


def test_executions_and_findings_are_spent_when_they_are_reached():
    budget = Budget(executions=100, findings=3)
    budget.spent_executions, budget.spent_findings = 99, 2
    assert not budget.spent()
    budget.spent_executions = 100
    assert budget.reason() == "executions"
    budget.spent_findings = 4
    assert budget.reason() == "findings"


def test_what_calibration_ran_does_not_count():
    budget = Budget(executions=100, calibration=500, spent_executions=500)
    assert budget.share() == 0
    budget.spent_executions = 599
    assert not budget.spent()
    assert budget.share() == 0.99
    budget.spent_executions = 600
    assert budget.reason() == "executions"


def test_the_share_is_that_of_what_is_nearest_to_its_end(clock):
    budget = Budget(executions=100, seconds=10, started=1000.0)
    assert budget.share() == 0
    budget.spent_executions = 20
    assert budget.share() == 0.2
    clock[0] += 5
    assert budget.share() == 0.5
    budget.spent_executions = 1000
    assert budget.share() == 1.0


def test_a_budget_without_limits_is_never_spent(clock):
    budget = Budget(started=1000.0)
    clock[0] += 1e9
    budget.spent_executions = budget.spent_findings = 10**9
    assert not budget.spent()
    assert budget.share() == 0
