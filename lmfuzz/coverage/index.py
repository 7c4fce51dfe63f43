"""Exact nearest-neighbour search: filtered by float32 matrix products, decided in float64.

A pair is decided by ``sum((float64(a) - float64(b))**2)``, which does not depend on the other points or
queries in the same call. The matrix products only say which pairs need that. They compute ``a.b - |b|^2/2``,
which is large if ``|a - b|^2`` is small. It loses digits by cancellation, so that everything inside a proven
bound of the rounding error counts as possible.
"""

import numpy as np

from lmfuzz.types import BoolArray, FloatArray, IntArray

_BLOCK = 2048  # points per matrix product: 64 rows of scores stay in a 1 MB L2 cache
_HUGE = 1e37  # squared norms above this could overflow float32: their pairs are always decided directly
_quiet = np.errstate(over="ignore", invalid="ignore")


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return squared Euclidean distances float64 (P,) between the rows of ``a`` and ``b``, float32 (P, D)."""
    difference = np.subtract(a, b, dtype=np.float64)
    difference *= difference
    return np.asarray(difference.sum(axis=-1))


class Index:
    """Hold a growing array of finite points, and find near ones exactly in O(N) per query.

    A last column holds ``-|b|^2/2``, made smaller by the error bound, so that the product with the query
    and a 1 is the whole score.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._rows = np.empty((1024, dimensions + 1), np.float32)
        self._size = 0
        # A float32 sum of n products is off by at most n u sum|a_i b_i|, u = 2^-24, in any order, and
        # 2 sum|a_i b_i| <= |a|^2 + |b|^2. Twice that, and what denormal numbers can lose.
        self._slack = 2.1 * (dimensions + 8) * 2.0**-24
        self._tiny = (dimensions + 8) * 2.0**-124

    def __len__(self) -> int:
        return self._size

    @property
    def points(self) -> FloatArray:
        """Return a view (N, D) of the points, in order; it keeps its values when the index grows."""
        return self._rows[: self._size, :-1]

    def append(self, points: FloatArray) -> None:
        """Add finite points float32 (M, D)."""
        stop = self._size + len(points)
        if stop > len(self._rows):
            rows = np.empty((max(stop, 2 * len(self._rows)), self.dimensions + 1), np.float32)
            rows[: self._size] = self._rows[: self._size]
            self._rows = rows
        self._rows[self._size : stop] = self._stored(points)
        self._size = stop

    @_quiet
    def near(self, queries: FloatArray, squared: float) -> IntArray:
        """Return for each query float32 (B, D) a point within the squared distance, int64 (B,), or -1.

        The newest points are compared first; a query ends at the first that is near.
        """
        near = np.full(len(queries), -1)
        asked, least = _asked(queries), self._least(_norms(queries), squared)
        left = np.arange(len(queries))
        for high in range(self._size, 0, -_BLOCK):
            low = max(0, high - _BLOCK)
            scores = asked[left] @ self._rows[low:high].T
            top = scores.argmax(axis=1)
            maybe = np.flatnonzero(~(scores[np.arange(len(left)), top] < least[left]))
            if not len(maybe):
                continue
            rows, tops = left[maybe], low + top[maybe]
            hit = squared_distances(queries[rows], self.points[tops]) <= squared
            near[rows[hit]] = tops[hit]
            for i in maybe[~hit]:
                others = low + np.flatnonzero(~(scores[i] < least[left[i]]))
                hits = others[squared_distances(queries[left[i]], self.points[others]) <= squared]
                near[left[i]] = hits[0] if len(hits) else -1
            left = left[near[left] < 0]
            if not len(left):
                break
        return near

    @_quiet
    def touching(self, points: FloatArray, squared: float) -> BoolArray:
        """Return which pairs (M, M) of ``points``, [i, j] with j < i, are within the squared distance."""
        least = self._least(_norms(points), squared)
        scores = _asked(points) @ self._stored(points).T
        i, j = np.nonzero(np.tril(~(scores < least[:, None]), -1))
        touching = np.zeros(scores.shape, np.bool_)
        touching[i, j] = squared_distances(points[i], points[j]) <= squared
        return touching

    def _stored(self, points: FloatArray) -> FloatArray:
        norms = _norms(points)
        norms[norms > _HUGE] = np.nan
        column = norms * ((self._slack - 1) / 2)
        return np.concatenate([points, column[:, None]], axis=1, dtype=np.float32)

    def _least(self, norms: FloatArray, squared: float | FloatArray) -> FloatArray:
        """Return the score float32 (B,) below which no point is near; NaN if none can be given."""
        least = (norms * (1 - 2 * self._slack) - squared * (1 + self._slack)) / 2 - self._tiny
        return np.where(norms > _HUGE, np.nan, least).astype(np.float32)


def _asked(queries: FloatArray) -> FloatArray:
    """Return the queries with a column of ones."""
    return np.concatenate([queries, np.ones((len(queries), 1), np.float32)], axis=1)


def _norms(points: FloatArray) -> FloatArray:
    """Return squared norms float64 (B,)."""
    doubled = points.astype(np.float64)
    return np.asarray(np.einsum("ij,ij->i", doubled, doubled))
