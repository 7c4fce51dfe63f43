"""TriggerFinder (Tian et al., arXiv 2112.02819; later called DFLARE): inputs on which two models part."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import Mutator
from lmfuzz.search.seed_outcomes import SeedOutcomes, turn
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State, Trace

MODELS = ("base/probabilities", "twin/probabilities")
PAPER = (
    "gaussian_noise", "salt_pepper", "multiplicative", "pixels", "mean_blur", "gaussian_blur", "median_blur",
)  # fmt: skip
DELTA = 1e-3  # differences of probabilities that count as one
APART = 0.5  # squared L2 beyond which a pair of probability vectors is a new state
SEEDWISE = ("last", "tries", "successes", "difference", "fresh", "count", "covered")


class TriggerFinder:
    """One lineage per seed: a mutant is kept when it is at least as fit; operators are drawn by their record.

    A row's fitness is H = d / 0.001 + n: d is the absolute difference of both models' largest
    probabilities, n is 1 where the pair of probability vectors is a state not seen from this seed. The
    operator of the next mutant is drawn given that of the last one kept, by Metropolis and Hastings' rule
    over the operators' ranks in successes per try.

    fitness: ``paper``, the default, keeps a mutant when H does not fall. The published ``code`` keeps it
    when d changed by more than 0.001, up or down, and otherwise when it is new, which is nearly a random
    walk; but where both models are sure nothing changes d by that much, and of the seeds of LeNet-1 and
    LeNet-5 with int8 twins 10 to 22 % were stuck after 5 000 queries (with the paper's rule at most 3 %).
    paper: only the paper's seven operators, where the campaign has any of them.
    """

    focus: Sequence[int] = ()
    traits = SearchTraits(frozenset(MODELS), per_seed=True)

    def __init__(
        self, context: SearchContext, fitness: Literal["paper", "code"] = "paper", paper: bool = True
    ) -> None:
        own = {name: context.operators[name] for name in PAPER if name in context.operators}
        own = own if paper and own else dict(context.operators)
        self._ids = np.array([list(context.operators).index(name) for name in own], np.int32)
        self._own = np.zeros(len(context.operators), np.int64)  # the places of these among the campaign's
        self._own[self._ids] = np.arange(len(own))
        self._mutator = Mutator(replace(context, operators=own))
        self._context, self._rng, self._fitness = context, context.rng, fitness
        self.outcomes = SeedOutcomes(context)
        many, seeds = len(context.seeds), context.seeds
        self._data, self._lengths = context.space.empty(many), seeds.lengths.copy()  # where lineages stand
        self._data[:, : seeds.data.shape[1]] = seeds.data
        self._last = np.full(many, -1)  # the operator of the last mutant kept, -1 before the first
        self._tries, self._successes = np.zeros((many, len(own))), np.zeros((many, len(own)))
        self._difference, self._fresh = np.zeros(many), np.zeros(many, bool)  # d and n of where they stand
        self._count = np.zeros(many, np.int64)  # states seen from each seed
        self._covered = np.zeros((many, 0, 0), np.float32)  # these states, filled up to as many for all

    def ask(self, size: int) -> Batch:
        """Seeds first, then one mutant of each of as many lineages as fit."""
        if (seeds := self._mutator.seeds(size)) is not None:
            return seeds
        if not len(ids := turn(self.outcomes, size)):
            return self._context.seeds[:0]
        rows = self._context.corpus.parents(ids).changed(self._data[ids], self._lengths[ids])
        mutants = self._mutator.by(rows, self._mutator.lend(len(ids)), self._choose(ids))
        return replace(mutants, operator=self._ids[mutants.operator])

    def _choose(self, ids: IntArray) -> IntArray:
        """The next operator of each lineage (n,).

        Proposed uniformly, and accepted with probability min(1, (1 - p) ** (k2 - k1)), p being 1 / the number
        of operators, k1 the rank of the last operator and k2 that of the proposed one, 0 the best. (In the
        published code the look-up of k1 always says -1, so that its draws do not depend on the last one.)
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
        """Keep the mutants that are fit, to the credit of their operators."""
        self.outcomes.note(batch, margins)
        base, twin = (trace[name].astype(np.float64) for name in MODELS)
        difference = np.abs(base.max(axis=1) - twin.max(axis=1))
        fresh = self._cover(batch.origin, np.concatenate([base, twin], axis=1))
        if batch.parent[0] < 0:
            self._difference[batch.origin] = difference
            return
        kept = self._fit(batch.origin, difference, fresh)
        ids, operators, width = batch.origin, self._own[batch.operator], batch.data.shape[1]
        self._tries[ids, operators] += 1
        self._successes[ids, operators] += kept
        ids, operators = ids[kept], operators[kept]
        self._data[ids, :width], self._lengths[ids] = batch.data[kept], batch.lengths[kept]
        self._last[ids], self._difference[ids], self._fresh[ids] = operators, difference[kept], fresh[kept]

    def _fit(self, ids: IntArray, difference: FloatArray, fresh: BoolArray) -> BoolArray:
        """Which mutants (n,) with this d and n take their lineage on."""
        before, code = self._difference[ids], self._fitness == "code"
        kept: BoolArray = (
            fresh | (np.abs(difference - before) > DELTA)
            if code
            else difference / DELTA + fresh >= before / DELTA + self._fresh[ids]
        )
        return kept

    def _cover(self, ids: IntArray, states: FloatArray) -> BoolArray:
        """Which states (n, 2 C) are new to their seeds; these are seen from now on."""
        seen = np.arange(self._covered.shape[1]) < self._count[ids][:, None]
        if not seen.size:
            self._covered = np.zeros((len(self._count), 8, states.shape[1]), np.float32)
            seen = np.zeros((len(ids), 8), bool)
        squared = ((self._covered[ids] - states[:, None]) ** 2).sum(axis=2)
        fresh: BoolArray = ~(seen & ~(squared > APART)).any(axis=1) & np.isfinite(states).all(axis=1)
        ids = ids[fresh]
        if (self._count[ids] == self._covered.shape[1]).any():
            self._covered = np.concatenate([self._covered, np.zeros_like(self._covered)], axis=1)
        self._covered[ids, self._count[ids]] = states[fresh]
        self._count[ids] += 1
        return fresh

    def state(self) -> State:
        """Everything; of the rows only those where lineages under way stand."""
        going = self.outcomes.open
        going = going[self._tries[going].any(axis=1)]
        return {
            "trials": self.outcomes.state(), "breeder": self._mutator.state(), "going": going,
            "data": self._data[going], "lengths": self._lengths[going],
            **{name: getattr(self, f"_{name}") for name in SEEDWISE},
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.outcomes.restore(state["trials"])
        self._mutator.restore(state["breeder"])
        going = state["going"]
        self._data[going], self._lengths[going] = state["data"], state["lengths"]
        for name in SEEDWISE:
            setattr(self, f"_{name}", np.array(state[name]))
