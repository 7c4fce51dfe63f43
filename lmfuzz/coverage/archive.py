"""The points seen so far, and which new ones are far from all of them."""

import math
from typing import TYPE_CHECKING

import numpy as np

from lmfuzz.coverage.index import Index, squared_distances
from lmfuzz.errors import UsageError
from lmfuzz.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from lmfuzz.coverage.nmslib_index import Segments

MANY = 3  # rows that met a state: more are not told apart
_ROWS = 128  # rows judged at once: bounds the memory of a step, changes no decision


class Archive:
    """A row is novel if its point is farther than ``radius`` from every point admitted before it.

    The distance is Euclidean (the code of TensorFuzz, Odena & Goodfellow 2018, compares its square: a
    threshold of 0.5 there is a radius of 0.707). Decisions are those of one exact search after
    another in float64: neither batches nor what nmslib finds, misses, or has not built yet change one.

    With ``approximate``, rows older than the last ``tail`` are first looked up in nmslib's graphs. What
    these find is a real point, so a near one settles the matter; only "far" needs the exact search.
    UsageError for a radius that is negative or not finite.
    """

    def __init__(
        self, radius: float, dimensions: int, *, approximate: bool = True, tail: int = 16_384
    ) -> None:
        if not (radius >= 0 and math.isfinite(radius)):
            raise UsageError(f"the radius must be a finite distance of at least 0, not {radius}")
        self.radius = radius
        self.dimensions = dimensions
        self._squared = radius * radius
        self._index = Index(dimensions)
        self._visits = bytearray()
        self._segments: Segments | None = None
        if approximate:
            from lmfuzz.coverage import nmslib_index  # only where it is used: it loads nmslib

            self._segments = nmslib_index.Segments(tail)

    def __len__(self) -> int:
        return len(self._index)

    def admit(self, points: FloatArray, where: BoolArray) -> BoolArray:
        """Which rows (B,) of points float32 (B, D) are novel; these are in the archive from now on.

        Rows are judged in order, each also against those admitted before it in the same batch. Rows
        outside ``where`` (B,) and rows that are not finite are never admitted. ValueError for a
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
        """How many rows met each state, uint8 (N,): 1 where no row came near it again, at most MANY.

        A row near several states is counted for one of them, the newest as a rule. 0: not known.
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
        """A copy of the admitted points float32 (N - start, D), in the order of admission."""
        return self._index.points[start:].copy()

    def restore(self, points: FloatArray, visits: IntArray | None = None) -> None:
        """Go on from ``points()`` and ``visits``, in an archive that is still empty; ValueError otherwise."""
        points = self._checked(points)
        if len(self) or not np.isfinite(points).all():
            raise ValueError("only finite points can be restored, and only into an empty archive")
        self._append(points)
        self._visits = bytearray(len(points) if visits is None else visits.astype(np.uint8).tobytes())

    def close(self) -> None:
        """Wait for a build that is running and begin no more; decisions stay exact, only slower."""
        if self._segments is not None:
            self._segments.wait()
            self._segments = None

    def _checked(self, points: FloatArray) -> FloatArray:
        if points.ndim != 2 or points.shape[1] != self.dimensions:
            raise ValueError(f"points must be of shape (B, {self.dimensions}), not {points.shape}")
        return np.ascontiguousarray(points, np.float32)
