"""What a campaign has not seen yet: how probable is it that the next row shows something new?"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from lmfuzz.types import IntArray

LEVEL, DEVIATIONS = 0.95, 1.959964  # of the intervals; standard deviations of a normal one


@dataclass(frozen=True, slots=True)
class Share:
    """A probability with its interval at LEVEL; ``count`` of ``rows`` is what it was estimated from."""

    count: int
    rows: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The estimate itself."""
        return self.count / self.rows


def observed(count: int, rows: int) -> Share:
    """The share of ``count`` in ``rows``, with the exact binomial interval (Clopper & Pearson 1934)."""
    from scipy import stats  # only where it is used

    low, high = stats.binomtest(count, rows).proportion_ci(LEVEL)
    return Share(count, rows, float(low), float(high))


def unseen(times: IntArray, rows: int) -> Share:
    """The probability that the next row is of a kind that none of ``rows`` was (Good-Turing).

    ``times``, integers (N,), says how often each kind was seen. The estimate is the share of rows whose
    kind was seen once (Good 1953; of fuzzing: STADS, Böhme 2018). The interval is the wider, at
    each end, of Esty's (1983), normal and with the kinds seen twice, and of the exact binomial one, which
    has a width where nothing was seen once. Both are of rows drawn independently.
    """
    once, twice = int((times == 1).sum()), int((times == 2).sum())
    exact = observed(once, rows)
    width = DEVIATIONS * sqrt(once * (1 - once / rows) + 2 * twice) / rows
    low, high = exact.value - width, exact.value + width
    return Share(once, rows, max(0.0, min(exact.low, low)), min(1.0, max(exact.high, high)))


def lately(births: IntArray, executions: int, share: float = 0.1) -> Share:
    """The share of new states among the last tenth of ``executions``; ``births`` (N,): when each was new."""
    window = max(1, round(share * executions))
    return observed(min(window, int(np.sum(births > executions - window))), window)
