"""What became of every seed, in campaigns that search for each seed by itself."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from lmfuzz.protocols import SearchContext
from lmfuzz.types import Batch, FloatArray, IntArray, Resumable

TURN = 100  # queries after which a seed gives way to those that had fewer


class SeedOutcomes(Resumable):
    """Record for S seeds whether the seed itself hits, and after how many queries a mutant of it hit.

    A query is a mutant that was run; running the seed itself is not one (TriggerFinder, arXiv 2112.02819,
    section 4).

    Attributes:
        natural: bool (S,), the seed hits as it is.
        solved: bool (S,), a mutant of it hit.
        queries: int64 (S,), mutants run, up to the first hit.
        distance: float64 (S,), from the seed to the first hit, NaN if there is none.
    """

    kept = ("natural", "solved", "queries", "distance")

    def __init__(self, context: SearchContext) -> None:
        seeds = len(context.seeds)
        self._seeds, self._space, self._most = context.seeds, context.space, context.queries
        self.natural, self.solved = np.zeros(seeds, bool), np.zeros(seeds, bool)
        self.queries = np.zeros(seeds, np.int64)
        self.distance = np.full(seeds, np.nan)

    @property
    def open(self) -> IntArray:
        """Return the seeds to go on with: those without a hit that have queries left."""
        return np.flatnonzero(~self.natural & ~self.solved & (self.left > 0))

    @property
    def left(self) -> IntArray:
        """Return how many queries (S,) each seed has left."""
        most = np.iinfo(np.int64).max if self._most is None else self._most
        return most - self.queries

    def due(self, size: int) -> IntArray:
        """Return at most ``size`` open seeds, those that had fewer turns of ``TURN`` queries first.

        So a seed that cannot be solved does not keep the others from being tried.
        """
        seeds = self.open
        return np.sort(seeds[np.argsort(self.queries[seeds] // TURN, kind="stable")[:size]])

    def note(self, batch: Batch, margins: FloatArray) -> None:
        """Record the margins (B, N) of rows, in the order in which they were to be tried."""
        hits = np.any(margins > 0, axis=1)
        self.natural[batch.origin[hits & (batch.parent < 0)]] = True
        tried = np.flatnonzero((batch.parent >= 0) & ~self.solved[batch.origin])
        first = np.full(len(self.natural), len(batch))
        np.minimum.at(first, batch.origin[tried[hits[tried]]], tried[hits[tried]])
        counted = tried[tried <= first[batch.origin[tried]]]
        np.add.at(self.queries, batch.origin[counted], 1)
        for seed in np.flatnonzero(first < len(batch)).tolist():
            self.solved[seed] = True
            self.distance[seed] = self._space.distance(batch.row(int(first[seed])), self._seeds.row(seed))


@runtime_checkable
class TracksSeeds(Protocol):
    """Track, as a search, what became of every seed."""

    outcomes: SeedOutcomes


def outcomes_of(search: Any) -> SeedOutcomes | None:
    """Return what became of every seed, if the search tracks that; in 0.3.0 it was called ``trials``."""
    if isinstance(search, TracksSeeds):
        return search.outcomes
    return getattr(search, "trials", None)
