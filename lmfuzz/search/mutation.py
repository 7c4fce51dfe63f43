"""What nearly all searches share: they hand out the seeds, then mutants made by known operators."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from lmfuzz.protocols import MutationContext, SearchContext, SearchTraits
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, Resumable, State, Trace, join

GROUPS = 3  # operators drawn per batch: each changes a group of rows at once, which keeps mutation cheap

Choice = Callable[[int], IntArray]  # how many operators to draw -> their places among the mutator's


class Mutator(Resumable):
    """Hand out the seeds, which get the first corpus ids, and mutate rows of the corpus.

    Args:
        context: what the search is given.
        only: names of operators to use, if the campaign has any of them; otherwise it uses all.
    """

    kept = ("_next",)

    def __init__(self, context: SearchContext, only: Sequence[str] = ()) -> None:
        self.context = context
        self.seeded = len(context.seeds)  # corpus ids below this are seeds
        self.pool = context.seeds if context.pool is None else context.pool
        names = list(context.operators)
        self.ids = [names.index(name) for name in only if name in names] or [*range(len(names))]
        self.operators = [context.operators[names[i]] for i in self.ids]
        self._next = 0  # the first seed not handed out yet
        if not len(context.corpus):
            context.corpus.add(context.seeds)

    def seeds(self, size: int) -> Batch | None:
        """Return up to ``size`` seeds that were not handed out yet, or None if all were."""
        if self._next >= self.seeded:
            return None
        start, self._next = self._next, min(self._next + size, self.seeded)
        return self.context.corpus[slice(start, self._next)]

    def uniform(self, groups: int) -> IntArray:
        """Return ``groups`` operators, all equally likely."""
        return self.context.rng.integers(len(self.operators), size=groups)

    def mutate(self, ids: IntArray, choose: Choice | None = None) -> Batch:
        """Return one mutant of every corpus row in ``ids`` (B,), in this order.

        ``choose`` draws the operators, uniformly if it is None; they borrow from random rows of the pool.
        """
        return self.change(self.context.corpus.parents(ids), self.borrow(len(ids)), choose)

    def borrow(self, count: int) -> Batch:
        """Return ``count`` random rows of the pool."""
        return self.pool[self.context.rng.integers(len(self.pool), size=count)]

    def change(self, rows: Batch, pool: Batch, choose: Choice | None = None) -> Batch:
        """Return one mutant of each row, within the bound; row i may borrow from row i of ``pool``."""
        groups = np.array_split(self.context.rng.permutation(len(rows)), min(GROUPS, len(rows)))
        return self._changed(rows, pool, groups, (choose or self.uniform)(len(groups)))

    def by(self, rows: Batch, pool: Batch, operators: IntArray) -> Batch:
        """Do as ``change`` does, but with an operator for each row, ``operators`` (B,)."""
        chosen = np.unique(operators)
        return self._changed(rows, pool, [np.flatnonzero(operators == one) for one in chosen], chosen)

    def _changed(self, rows: Batch, pool: Batch, groups: Sequence[IntArray], chosen: IntArray) -> Batch:
        """Return the rows in their order, each group changed by the operator chosen for it."""
        rng, context, parts = self.context.rng, self.context, []
        for group, place in zip(groups, chosen.tolist(), strict=True):
            near = MutationContext(context.space, pool[group], rng, context.sampler, context.lexicon)
            changed = self.operators[place](rows[group], near)
            parts.append(replace(changed, operator=np.full(len(group), self.ids[place], np.int32)))
        return self.hold(join(parts)[np.concatenate(groups).argsort()])

    def hold(self, rows: Batch) -> Batch:
        """Return the rows moved within the context's bound, if it has one."""
        bound = self.context.bound
        return rows if bound is None else bound.hold(rows, self.context.rng)


class MutationSearch(Resumable, ABC):
    """Hand out the seeds first, then the mutants that a subclass proposes."""

    focus: Sequence[int] = ()
    traits = SearchTraits()
    stored_as: ClassVar[Mapping[str, str]] = {"_mutator": "breeder", "outcomes": "trials"}

    def __init__(self, context: SearchContext, only: Sequence[str] = ()) -> None:
        self._context, self._rng = context, context.rng
        self._mutator = Mutator(context, only)

    def ask(self, size: int) -> Batch:
        """Return at most ``size`` rows to run: the seeds first, then mutants."""
        seeds = self._mutator.seeds(size)
        return self._propose(size) if seeds is None else seeds

    @abstractmethod
    def _propose(self, size: int) -> Batch:
        """Return at most ``size`` mutants to run."""

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn nothing."""

    def state(self) -> State:
        """Return what ``restore`` needs: that of the mutator alone if nothing else is kept."""
        return super().state() if self.kept else self._mutator.state()

    def restore(self, state: State) -> None:
        """Continue from ``state``."""
        return super().restore(state) if self.kept else self._mutator.restore(state)
