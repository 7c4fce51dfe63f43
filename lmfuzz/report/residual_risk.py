"""What a campaign has not seen yet: how probable is it that the next row shows something new?"""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from lmfuzz.analysis.survival import LEVEL
from lmfuzz.types import IntArray

DEVIATIONS = 1.959964  # of the normal interval at LEVEL


@dataclass(frozen=True, slots=True)
class Share:
    """A probability with its interval at LEVEL; ``count`` of ``rows`` is what it was estimated from.

    ``unit`` is what was counted, and what the probability is of.
    """

    count: int
    rows: int
    low: float
    high: float
    unit: str = "rows"

    @property
    def value(self) -> float:
        """The estimate itself."""
        return self.count / self.rows


def observed(count: int, rows: int) -> Share:
    """The share of ``count`` in ``rows``, with the exact binomial interval (Clopper & Pearson 1934)."""
    from scipy import stats  # only where it is used

    low, high = stats.binomtest(count, rows).proportion_ci(LEVEL)
    return Share(count, rows, float(low), float(high))


def unseen(times: IntArray, rows: int, once: int | None = None) -> Share:
    """The probability that the next row shows some kind, one or several, that none of ``rows`` showed.

    ``times``, integers (N,), says in how many rows each kind was seen; ``once`` how many rows showed a kind
    that no other did. The estimate is the share of these rows: Good-Turing (Good 1953; of fuzzing: STADS,
    Böhme 2018), each row left out in turn, so that a row may show several kinds, or none. Without ``once``
    it is the number of kinds seen once (Q1 of incidence data, Chao & Colwell 2017), all rows at most: equal
    where a row shows one kind, the expected number of new kinds, and so no less, where it shows several.
    The interval is the wider, at each end, of Esty's (1983), normal and with the kinds seen twice, and of
    the exact binomial one, which has a width where nothing was seen once. Both are of rows drawn
    independently.
    """
    known, twice = int((times == 1).sum()), int((times == 2).sum())
    once = min(rows, known if once is None else once)
    exact = observed(once, rows)
    width = DEVIATIONS * sqrt(once * (1 - once / rows) + 2 * twice) / rows
    low, high = exact.value - width, exact.value + width
    return Share(once, rows, max(0.0, min(exact.low, low)), min(1.0, max(exact.high, high)))


def lately(births: IntArray, executions: int, share: float = 0.1) -> Share:
    """The share of new states in the last tenth of ``executions``; ``births`` (N,): when each was new.

    Executions are more than rows: those of the calibration and of re-runs alone are among them.
    """
    window = max(1, round(share * executions))
    found = observed(min(window, int(np.sum(births > executions - window))), window)
    return replace(found, unit="executions")
