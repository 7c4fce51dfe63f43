"""What every search does the same way: seeds first, then mutants whose operators are known."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lmfuzz.protocols import MutationContext, SearchContext
from lmfuzz.types import Batch, IntArray, State, join

GROUPS = 3  # operators drawn per batch: each changes a group of rows at once, which keeps mutation cheap

Choice = Callable[[int], IntArray]  # how many operators to draw -> their ids


class Mutator:
    """Hands out the seeds, which get the first corpus ids, and makes mutants of corpus rows."""

    def __init__(self, context: SearchContext) -> None:
        self.context = context
        self.seeded = len(context.seeds)  # corpus ids below this are seeds
        self.pool = context.seeds if context.pool is None else context.pool
        self.operators = list(context.operators.values())
        self._next = 0  # the first seed not handed out yet
        if not len(context.corpus):
            context.corpus.add(context.seeds)

    def seeds(self, size: int) -> Batch | None:
        """Up to ``size`` seeds that were not handed out yet, None when all were."""
        if self._next >= self.seeded:
            return None
        start, self._next = self._next, min(self._next + size, self.seeded)
        return self.context.corpus[slice(start, self._next)]

    def uniform(self, groups: int) -> IntArray:
        """``groups`` operators, all equally likely."""
        return self.context.rng.integers(len(self.operators), size=groups)

    def mutate(self, ids: IntArray, choose: Choice | None = None, pool: IntArray | None = None) -> Batch:
        """One mutant of every corpus row in ``ids`` (B,), in this order.

        choose: draws the operators (uniformly when it is None). pool: corpus ids (B,) of rows to borrow
        from (the setting's pool when it is None).
        """
        corpus = self.context.corpus
        return self.change(corpus.parents(ids), self.lend(len(ids)) if pool is None else corpus[pool], choose)

    def lend(self, count: int) -> Batch:
        """``count`` rows of the pool, drawn at random."""
        return self.pool[self.context.rng.integers(len(self.pool), size=count)]

    def change(self, rows: Batch, pool: Batch, choose: Choice | None = None) -> Batch:
        """One mutant of each of ``rows``, which may borrow from the row of ``pool`` at its place.

        All of them are within the setting's bound.
        """
        groups = np.array_split(self.context.rng.permutation(len(rows)), min(GROUPS, len(rows)))
        return self._changed(rows, pool, groups, (choose or self.uniform)(len(groups)))

    def by(self, rows: Batch, pool: Batch, operators: IntArray) -> Batch:
        """As ``change``, but each of the rows by an operator of its own, ``operators`` (B,)."""
        chosen = np.unique(operators)
        return self._changed(rows, pool, [np.flatnonzero(operators == one) for one in chosen], chosen)

    def _changed(self, rows: Batch, pool: Batch, groups: Sequence[IntArray], chosen: IntArray) -> Batch:
        """The rows of each group changed by the operator chosen for it, in the rows' order."""
        rng, context, parts = self.context.rng, self.context, []
        for group, operator in zip(groups, chosen.tolist(), strict=True):
            near = MutationContext(context.space, pool[group], rng, context.sampler, context.lexicon)
            changed = self.operators[operator](rows[group], near)
            parts.append(replace(changed, operator=np.full(len(group), operator, np.int32)))
        mutants = join(parts)[np.concatenate(groups).argsort()]
        return mutants if context.bound is None else context.bound.hold(mutants, rng)

    def state(self) -> State:
        """How far the seeds were handed out."""
        return {"next": self._next}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self._next = state["next"]
