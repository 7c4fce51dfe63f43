"""TriggerFinder (Tian et al., arXiv 2112.02819; later called DFLARE): inputs on which two models disagree."""

from typing import Literal

import numpy as np

from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import MutationSearch
from lmfuzz.search.seed_outcomes import SeedOutcomes
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State, Trace, alike

MODELS = ("base/probabilities", "twin/probabilities")
PAPER = (
    "gaussian_noise", "salt_pepper", "multiplicative", "pixels", "mean_blur", "gaussian_blur", "median_blur",
)  # fmt: skip
DELTA = 1e-3  # differences of probabilities that count as one
APART = 0.5  # squared L2 distance above which a pair of probability vectors is a new state
ALLOCATED = 8  # states per seed to allocate at first, doubled when full


class TriggerFinder(MutationSearch):
    """Follow one lineage per seed: a mutant is kept if it is at least as fit as its parent.

    The fitness of a row is H = d / 0.001 + n: d is the absolute difference between both models' largest
    probabilities, n is 1 if the pair of probability vectors is a state that this seed has not led to before.
    The next operator is drawn given the operator of the last mutant kept, by Metropolis and Hastings' rule
    over the operators' ranks in successes per try.

    Args:
        context: what the search is given.
        fitness: ``paper`` keeps a mutant if H does not fall. The published ``code`` keeps it if d changed by
            more than 0.001, up or down, or if it is new, which is nearly a random walk. But if both models
            are sure, nothing changes d by that much: of the seeds of LeNet-1 and LeNet-5 with int8 twins 10
            to 22 % were stuck after 5 000 queries (with the paper's rule at most 3 %).
        paper: whether to use only the paper's seven operators, if the campaign has any of them.
    """

    traits = SearchTraits(frozenset(MODELS), per_seed=True)
    kept = (
        "outcomes", "_mutator", "_last", "_tries", "_successes", "_difference", "_fresh", "_count",
        "_covered",
    )  # fmt: skip

    def __init__(
        self, context: SearchContext, fitness: Literal["paper", "code"] = "paper", paper: bool = True
    ) -> None:
        super().__init__(context, PAPER if paper else ())
        self._fitness, self.outcomes, many = fitness, SeedOutcomes(context), len(context.seeds)
        own = self._mutator.ids
        self._own = np.zeros(len(context.operators), np.int64)  # place of each operator among the mutator's
        self._own[own] = np.arange(len(own))
        self._data, self._lengths = context.space.empty(many), context.seeds.lengths.copy()  # lineages' ends
        self._data[:, : context.seeds.data.shape[1]] = context.seeds.data
        self._last = np.full(many, -1)  # the operator of the last mutant kept, -1 before the first
        self._tries, self._successes = np.zeros((many, len(own))), np.zeros((many, len(own)))
        self._difference, self._fresh = np.zeros(many), np.zeros(many, bool)  # d and n at the lineages' ends
        self._count = np.zeros(many, np.int64)  # states seen from each seed
        self._covered = np.zeros((many, 0, 0), np.float32)  # these states, as many for each seed

    def _propose(self, size: int) -> Batch:
        """Return one mutant of each of as many lineages as fit."""
        if not len(ids := self.outcomes.due(size)):
            return self._context.seeds[:0]
        rows = self._context.corpus.parents(ids).changed(self._data[ids], self._lengths[ids])
        return self._mutator.by(rows, self._mutator.borrow(len(ids)), self._choose(ids))

    def _choose(self, ids: IntArray) -> IntArray:
        """Return the next operator of each lineage (n,).

        One is proposed uniformly and accepted with probability min(1, (1 - p) ** (k2 - k1)); p is 1 / the
        number of operators, k1 the rank of the last operator and k2 that of the proposed one, 0 the best. (In
        the published code the look-up of k1 always returns -1, so that its draws do not depend on the last
        operator.)
        """
        operators = self._tries.shape[1]
        score = self._successes[ids] / np.maximum(self._tries[ids], 1)
        order = np.lexsort((self._rng.random(score.shape), -score))  # best first, ties at random
        last = (order == self._last[ids][:, None]).argmax(axis=1)  # its rank
        chosen = self._rng.integers(operators, size=len(ids))
        waiting = np.flatnonzero(self._last[ids] >= 0)
        while len(waiting):
            chosen[waiting] = proposed = self._rng.integers(operators, size=len(waiting))
            accepted = (1 - 1 / operators) ** (proposed - last[waiting])
            waiting = waiting[self._rng.random(len(waiting)) >= accepted]
        first = self._last[ids] < 0
        return np.where(first, chosen, order[np.arange(len(ids)), chosen])

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Keep the mutants that are fit enough, and credit their operators."""
        self.outcomes.note(batch, margins)
        ids = batch.origin
        base, twin = (trace[name].astype(np.float64) for name in MODELS)
        difference = np.abs(base.max(axis=1) - twin.max(axis=1))
        fresh = self._cover(ids, np.concatenate([base, twin], axis=1))
        if batch.parent[0] < 0:
            self._difference[ids] = difference
            return
        kept = self._fit(ids, difference, fresh)
        operators, width = self._own[batch.operator], batch.data.shape[1]
        self._tries[ids, operators] += 1
        self._successes[ids, operators] += kept
        ids, operators = ids[kept], operators[kept]
        self._data[ids, :width], self._lengths[ids] = batch.data[kept], batch.lengths[kept]
        self._last[ids], self._difference[ids], self._fresh[ids] = operators, difference[kept], fresh[kept]

    def _fit(self, ids: IntArray, difference: FloatArray, fresh: BoolArray) -> BoolArray:
        """Return which mutants (n,) with this d and n continue their lineages."""
        before = self._difference[ids]
        if self._fitness == "code":
            return fresh | (np.abs(difference - before) > DELTA)
        return np.asarray(difference / DELTA + fresh >= before / DELTA + self._fresh[ids])

    def _cover(self, ids: IntArray, states: FloatArray) -> BoolArray:
        """Return which states (n, 2 C) are new to their seeds, and remember those."""
        if not self._covered.size:
            self._covered = np.zeros((len(self._count), ALLOCATED, states.shape[1]), np.float32)
        seen = np.arange(self._covered.shape[1]) < self._count[ids][:, None]
        squared = ((self._covered[ids] - states[:, None]) ** 2).sum(axis=2)
        fresh: BoolArray = ~(seen & ~(squared > APART)).any(axis=1) & np.isfinite(states).all(axis=1)
        ids = ids[fresh]
        if (self._count[ids] == self._covered.shape[1]).any():
            self._covered = np.concatenate([self._covered, np.zeros_like(self._covered)], axis=1)
        self._covered[ids, self._count[ids]] = states[fresh]
        self._count[ids] += 1
        return fresh

    def state(self) -> State:
        """Return everything, but the ends of lineages only for seeds under way."""
        going = self.outcomes.open
        going = going[self._tries[going].any(axis=1)]
        ends = {"going": going, "data": self._data[going], "lengths": self._lengths[going]}
        return {**super().state(), **ends}

    def restore(self, state: State) -> None:
        """Continue from ``state``."""
        super().restore(state)
        going = state["going"]
        self._data[going] = alike(self._data[going], state["data"])
        self._lengths[going] = alike(self._lengths[going], state["lengths"])
