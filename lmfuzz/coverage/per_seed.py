"""Coverage in campaigns per seed: a row is new if it is far from all rows of its own seed."""

import numpy as np

from lmfuzz.coverage.archive import Archive
from lmfuzz.protocols import Feature
from lmfuzz.types import BoolArray, FloatArray, IntArray, Trace


class Apart:
    """Append the number of a row's seed to its point of another feature, which is fitted already."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self.needs = feature.needs | {"origin"}

    def fit(self, trace: Trace) -> None:
        """Learn nothing: the other feature is fitted already."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Return points float32 (B, D + 1)."""
        seeds = trace["origin"].astype(np.float32)
        return np.concatenate([self._feature(trace), seeds[:, None]], axis=1)


class Archives:
    """Keep an Archive for every seed; the last coordinate of a point is the number of its seed."""

    def __init__(self, radius: float, dimensions: int) -> None:
        self.radius, self.dimensions = radius, dimensions
        self._archives: dict[int, Archive] = {}

    def __len__(self) -> int:
        return sum(map(len, self._archives.values()))

    def admit(self, points: FloatArray, where: BoolArray) -> BoolArray:
        """Add the novel ones of points (B, D + 1), and return which these are (B,)."""
        novel = np.zeros(len(points), np.bool_)
        seeds = points[:, -1]
        for seed in np.unique(seeds).astype(int).tolist():
            rows = np.flatnonzero(seeds == seed)
            novel[rows] = self._of(seed).admit(np.ascontiguousarray(points[rows, :-1]), where[rows])
        return novel

    def _of(self, seed: int) -> Archive:
        if seed not in self._archives:
            self._archives[seed] = Archive(self.radius, self.dimensions - 1, approximate=False)
        return self._archives[seed]

    @property
    def visits(self) -> IntArray:
        """Return visits as Archive does, uint8 (N,), seed by seed."""
        known = [np.empty(0, np.uint8), *(archive.visits for _, archive in sorted(self._archives.items()))]
        return np.concatenate(known)

    def restore(self, points: FloatArray, visits: IntArray | None = None) -> None:
        """Continue from points (N, D + 1), in the order of admission, and ``visits``."""
        done = 0
        for seed in np.unique(points[:, -1]).astype(int).tolist():
            own = points[points[:, -1] == seed, :-1]
            self._of(seed).restore(own, None if visits is None else visits[done : done + len(own)])
            done += len(own)

    def close(self) -> None:
        """Do nothing: no graph is built in the background."""
