"""Calibration: how far apart points have to be to count as different states."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmfuzz.coverage.index import squared_distances
from lmfuzz.protocols import Executor, Feature, FixesRadius
from lmfuzz.types import CRASH, PAD, Batch, BoolArray, FloatArray, Trace, join, stack, take

Progress = Callable[[int, int], None]  # how many rows were run, and how many there are to run

STABLE = 0.9  # the target seems deterministic if at least this share of the seeds is stable
_LEAST = 1e-6  # the radius if all distances are zero: any difference is new


@dataclass(frozen=True, slots=True)
class Calibration:
    """Hold Euclidean distances between points, and the radius that follows from them.

    Attributes:
        noise_floor: farthest that a seed's point moved when it was run in another batch.
        seeds: 95 % quantile of the distance from a seed to the nearest other seed; inf if there is none.
        mutants: 95 % quantile of the distance from a mutant to the nearest seed; inf if there is none.
        radius: ``mutants``, but at least 5 ``noise_floor``, and at most ``seeds``.
        stability: share (0 to 1) of the seeds that moved less than ``radius`` / 10.
        finite: share (0 to 1) of the seeds whose points were finite both times; if fewer of them wrote by
            finite log probabilities, the share of these.
    """

    noise_floor: float
    seeds: float
    mutants: float
    radius: float
    stability: float
    finite: float = 1.0

    def words(self) -> str:
        """Return all of it on one line, with a warning if the target does not seem deterministic."""
        stable = f"{self.stability:.0%} of the seeds are stable"
        if self.stability < STABLE:
            stable = (
                f"only {self.stability:.0%} of the seeds lead to the same state when run again: the target "
                "is not deterministic, findings may be flaky"
            )
        if not self.finite:
            stable = "every seed leads to NaN or infinity"
        elif self.finite < 1:
            stable += f"; {1 - self.finite:.1%} of the seeds lead to NaN or infinity"
        return (
            f"radius {self.radius:.3g} (noise {self.noise_floor:.2g}, mutants {self.mutants:.3g}, "
            f"seeds {self.seeds:.3g}); {stable}"
        )


def calibrate(
    first: FloatArray, again: FloatArray, mutants: FloatArray, radius: float | None = None
) -> Calibration:
    """Return distances and the radius that follows from them.

    Seeds that are no farther apart than they move themselves count as one seed. Rows that are not finite are
    left out; a seed that is finite in one run only is unstable. If no seed is finite, any two points differ.

    Args:
        first: points (N, D) of the seeds.
        again: points (N, D) of the seeds, run in other batches.
        mutants: points (M, D) of mutants.
        radius: the radius to use, if it is fixed.
    """
    finite, finite_again = np.isfinite(first).all(axis=1), np.isfinite(again).all(axis=1)
    both = finite & finite_again
    share = float(both.sum() / max(1, both.size))
    if not both.any():
        return Calibration(0.0, math.inf, math.inf, radius or _LEAST, 0.0, share)
    seeds = first[both]
    moved = np.sqrt(squared_distances(seeds, again[both]))
    apart = _nearest(seeds, seeds, themselves=True)
    noise = float(moved.max())
    between = _quantile(apart[apart > 2 * np.median(moved)])
    reached = _quantile(_nearest(mutants[np.isfinite(mutants).all(axis=1)], seeds))
    if radius is None:
        wanted = min(reached, between)
        wanted = min(max(wanted if math.isfinite(wanted) else 0.0, 5 * noise), between)
        radius = max(wanted, _LEAST)
    stable = np.count_nonzero(moved < radius / 10) / np.count_nonzero(finite | finite_again)
    return Calibration(noise, between, reached, radius, float(stable), share)


def measure(
    executor: Executor,
    feature: Feature,
    seeds: Batch,
    mutants: Batch,
    wants: frozenset[str],
    batch_size: int,
    compare: Callable[[Trace, Trace], None] | None = None,
    progress: Progress = lambda done, total: None,
) -> Calibration:
    """Run seeds and mutants, fit ``feature`` on the seeds, and calibrate.

    The seeds run among themselves, and again shuffled among the mutants in batches of two thirds of the size:
    with other neighbours, other padding and other sizes. Seeds that crash the first time are left out of the
    second, because finding them costs a bisection each. A radius that the feature fixes is kept.

    Args:
        executor: runs the rows.
        feature: what to fit.
        seeds: at least one.
        mutants: rows made from the seeds.
        wants: channels that feature and ``compare`` need; if ``logprob`` and ``tokens`` are among them, the
            first run shows which seeds have finite log probabilities.
        batch_size: rows per batch.
        compare: called with what the seeds showed in either run.
        progress: called after each batch with how many rows were run, and how many there are to run.
    """
    total, done = 2 * len(seeds) + len(mutants), 0

    def run(batch: Batch) -> Trace:
        nonlocal done
        trace = executor.run(batch, wants)
        done += len(batch)
        progress(done, total)
        return trace

    first = [run(batch) for batch in _batches(seeds, batch_size)]
    feature.fit(_joined(first, feature.needs))
    ran = np.concatenate([trace[CRASH] == "" for trace in first])
    seeds = seeds[ran]
    both = join([seeds, mutants])
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(both))
    again = [run(batch) for batch in _batches(both[order], max(1, 2 * batch_size // 3))]
    back = np.argsort(order)
    points = np.concatenate([feature(trace) for trace in again])[back]
    if compare is not None and len(seeds):
        compare(take(_joined(first, wants), ran), take(_joined(again, wants), back[: len(seeds)]))
    fixed = feature.radius if isinstance(feature, FixesRadius) else None
    sound = np.concatenate([has_numbers(trace) for trace in first])[ran]
    known = np.concatenate([feature(trace) for trace in first])[ran]
    found = calibrate(known, points[: len(seeds)], points[len(seeds) :], fixed)
    return replace(found, finite=min(found.finite, float(sound.mean())) if len(sound) else 0.0)


def _batches(rows: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def has_numbers(trace: Trace) -> BoolArray:
    """Return which rows (B,) wrote no token whose log probability is NaN or infinite, if that is known."""
    if not {"logprob", "tokens"} <= trace.keys():
        return np.ones(len(trace[CRASH]), np.bool_)
    return (np.isfinite(trace["logprob"]) | (trace["tokens"] == PAD)).all(axis=1)


def _joined(traces: Sequence[Trace], names: frozenset[str]) -> Trace:
    """Return the rows of all traces; the steps of batches with shorter outputs are padded."""
    return {name: stack([trace[name] for trace in traces]) for name in sorted(names)}


def _nearest(points: FloatArray, others: FloatArray, themselves: bool = False) -> FloatArray:
    """Return the distance float64 (N,) from each point (N, D) to the nearest of ``others`` (M, D), M >= 1.

    If points and others are the same, ``themselves`` leaves out the point itself; it is 0 if M is 1.
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
