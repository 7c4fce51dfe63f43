"""How probable it is that the next input shows something new."""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from lmfuzz.analysis.survival import LEVEL
from lmfuzz.types import IntArray

DEVIATIONS = 1.959964  # of the normal interval at LEVEL


@dataclass(frozen=True, slots=True)
class Share:
    """Hold a probability, with its interval at LEVEL, that was estimated from ``count`` of ``rows``.

    ``unit`` names what was counted.
    """

    count: int
    rows: int
    low: float
    high: float
    unit: str = "inputs"

    @property
    def value(self) -> float:
        """The estimate itself."""
        return self.count / self.rows


def observed(count: int, rows: int) -> Share:
    """Return the share of ``count`` in ``rows``, its interval exact binomial (Clopper & Pearson 1934)."""
    from scipy import stats  # only when it is used

    low, high = stats.binomtest(count, rows).proportion_ci(LEVEL)
    return Share(count, rows, float(low), float(high))


def unseen(times: IntArray, rows: int, once: int | None = None) -> Share:
    """Return the probability that the next row shows one or more kinds that none of ``rows`` showed.

    The estimate is Good-Turing's (Good 1953; for fuzzing Böhme 2018, STADS): the share of rows that showed a
    kind that no other row did. A row may show several kinds, or none. The interval is the wider, at each
    end, of Esty's (1983), which is normal and uses the kinds seen twice, and of the exact binomial one, which
    has a width even if nothing was seen once. Both assume rows drawn independently.

    Args:
        times: in how many rows each kind was seen, int (N,).
        rows: how many rows there were.
        once: how many rows showed a kind that no other row did. If it is None, the number of kinds seen once
            (Q1 of incidence data, Chao & Colwell 2017), at most all rows: the same if a row shows one kind;
            the expected number of new kinds, so no less, if it shows several.
    """
    known, twice = int((times == 1).sum()), int((times == 2).sum())
    once = min(rows, known if once is None else once)
    exact = observed(once, rows)
    width = DEVIATIONS * sqrt(once * (1 - once / rows) + 2 * twice) / rows
    low, high = exact.value - width, exact.value + width
    return Share(once, rows, max(0.0, min(exact.low, low)), min(1.0, max(exact.high, high)))


def lately(births: IntArray, executions: int, share: float = 0.1) -> Share:
    """Return the share of new states in the last tenth of ``executions``; ``births`` (N,) says when each was.

    There are more executions than rows: the calibration and the re-runs of findings count too.
    """
    window = max(1, round(share * executions))
    found = observed(min(window, int(np.sum(births > executions - window))), window)
    return replace(found, unit="executions")
