"""What became of every seed, in campaigns that search for each seed by itself."""

import numpy as np

from lmfuzz.protocols import SearchContext
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State

TURN = 100  # queries after which a seed makes way for those that had fewer


class SeedOutcomes:
    """Per seed (S,): whether the seed itself hits, and with how many queries which mutant of it hit.

    A query is a mutant that was run; the seeds' own run is none (TriggerFinder, section 4). natural:
    the seed hits as it is. solved: a mutant hit. queries: mutants run, up to the first hit. distance:
    of the first hit from its seed, NaN where there is none.
    """

    def __init__(self, context: SearchContext) -> None:
        seeds = len(context.seeds)
        self._seeds, self._space, self._most = context.seeds, context.space, context.queries
        self.natural, self.solved = np.zeros(seeds, bool), np.zeros(seeds, bool)
        self.queries = np.zeros(seeds, np.int64)
        self.distance = np.full(seeds, np.nan)

    @property
    def open(self) -> IntArray:
        """The seeds to go on with: neither hit, nor all their queries spent."""
        return np.flatnonzero(~self.natural & ~self.solved & (self.left > 0))

    @property
    def left(self) -> IntArray:
        """Queries (S,) that every seed has left."""
        most = np.iinfo(np.int64).max if self._most is None else self._most
        return most - self.queries

    def note(self, batch: Batch, margins: FloatArray) -> None:
        """Take note of the margins (B, N) of rows, in the order in which they were to be tried."""
        hits: BoolArray = np.logical_or.reduce(margins > 0, axis=1)
        self.natural[batch.origin[hits & (batch.parent < 0)]] = True
        tried = np.flatnonzero((batch.parent >= 0) & ~self.solved[batch.origin])
        first = np.full(len(self.natural), len(batch))
        np.minimum.at(first, batch.origin[tried[hits[tried]]], tried[hits[tried]])
        counted = tried[tried <= first[batch.origin[tried]]]
        np.add.at(self.queries, batch.origin[counted], 1)
        for seed in np.flatnonzero(first < len(batch)).tolist():
            self.solved[seed] = True
            self.distance[seed] = self._space.distance(batch.row(int(first[seed])), self._seeds.row(seed))

    def state(self) -> State:
        """All of it, for resume."""
        return {name: getattr(self, name) for name in ("natural", "solved", "queries", "distance")}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        for name, array in state.items():
            setattr(self, name, np.array(array))


def turn(trials: SeedOutcomes, size: int) -> IntArray:
    """At most ``size`` of the seeds to go on with, those that had fewer turns of ``TURN`` queries first.

    So that no more seeds are under way than there is room for, and a seed that cannot be solved does
    not keep the others from being tried.
    """
    seeds = trials.open
    return np.sort(seeds[np.argsort(trials.queries[seeds] // TURN, kind="stable")[:size]])
