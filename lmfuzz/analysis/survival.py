"""The statistics of trials: how long each took to find something, and whether one way is better than another.

They are scipy's, except A12 and Gehan's test. What a campaign had not found when it ended is censored: it
might have come later. scipy is imported in the functions that use it.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lmfuzz.storage.record import CampaignRecord

ENOUGH = 20  # trials; with fewer, differences may be chance
RESAMPLES = 2000  # of a bootstrap
LEVEL = 0.95  # of every interval
# For each trial: when it found something, or ended without it, and whether it found it.
Times = tuple[Sequence[float], Sequence[bool]]
_quiet = partial(warnings.catch_warnings, action="ignore", category=RuntimeWarning)


@dataclass(frozen=True, slots=True)
class Trial:
    """Hold what one campaign found, and when.

    Executions are counted from the end of calibration, seconds from its beginning. A campaign with a limit of
    findings ends at the last of them, which may be flaky: before its budget, and with nothing in ``first``.

    Attributes:
        executions: the executions at its end.
        seconds: the seconds at its end.
        first: for each bucket, the executions and seconds until its first confirmed finding.
        unscored: how many rows some objective could not judge.
    """

    executions: int
    seconds: float
    first: Mapping[str, tuple[int, float]]
    unscored: int = 0


def trial(record: CampaignRecord) -> Trial:
    """Return the campaign as a trial.

    The seconds until a finding are interpolated between the samples, which are taken once a second.
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


class Survival(NamedTuple):
    """Hold the time until half of the trials found something, with its interval; None if not reached."""

    median: float | None
    low: float | None
    high: float | None


def survival(times: Sequence[float], found: Sequence[bool]) -> Survival:
    """Return Kaplan and Meier's estimate (1958) from ``times`` until it was found, or the trial ended.

    The interval of the median is where those of the curve (log-log) cross 1/2 (Brookmeyer & Crowley 1982).
    """
    from scipy.stats import ecdf

    with _quiet():  # intervals have no ends while the curve is 1 or 0
        curve = ecdf(_censored(times, found)).sf
        ends = curve.confidence_interval(LEVEL, method="log-log")
    low = np.where(np.isnan(ends.low.probabilities), curve.probabilities, ends.low.probabilities)
    curves = (curve.probabilities, low, ends.high.probabilities)
    return Survival(*(_crossing(curve.quantiles, p) for p in curves))


def _crossing(times: Any, probabilities: Any) -> float | None:
    below = np.flatnonzero(probabilities <= 0.5)
    return float(times[below[0]]) if len(below) else None


def _censored(times: Sequence[float], found: Sequence[bool]) -> Any:
    from scipy.stats import CensoredData

    return CensoredData.right_censored(np.asarray(times, float), ~np.asarray(found, bool))


def logrank(ours: Times, theirs: Times) -> float | None:
    """Return the two-sided p of the log-rank test; None if neither found it."""
    from scipy.stats import logrank as test

    if not (any(ours[1]) or any(theirs[1])):
        return None
    with _quiet():  # without variance there is no statistic
        p = float(test(_censored(*ours), _censored(*theirs)).pvalue)
    return None if np.isnan(p) else p


def a12(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return Vargha and Delaney's A12 (2000): the chance that ours is larger, a tie counting half."""
    one, other = np.asarray(ours, float)[:, None], np.asarray(theirs, float)[None]
    return float((one > other).mean() + (one == other).mean() / 2)


def gehan(ours: Times, theirs: Times) -> tuple[float, float]:
    """Return A12, the chance that ours is found sooner, and the two-sided p of Gehan's Wilcoxon test (1965).

    A pair is decided if one trial found it while the other was still going on without it; any other pair
    counts half, as a tie. p is from the pooled sample's scores (how many were surely found before it, less
    those after it) and their permutation variance (Mantel 1967), corrected for continuity. If no trial ended
    before the last one found it, the scores are the ranks, and the test is Mann and Whitney's.
    """
    from scipy.stats import norm

    times, found = (np.concatenate(pair) for pair in zip(ours, theirs, strict=True))
    earlier = found[:, None] & ((times[:, None] < times) | ((times[:, None] == times) & ~found))
    scores, one, other = earlier.sum(axis=0) - earlier.sum(axis=1), len(ours[0]), len(theirs[0])
    lead = int(-scores[:one].sum())  # pairs that ours won, less those that it lost
    better = (1 + lead / (one * other)) / 2
    if not scores.any() or min(times[~found], default=math.inf) >= max(times[found]):
        return better, mann_whitney(scores[:one], scores[one:])  # exact for small samples
    many = one + other
    deviation = math.sqrt(one * other * float(scores @ scores) / (many * (many - 1)))
    return better, min(1.0, 2 * float(norm.sf(max(0, abs(lead) - 1) / deviation)))


def mann_whitney(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the two-sided p of Mann and Whitney's test; values may be infinite."""
    from scipy.stats import mannwhitneyu

    ranks = np.unique(np.concatenate([ours, theirs]), return_inverse=True)[1]  # the test needs ranks only
    return float(mannwhitneyu(ranks[: len(ours)], ranks[len(ours) :]).pvalue)


def p_text(p: float) -> str:
    """Return a p as a person reads it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the bootstrap interval of the median (percentiles, always the same); None below 3 values."""
    from scipy.stats import bootstrap

    if len(values) < 3:
        return None
    how = {"method": "percentile", "n_resamples": RESAMPLES, "confidence_level": LEVEL}
    found = bootstrap((np.asarray(values, float),), np.median, **how, rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
