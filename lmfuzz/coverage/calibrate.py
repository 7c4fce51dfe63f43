"""How far apart do points have to be to be different? A radius, and the numbers it comes from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmfuzz.coverage.index import squared_distances
from lmfuzz.errors import UsageError
from lmfuzz.protocols import Executor, Feature, FixesRadius
from lmfuzz.types import CRASH, PAD, Array, Batch, FloatArray, Trace, join, take

STABLE = 0.9  # share of the seeds below which the target does not seem deterministic
_LEAST = 1e-6  # a radius, where all distances are zero: any difference is new


@dataclass(frozen=True, slots=True)
class Calibration:
    """Euclidean distances between points, and the radius that follows from them.

    noise_floor: farthest that a seed's point moved when it was run in another batch.
    seeds, mutants: 95 % quantiles of the distance from a seed to the nearest other seed, and from a
    mutant to the nearest seed; inf where there is nothing to measure.
    radius: mutants, but at least 5 noise_floor, and at most seeds. stability: share (0 to 1) of the seeds
    that moved less than radius / 10.
    """

    noise_floor: float
    seeds: float
    mutants: float
    radius: float
    stability: float

    def words(self) -> str:
        """All of it on one line, with a warning where the target does not seem deterministic."""
        stable = f"{self.stability:.0%} of the seeds are stable"
        if self.stability < STABLE:
            stable = (
                f"only {self.stability:.0%} of the seeds lead to the same state when run again: the target "
                "is not deterministic, findings may be flaky"
            )
        return (
            f"radius {self.radius:.3g} (noise {self.noise_floor:.2g}, mutants {self.mutants:.3g}, "
            f"seeds {self.seeds:.3g}); {stable}"
        )


def calibrate(
    seed_points_a: FloatArray, seed_points_b: FloatArray, mutant_points: FloatArray,
    radius: float | None = None,
) -> Calibration:  # fmt: skip
    """The radius for points (N, D) of seeds in two batchings and (M, D) of mutants, or the given one.

    Seeds no farther apart than they themselves move are the same seed and say nothing of the distance
    between seeds. Rows that are not finite are left out; a seed finite in one run only is unstable.
    UsageError when no seed is finite.
    """
    finite_a, finite_b = np.isfinite(seed_points_a).all(axis=1), np.isfinite(seed_points_b).all(axis=1)
    both = finite_a & finite_b
    if not both.any():
        raise UsageError("no seed has a finite point, so that there is no distance to calibrate with")
    seeds = seed_points_a[both]
    moved = np.sqrt(squared_distances(seeds, seed_points_b[both]))
    apart = _nearest(seeds, seeds, themselves=True)
    noise = float(moved.max())
    between = _quantile(apart[apart > 2 * np.median(moved)])
    mutants = _quantile(_nearest(mutant_points[np.isfinite(mutant_points).all(axis=1)], seeds))
    if radius is None:
        wanted = min(mutants, between)
        wanted = min(max(wanted if math.isfinite(wanted) else 0.0, 5 * noise), between)
        radius = max(wanted, _LEAST)
    stable = np.count_nonzero(moved < radius / 10) / np.count_nonzero(finite_a | finite_b)
    return Calibration(noise, between, mutants, radius, float(stable))


def measure(
    executor: Executor, feature: Feature, seeds: Batch, mutants: Batch, wants: frozenset[str],
    batch_size: int, compare: Callable[[Trace, Trace], None] | None = None,
) -> Calibration:  # fmt: skip
    """Run seeds and mutants, fit ``feature`` on the seeds, and calibrate.

    The seeds run among themselves, ``batch_size`` at a time, and again shuffled among the mutants in
    batches of two thirds of that: other neighbours, other padding, other sizes. Seeds that crash the
    first time are left out of the second: to find them costs a bisection each. A feature of cells has a
    ``radius`` of its own, which is kept. compare: is called with what the seeds showed in either run.
    """
    first = [executor.run(batch, wants) for batch in _batches(seeds, batch_size)]
    feature.fit(_joined(first, feature.needs))
    ran = np.concatenate([trace[CRASH] == "" for trace in first])
    seeds = seeds[ran]
    both = join([seeds, mutants])
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(both))
    again = [executor.run(batch, wants) for batch in _batches(both[order], max(1, 2 * batch_size // 3))]
    back = np.argsort(order)
    points = np.concatenate([feature(trace) for trace in again])[back]
    if compare is not None and len(seeds):
        compare(take(_joined(first, wants), ran), take(_joined(again, wants), back[: len(seeds)]))
    fixed = feature.radius if isinstance(feature, FixesRadius) else None
    return calibrate(
        np.concatenate([feature(trace) for trace in first])[ran],
        points[: len(seeds)],
        points[len(seeds) :],
        fixed,
    )


def _batches(rows: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _joined(traces: Sequence[Trace], names: frozenset[str]) -> Trace:
    """The rows of all traces; where outputs end sooner in some batch, its steps are filled up."""
    return {name: _stacked([trace[name] for trace in traces]) for name in sorted(names)}


def _stacked(arrays: Sequence[Array]) -> Array:
    if arrays[0].ndim > 1:
        steps = max(a.shape[1] for a in arrays)
        fill = np.nan if arrays[0].dtype.kind == "f" else PAD
        arrays = [
            np.pad(a, [(0, 0), (0, steps - a.shape[1])] + [(0, 0)] * (a.ndim - 2), constant_values=fill)
            for a in arrays
        ]
    return np.concatenate(arrays)


def _nearest(points: FloatArray, others: FloatArray, themselves: bool = False) -> FloatArray:
    """Distance float64 (N,) from each point (N, D) to the nearest of ``others`` (M, D), M >= 1.

    Where points and others are ``themselves`` the same, to the nearest but for itself; 0 where M is 1.
    """
    doubled = others.astype(np.float64)
    norms = (doubled * doubled).sum(axis=1)
    distances = np.empty(len(points))
    for start in range(0, len(points), 1024):
        some = points[start : start + 1024]
        rows = np.arange(len(some))
        squared = norms - 2 * (some.astype(np.float64) @ doubled.T)
        if themselves:
            squared[rows, start + rows] = np.inf
        nearest = squared.argmin(axis=1)
        distances[start + rows] = np.sqrt(squared_distances(some, others[nearest]))
    return distances


def _quantile(distances: FloatArray) -> float:
    finite = distances[np.isfinite(distances)]
    return float(np.quantile(finite, 0.95)) if len(finite) else math.inf
