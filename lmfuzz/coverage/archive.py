"""An archive of the points seen so far, which tells whether a new one is far from all of them."""

import math
from typing import TYPE_CHECKING

import numpy as np

from lmfuzz.coverage.index import Index, squared_distances
from lmfuzz.errors import UsageError
from lmfuzz.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from lmfuzz.coverage.nmslib_index import Segments

MANY = 3  # visits of a state are counted up to this
_ROWS = 128  # rows judged at once: bounds the memory of a step, changes no decision


class Archive:
    """Admit a point as novel if it is farther than ``radius`` from every point admitted before.

    The distance is Euclidean (the code of TensorFuzz, Odena & Goodfellow 2018, compares its square: a
    threshold of 0.5 there is a radius of 0.707). Every decision is that of an exact search in float64: it
    depends neither on batches nor on what nmslib finds, misses, or has not built yet.

    Args:
        radius: at least 0.
        dimensions: D, the length of a point.
        approximate: whether to look in nmslib's graphs first. What they find is a real point, so a near one
            decides at once; only "far" needs the exact search.
        tail: how many of the newest points may have no graph yet.

    Raises:
        UsageError: if the radius is negative or not finite.
    """

    def __init__(self, radius: float, dimensions: int, approximate: bool = True, tail: int = 16_384) -> None:
        if not (radius >= 0 and math.isfinite(radius)):
            raise UsageError(f"the radius must be a finite distance of at least 0, not {radius}")
        self.radius, self.dimensions, self._squared = radius, dimensions, radius * radius
        self._index = Index(dimensions)
        self._visits = bytearray()
        self._segments: Segments | None = None
        if approximate:
            from lmfuzz.coverage import nmslib_index  # imported here because it loads nmslib

            self._segments = nmslib_index.Segments(tail)

    def __len__(self) -> int:
        return len(self._index)

    def admit(self, points: FloatArray, where: BoolArray) -> BoolArray:
        """Add the novel ones of points float32 (B, D), and return which these are (B,).

        Points are judged in order, each also against those admitted before it in the same batch. Points
        outside ``where`` (B,) and points that are not finite are never admitted. Raises ValueError for a
        wrong shape.
        """
        points = self._checked(points)
        if where.shape != points.shape[:1]:
            raise ValueError(f"where must be of shape {points.shape[:1]}, not {where.shape}")
        rows = np.flatnonzero(where & np.isfinite(points).all(axis=1))
        novel = np.zeros(len(points), np.bool_)
        for first in range(0, len(rows), _ROWS):
            some = rows[first : first + _ROWS]
            novel[some] = self._admit(points[some])
        return novel

    def _admit(self, points: FloatArray) -> BoolArray:
        met, size = self._near(points), len(self)
        novel = met < 0
        far = np.flatnonzero(novel)
        if len(far) > 1:
            touching = self._index.touching(points[far], self._squared)
            for i in np.flatnonzero(touching.any(axis=1)):
                earlier = np.flatnonzero(touching[i] & novel[far])
                if len(earlier):
                    novel[far[i]], met[far[i]] = False, size + int(novel[far[: earlier[0]]].sum())
        if len(far):
            self._append(points[novel])
        for state in met[~novel].tolist():
            self._visits[state] = min(self._visits[state] + 1, MANY)
        return novel

    @property
    def visits(self) -> IntArray:
        """Return how many points were near each admitted one, itself included: uint8 (N,), at most MANY.

        A point near several others counts for one of them, usually the newest. 0 means not known.
        """
        return np.frombuffer(bytes(self._visits), np.uint8)

    def _near(self, points: FloatArray) -> IntArray:
        near = np.full(len(points), -1)
        left = np.arange(len(points))
        for segment in reversed(self._segments.segments) if self._segments else ():
            guess = segment.guess(points[left])
            close = squared_distances(points[left], self._index.points[guess]) <= self._squared
            near[left[close]] = guess[close]
            left = left[~close]
            if not len(left):
                return near
        near[left] = self._index.near(points[left], self._squared)
        return near

    def _append(self, points: FloatArray) -> None:
        self._index.append(points)
        self._visits += b"\1" * len(points)
        if self._segments is not None:
            self._segments.follow(self._index.points)

    def points(self, start: int = 0) -> FloatArray:
        """Return a copy of the admitted points float32 (N - start, D), in the order of admission."""
        return self._index.points[start:].copy()

    def restore(self, points: FloatArray, visits: IntArray | None = None) -> None:
        """Continue from ``points()`` and ``visits``; raise ValueError unless the archive is still empty."""
        points = self._checked(points)
        if len(self) or not np.isfinite(points).all():
            raise ValueError("only finite points can be restored, and only into an empty archive")
        if visits is not None and visits.shape != points.shape[:1]:
            raise ValueError("points and their visits differ in number")
        self._append(points)
        self._visits = bytearray(len(points) if visits is None else visits.astype(np.uint8).tobytes())

    def close(self) -> None:
        """Wait for a running build and begin no more; decisions stay exact, only slower."""
        if self._segments is not None:
            self._segments.wait()
            self._segments = None

    def _checked(self, points: FloatArray) -> FloatArray:
        if points.ndim != 2 or points.shape[1] != self.dimensions:
            raise ValueError(f"points must be of shape (B, {self.dimensions}), not {points.shape}")
        return np.ascontiguousarray(points, np.float32)
