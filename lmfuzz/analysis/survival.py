"""What trials say: when each found what, how long that takes, and whether one way is better than another.

The statistics are scipy's, but for A12 and Gehan's test. What a campaign had not found when it ended is
censored: it might have come later. scipy is imported where it is used.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmfuzz.storage.record import CampaignRecord

ENOUGH = 20  # trials; with fewer, differences may be chance
RESAMPLES = 2000  # of a bootstrap
LEVEL = 0.95  # of every interval
# Of each trial: when it was found, or the trial ended without, and whether it was.
Times = tuple[Sequence[float], Sequence[bool]]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one campaign found; ``first``: bucket -> executions and seconds until its first confirmed finding.

    Executions are counted from the end of calibration, seconds from its begin. A campaign with a limit of
    findings ends at the last of them, which may be flaky: before its budget, and with nothing in ``first``.
    """

    executions: int  # when it ended
    seconds: float
    first: Mapping[str, tuple[int, float]]
    unscored: int = 0  # rows that some objective could not judge


def trial(record: CampaignRecord) -> Trial:
    """The campaign as a trial.

    A finding's time is that of its execution on the line through the samples (once a second).
    """
    at = [0, *(sample.executions for sample in record.samples), record.executions]
    seconds = [0.0, *(sample.seconds for sample in record.samples), record.seconds]
    before = record.calibration_executions
    first: dict[str, tuple[int, float]] = {}
    for finding in sorted(record.findings, key=lambda f: f.execution):
        if finding.label == "confirmed" and finding.bucket not in first:
            when = float(np.interp(finding.execution, at, seconds))
            first[finding.bucket] = (finding.execution - before, when)
    return Trial(record.executions - before, record.seconds, first, sum(record.unscored.values()))


@dataclass(frozen=True, slots=True)
class Survival:
    """How many trials found something, and after how long half of them have; None: never within the time."""

    found: int
    trials: int
    median: float | None
    low: float | None  # of the median's interval
    high: float | None


def survival(times: Sequence[float], found: Sequence[bool]) -> Survival:
    """Kaplan and Meier's estimate (1958): ``times`` until it was found, or until the trial ended without.

    The interval of the median is where those of the curve (log-log) cross 1/2 (Brookmeyer & Crowley 1982).
    """
    from scipy.stats import ecdf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # intervals have no ends where the curve is 1 or 0
        curve = ecdf(_censored(times, found)).sf
        ends = curve.confidence_interval(LEVEL, method="log-log")
    low = np.where(np.isnan(ends.low.probabilities), curve.probabilities, ends.low.probabilities)
    median, least, most = (
        _crossing(curve.quantiles, p) for p in (curve.probabilities, low, ends.high.probabilities)
    )
    return Survival(sum(found), len(found), median, least, most)


def _crossing(times: Any, probabilities: Any) -> float | None:
    below = np.flatnonzero(probabilities <= 0.5)
    return float(times[below[0]]) if len(below) else None


def _censored(times: Sequence[float], found: Sequence[bool]) -> Any:
    from scipy.stats import CensoredData

    return CensoredData.right_censored(np.asarray(times, float), ~np.asarray(found, bool))


def logrank(ours: Times, theirs: Times) -> float | None:
    """The two-sided p of the log-rank test; None where neither found it."""
    from scipy.stats import logrank as test

    if not (any(ours[1]) or any(theirs[1])):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # without variance there is no statistic
        p = float(test(_censored(*ours), _censored(*theirs)).pvalue)
    return None if np.isnan(p) else p


def a12(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Vargha and Delaney's A12 (2000): the chance that ours is the larger one, half of the ties included."""
    one, other = np.asarray(ours, float)[:, None], np.asarray(theirs, float)[None]
    return float((one > other).mean() + (one == other).mean() / 2)


def gehan(ours: Times, theirs: Times) -> tuple[float, float]:
    """A12, the chance that ours is found sooner, and the two-sided p of Gehan's Wilcoxon test (1965).

    A pair is decided where one was found at a time at which the other still went on without; any other
    counts half, as a tie. p is from the pooled sample's scores (how many were surely found before it, less
    those after it) and their permutation variance (Mantel 1967), corrected for continuity. Where none ended
    before the last was found these are the ranks, and the test is Mann and Whitney's.
    """
    from scipy.stats import norm

    times, found = (np.concatenate(pair) for pair in zip(ours, theirs, strict=True))
    earlier = found[:, None] & ((times[:, None] < times) | ((times[:, None] == times) & ~found))
    scores, one, other = earlier.sum(axis=0) - earlier.sum(axis=1), len(ours[0]), len(theirs[0])
    lead = int(-scores[:one].sum())  # pairs that ours won, less those that it lost
    better = (1 + lead / (one * other)) / 2
    if not scores.any() or min(times[~found], default=math.inf) >= max(times[found]):
        return better, mann_whitney(scores[:one], scores[one:])  # which is exact where samples are small
    many = one + other
    deviation = math.sqrt(one * other * float(scores @ scores) / (many * (many - 1)))
    return better, min(1.0, 2 * float(norm.sf(max(0, abs(lead) - 1) / deviation)))


def mann_whitney(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The two-sided p of Mann and Whitney's test; values may be infinite."""
    from scipy.stats import mannwhitneyu

    ranks = np.unique(np.concatenate([ours, theirs]), return_inverse=True)[1]  # the test knows ranks alone
    return float(mannwhitneyu(ranks[: len(ours)], ranks[len(ours) :]).pvalue)


def p_text(p: float) -> str:
    """A p as a person reads it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The bootstrap interval of the median (percentiles, always the same ones); None below 3 values."""
    from scipy.stats import bootstrap

    if len(values) < 3:
        return None
    found = bootstrap(
        (np.asarray(values, float),), np.median, method="percentile", n_resamples=RESAMPLES,
        confidence_level=LEVEL, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
